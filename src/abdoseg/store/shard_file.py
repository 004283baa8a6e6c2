"""A local file that stays open, of which any part can be read, by several threads."""

import weakref
from os import SEEK_END
from pathlib import Path
from threading import Lock

from abdoseg.errors import WorkspaceError
from abdoseg.places import reason_of


class ShardFile:
    """An open file, closed when nobody refers to it any more.

    It is read, not mapped into memory: of a map, a byte that the disk cannot give or that another process cut off ends
    the process by a signal (SIGBUS); of a file, it is an error or a short answer.

    Parameters
    ----------
    path
        The file.

    Attributes
    ----------
    length
        Bytes it had when it was opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    WorkspaceError
        If it cannot be read for another reason.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, Lock()
        try:
            self._file = path.open("rb", buffering=0)
            weakref.finalize(self, self._file.close)
            self.length = self._file.seek(0, SEEK_END)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unreadable(error) from error

    def fileno(self) -> int:
        """Return the descriptor."""
        return int(self._file.fileno())

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset`` on; fewer, where the file ends before.

        Raises
        ------
        WorkspaceError
            If the disk does not give them.
        """
        try:
            with self._lock:
                self._file.seek(offset)
                return bytes(self._file.read(length))
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> WorkspaceError:
        return WorkspaceError(
            f"{self._path}: cannot be read ({reason_of(error)}); check the disk and the limit of open files"
        )
