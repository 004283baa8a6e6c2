"""How a view and what it leaves are told."""

import textwrap
from typing import Any

from rich.markup import escape

from abdoseg.cli._console import counted, out, warn


def print_view(view: dict[str, Any]) -> None:
    """Print what :func:`abdoseg.steps.sparsify.view_facts` says, in lines of at most 80 columns where names are short.

    The name and whether the view is active are the caller's to print.
    """
    _line(recipe(view))
    of = ", ".join(view["sources"]) or "all sources"
    _line(f"thins {view['cases']} of {counted(view['annotated_cases'], 'annotated training case')} ({of})")
    for axis, (now, before) in view["slices"].items():
        drawn, all_drawn = view["contours"][axis]
        slices = f"{now} of {before} slices ({_percent(now, before)})"
        _line(f"{axis}: {slices}, {drawn} of {all_drawn} contours ({_percent(drawn, all_drawn)})")
    _line(_left(view))
    for text in _doubts(view):
        warn(f"view {view['view']}: {text}")


def _line(text: str) -> None:
    """Print a line below the view's name; one too long goes on further in."""
    wrapped = textwrap.fill(
        text,
        out.width,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    out.print(escape(wrapped), soft_wrap=True)


def recipe(view: dict[str, Any]) -> str:
    """Return how a view chooses slices, in words."""
    from abdoseg.views import percent

    *first, last = view["axes"]
    axes = f"{', '.join(first)} and {last}" if first else last
    grid = "native slices" if view["native"] else "slices"
    if view["how"] == "every":
        text = f"every {_ordinal(view['every'])} of the {axes} {grid}"
    else:
        chance = "evenly spaced" if view["how"] == "even" else f"at random (seed {view['seed']})"
        text = f"{percent(view['fraction'])} % of the {axes} {grid}, {chance}"
    if view["structures"]:
        text += f", of {', '.join(view['structures'])} only"
    return text + (", for each structure by itself" if view["per_structure"] else "")


def _left(view: dict[str, Any]) -> str:
    """Return what stays of the annotation and what that saves."""
    part, saved = view["annotated_part"], view["effort_saved"]
    if part is None:
        return "nothing is annotated in these cases"
    left = f"annotated voxels: {100 * part:.1f} % stay; annotation effort:"
    if saved is None:
        return f"{left} none, no structure is drawn"
    if saved < 0:
        return f"{left} {100 * view['effort']:.1f} % of one whole axis"
    return f"{left} about {100 * saved:.1f} % saved"


def _doubts(view: dict[str, Any]) -> list[str]:
    """Return what somebody should know before training with a view."""
    doubts = []
    if view["hidden"]:
        doubts.append(f"hides all that is drawn of {', '.join(view['hidden'])}: these cannot be learnt")
    if view["emptied"]:
        doubts.append(f"hides every label of {counted(view['emptied'], 'case')}")
    if view["other_axes"]:
        were = (
            "was drawn along other axes and stays"
            if view["other_axes"] == 1
            else "were drawn along other axes and stay"
        )
        doubts.append(f"{counted(view['other_axes'], 'case')} {were} as before")
    if view["unindexed"]:
        cases = counted(view["unindexed"], "case")
        doubts.append(
            f"{cases} stored by an older version: the labelled voxels were read instead; `ingest --replace` renews them"
        )
    return doubts


def _percent(now: int, before: int) -> str:
    return f"{100 * now / before:.1f} %" if before else "none"


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"
