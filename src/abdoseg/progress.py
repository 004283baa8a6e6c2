"""How a step tells that it is getting on; the command line draws it, a notebook may ignore it."""

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one step."""

    def start(self, total: int, title: str) -> None:
        """Begin a stretch of ``total`` units called ``title``."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Count units done; ``note`` is the newest thing worth showing."""

    def say(self, text: str) -> None:
        """Tell one line that should stay on the screen."""


class Silent:
    """Progress that nobody watches."""

    def start(self, total: int, title: str) -> None:
        """Do nothing."""

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""


SILENT = Silent()
