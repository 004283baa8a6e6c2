"""Errors a user can act on.

Every message follows one pattern: *where: what was found; what was expected; what to do*. The command line
prints such an error as one line and exits with status 2; any other exception is a bug and shows a traceback.
"""

import re


def one_line(text: str) -> str:
    """Return a text without line breaks: names quoted from files may hold some."""
    return re.sub(r"\s*[\r\n\v\f\x85\u2028\u2029]+\s*", " ", text)


class AbdosegError(Exception):
    """Base of all errors that the user, not the programmer, can mend; its message is one line."""

    told_elsewhere = False
    """Whether another process of the same training tells it."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class CardError(AbdosegError, ValueError):
    """A source's card is missing, malformed or contradicts the files."""


class NoCasesError(CardError):
    """No file of a folder fits a card."""


class ConfigError(AbdosegError, ValueError):
    """An option or a configuration value is not usable."""


class CaseError(AbdosegError, ValueError):
    """One scan or its label cannot be used; the others can. Ingest quarantines the case with this reason."""


class WorkspaceError(AbdosegError, OSError):
    """The workspace is missing, of another version, not writable or lacks what was asked for."""


class RunError(AbdosegError, RuntimeError):
    """A training run is missing, unfinished or does not fit the request."""


class UnknownNameError(AbdosegError, KeyError):
    """A name that is in no table; the message proposes the nearest ones."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument, quotes included.
        return one_line(str(self.args[0])) if self.args else ""


def unknown_name(kind: str, name: str, known: list[str], hint: str = "") -> UnknownNameError:
    """Return an error that proposes the known names nearest to ``name``.

    Parameters
    ----------
    kind
        What the name should have been ("card", "network", ...).
    name
        What was given.
    known
        All names that would have been right.
    hint
        What to do when none of them is meant.
    """
    import difflib

    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    guess = f" Did you mean {' or '.join(near)}?" if near else ""
    text = f"{kind} '{name}' is not known.{guess} Known: {', '.join(known)}."
    return UnknownNameError(f"{text} {hint}".rstrip())
