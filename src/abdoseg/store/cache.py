"""Cases that are read again and again: a number of them open, and some of them in memory within a budget."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from abdoseg.case import Foreground
from abdoseg.store.arrays import OpenCase, StoredForeground

MAX_OPEN = 64
"""Cases with open files, three each; some systems allow a process 256 files. Opening one takes 0.4 ms."""


class CaseCache:
    """Keeps cases at hand. Threads may share it; a pickled copy is empty.

    What was used last stays open. What came first stays in memory, until the budget is full: cases are drawn at
    random, and dropping one for another would only decode more.

    Parameters
    ----------
    budget
        Bytes of voxels never exceeded, those being read included; 0: nothing is kept, the system's page cache serves.
    max_open
        Cases whose files are open, at most; those in use by a thread aside.

    Attributes
    ----------
    used
        Bytes in use.
    """

    def __init__(self, budget: int, max_open: int = MAX_OPEN) -> None:
        self.budget, self.max_open = budget, max_open
        self.used = 0
        self._taken: set[str] = set()
        self._in_memory: dict[str, OpenCase] = {}
        self._open: OrderedDict[str, OpenCase] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type["CaseCache"], tuple[int, int]]:
        return CaseCache, (self.budget, self.max_open)

    def __len__(self) -> int:
        """Return the number of cases in memory."""
        return len(self._in_memory)

    def __str__(self) -> str:
        return f"{len(self)} cases in memory, {self.used / 2**20:.0f} of {self.budget / 2**20:.0f} MiB"

    def case(self, key: str, open_case: Callable[[], OpenCase]) -> OpenCase:
        """Return a case, from memory if it is there or fits.

        Parameters
        ----------
        key
            What it is kept under.
        open_case
            Called when it is not at hand.
        """
        with self._lock:
            if key in self._in_memory:
                return self._in_memory[key]
        found = self._opened(key, open_case)
        size = case_bytes(found)
        with self._lock:
            # While one thread reads it into memory, the others read their patches from the files.
            if key in self._taken or self.used + size > self.budget:
                return self._in_memory.get(key, found)
            self._taken.add(key)
            self.used += size
        try:
            whole = _in_memory(found)
        except BaseException:
            with self._lock:
                self._taken.remove(key)
                self.used -= size
            raise
        with self._lock:
            self._in_memory[key] = whole
            self._open.pop(key, None)
        return whole

    def _opened(self, key: str, open_case: Callable[[], OpenCase]) -> OpenCase:
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
        found = open_case()
        with self._lock:
            self._open[key] = found
            while len(self._open) > self.max_open:
                # Its files are closed when the last thread that reads from it is done.
                self._open.popitem(last=False)
        return found


def case_bytes(case: OpenCase) -> int:
    """Return the memory of a whole case: image, label and list of labelled voxels."""
    image, label, index = (array.dtype.itemsize for array in (case.image, case.label, case.foreground.index))
    x, y, z = case.image.shape
    return x * y * z * (image + label) + int(case.foreground.start[-1]) * index + case.foreground.start.nbytes


def _in_memory(case: OpenCase) -> OpenCase:
    """Return a case whose arrays are numpy's."""
    start = case.foreground.start
    foreground: StoredForeground | Foreground = Foreground(case.foreground.index[: int(start[-1])], start)
    return OpenCase(case.digest, case.image[...], case.label[...], foreground)
