"""Random numbers that depend on (seed, t) and on nothing else.

Workers, ranks and resumed runs need no generator state: example t of a run asks for the stream of t.
"""

from enum import IntEnum

import numpy as np

_WORD = 2**64


class Purpose(IntEnum):
    """What a stream is for; streams of different purposes are independent."""

    CASE = 0
    VOXEL = 1
    SPACE = 2
    INTENSITY = 3
    TASKS = 4


def stream(seed: int, t: int, purpose: int = Purpose.CASE) -> np.random.Generator:
    """Return the generator of example ``t``: a pure function of its arguments.

    Parameters
    ----------
    seed
        The run's seed, 0 to 2^64 - 1.
    t
        Number of the example, 0 to 2^64 - 1.
    purpose
        What the numbers are for.

    Raises
    ------
    ValueError
        If a number does not fit its 64 bits.

    Notes
    -----
    Philox 4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps a key and a counter to
    random blocks. The key is (seed, purpose) and t is the counter's second word, so each example has 2^64 blocks
    of its own before the first word would carry into the next example's.
    """
    if not (0 <= seed < _WORD and 0 <= t < _WORD):
        msg = f"stream: found seed {seed} and example {t}, expected whole numbers from 0 to 2^64 - 1"
        raise ValueError(msg)
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, t, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(counter=counter, key=key))
