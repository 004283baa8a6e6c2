"""Memory that a thread uses again and again: fresh memory costs a page fault every 4 KB."""

import threading
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Scratch(threading.local):
    """One piece of memory a thread, as large as the largest array asked for so far. A pickled copy is empty."""

    def __init__(self) -> None:
        self._memory = np.empty(0, dtype=np.uint8)

    def __reduce__(self) -> tuple[type["Scratch"], tuple[()]]:
        return Scratch, ()

    def array(self, shape: Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array that holds anything; the same memory as the thread's last one."""
        kind = np.dtype(dtype)
        size = prod(shape) * kind.itemsize
        if self._memory.size < size:
            self._memory = np.empty(size, dtype=np.uint8)
        return self._memory[:size].view(kind).reshape(tuple(shape))
