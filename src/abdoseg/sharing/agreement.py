"""Whether a network that was written gives what the run's own gives."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from abdoseg.errors import RunError

TOLERANCE = 1e-3
"""Largest difference of scores, part of the largest score."""

IMAGES = 2
"""Random images to compare on."""


def require_agreement(
    network: nn.Module, other: Callable[[Tensor], Tensor], patch: tuple[int, int, int], what: str
) -> float:
    """Return the largest difference of scores on random images, as a part of the largest score (at least 1).

    Parameters
    ----------
    network, other
        From images ``(1, 1, X, Y, Z)`` in [0, 1] to scores ``(1, 1 + N, X, Y, Z)``.
    patch
        Sides of the images.
    what
        What ``other`` is, for the message.

    Raises
    ------
    RunError
        If it is larger than :data:`TOLERANCE`, or not finite.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for _ in range(IMAGES):
        image = torch.rand(1, 1, *patch, generator=generator)
        with torch.no_grad():
            expected, found = network(image), other(image)
        gap = (found - expected).abs().max() / expected.abs().max().clamp(min=1.0)
        # Not `gap > TOLERANCE`: NaN is no agreement.
        if found.shape != expected.shape or not gap <= TOLERANCE:
            raise RunError(
                f"{what}: its scores differ from the run's by {float(gap):.3g} of the largest one, at most "
                f"{TOLERANCE:g} expected; nothing was written, please report it"
            )
        worst = max(worst, float(gap))
    return worst
