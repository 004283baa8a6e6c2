"""One network over a whole scan: overlapping windows, weighted and averaged where they lie."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from numpy.typing import NDArray
from torch import Tensor, nn

from abdoseg.devices import choose_device
from abdoseg.errors import RunError
from abdoseg.inference.probabilities import averaged_form, has_independent_heads
from abdoseg.inference.settings import InferenceSettings, View
from abdoseg.inference.stitch import Stitcher
from abdoseg.inference.views import cut, put_back, reach_of, region_of, seen, within
from abdoseg.inference.windows import Box, Window, WindowGrid

OnWindow = Callable[[int, int], None]


def sliding_window_boxes(
    network: nn.Module,
    image: Tensor | NDArray[np.float32],
    settings: InferenceSettings,
    on_window: OnWindow | None = None,
) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """Give out the scores of every class, box by box, as soon as a box is complete; together they are the scan.

    Boxes come in the order of their first voxels along the grid's two outer axes and are whole along the third, so
    that each one's lower neighbours came before it. Only scores that still wait for a window are kept.

    Parameters
    ----------
    network
        ``(B, 1, X, Y, Z)`` to ``(B, C, X, Y, Z)``; used in evaluation mode without gradients, and left in the
        mode it came in. It is moved to the device.
    image
        float32 ``(X, Y, Z)``, intensity in [0, 1]. A scan smaller than a patch is padded with 0 on both sides,
        and the padding cut off again.
    settings
        Windows, weights and device.
    on_window
        Called with (windows done, windows in all) after every window.

    Yields
    ------
    tuple
        The box in the scan, and float32 ``(C, x, y, z)``: logits, or probabilities where ``settings.average`` is
        ``softmax`` (of independent heads with 0.5 for background). The memory is used again for later boxes: copy what
        is to be kept.

    Raises
    ------
    ConfigError
        If the device is not there.
    RunError
        If the network returns values that are not finite.
    ValueError
        If the image is not 3-D or the network changes the size of a patch.

    Notes
    -----
    Windows and weights are those of MONAI's ``sliding_window_inference``.
    """
    device = choose_device(settings.device)
    # Torch takes neither flipped views nor read-only arrays: those are copied.
    given = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, np.float32, ["C", "W"]))
    volume = given.to(device, torch.float32)
    if volume.ndim != 3:
        raise ValueError(f"image: found shape {tuple(volume.shape)}, expected (X, Y, Z)")
    padded, inner = _padded(volume, settings.patch_shape)
    with _evaluating(network.to(device)):
        for box, scores in _boxes(network, padded, settings, on_window):
            found = [_cut(*sides) for sides in zip(box, inner, strict=True)]
            (x, own_x), (y, own_y), (z, own_z) = found
            yield (x, y, z), np.ascontiguousarray(scores[:, own_x, own_y, own_z].cpu().numpy())


def sliding_window_logits(
    network: nn.Module,
    image: Tensor | NDArray[np.float32],
    settings: InferenceSettings,
    on_window: OnWindow | None = None,
) -> NDArray[np.float32]:
    """Return the scores of every class at every voxel, float32 ``(C, X, Y, Z)``.

    Parameters and errors are those of :func:`sliding_window_boxes`, which needs less memory.
    """
    volume: NDArray[np.float32] | None = None
    for box, scores in sliding_window_boxes(network, image, settings, on_window):
        if volume is None:
            volume = np.empty((len(scores), *image.shape), dtype=np.float32)
        volume[:, *box] = scores
    assert volume is not None  # there is always a window
    return volume


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _padded(volume: Tensor, patch_shape: tuple[int, int, int]) -> tuple[Tensor, Window]:
    """Pad to at least a patch, and say where the scan lies in the result."""
    missing = [max(p - n, 0) for p, n in zip(patch_shape, volume.shape, strict=True)]
    low = [m // 2 for m in missing]
    x, y, z = (slice(a, a + n) for a, n in zip(low, volume.shape, strict=True))
    sides = [side for a, m in zip(reversed(low), reversed(missing), strict=True) for side in (a, m - a)]
    return (nn.functional.pad(volume, sides) if any(missing) else volume), (x, y, z)


def _cut(box: slice, inner: slice) -> tuple[slice, slice]:
    """Return where a side of a box lies in the scan without padding, and which of its voxels those are."""
    first, last = max(box.start, inner.start), min(box.stop, inner.stop)
    return slice(first - inner.start, last - inner.start), slice(first - box.start, last - box.start)


def _boxes(
    network: nn.Module, volume: Tensor, settings: InferenceSettings, on_window: OnWindow | None
) -> Iterator[tuple[Box, Tensor]]:
    """Run all windows and give out the weighted means, box by box."""
    grid = WindowGrid.over(volume.shape, settings)
    stitcher = Stitcher(grid, volume.device, reach_of(settings.views, settings.patch_shape))
    scorer = _Scorer(network, settings.average)
    weights = {view: _weights(view, settings, volume.device) for view in settings.views}
    done = 0
    for column in grid.columns():
        windows = grid.windows_of_column(column)
        for first in range(0, len(windows), settings.batch):
            some = windows[first : first + settings.batch]
            for view in settings.views:
                _look(scorer, volume, some, settings, (view, weights[view], stitcher))
            for _ in some:
                done += 1
                if on_window:
                    on_window(done, len(grid))
        yield from stitcher.finished(column)


# Not around the whole loop: whoever takes the boxes would compute in inference mode between them.
@torch.inference_mode()
def _look(
    scorer: "_Scorer",
    volume: Tensor,
    windows: list[Window],
    settings: InferenceSettings,
    to: tuple[View, Tensor, Stitcher],
) -> None:
    """Add what one view of some windows shows."""
    view, weights, stitcher = to
    regions = [region_of(window, view, tuple(volume.shape)) for window in windows]
    patches = torch.stack([cut(volume, region, settings.patch_shape) for region in regions])[:, None]
    for region, scores in zip(regions, scorer.of(patches), strict=True):
        stitcher.add(region.box, put_back(scores, region), weights[within(region)])


def _weights(view: View, settings: InferenceSettings, device: torch.device) -> Tensor:
    x, y, z = (seen(p, view.scale) for p in settings.patch_shape)
    weights: Tensor = compute_importance_map((x, y, z), mode=settings.weights, device=device)
    return weights


class _Scorer:
    """Scores of patches. Patches of nothing but 0 (air, beyond the body) all have the same: they are computed once.

    Parameters
    ----------
    network, average
        As in :func:`sliding_window_boxes`.
    """

    def __init__(self, network: nn.Module, average: str) -> None:
        self._network, self._average = network, average
        self._of_nothing: Tensor | None = None

    def of(self, patches: Tensor) -> list[Tensor]:
        """Return the scores ``(C, X, Y, Z)`` of each of ``(B, 1, X, Y, Z)``."""
        holds = [bool(patch.any()) for patch in patches]
        if not any(holds) and self._of_nothing is not None:
            return [self._of_nothing] * len(patches)
        if all(holds):
            return list(_scores(self._network, patches, self._average))
        if self._of_nothing is None:
            self._of_nothing = _scores(self._network, torch.zeros_like(patches[:1]), self._average)[0]
        others = iter(_scores(self._network, patches[holds], self._average) if any(holds) else ())
        return [next(others) if held else self._of_nothing for held in holds]


def _scores(network: nn.Module, patches: Tensor, average: str) -> Tensor:
    output: Any = network(patches)
    if output.ndim != 5 or output.shape[2:] != patches.shape[2:]:
        raise ValueError(f"network: {tuple(patches.shape)} became {tuple(output.shape)}, expected (B, C, X, Y, Z)")
    scores: Tensor = output.float()
    # The sum is one quick pass; it may also overflow, so it only raises the suspicion.
    if not scores.sum().isfinite() and not scores.isfinite().all():
        raise RunError("network: its output is NaN or infinite; the weights are damaged or training diverged")
    return averaged_form(scores, independent=has_independent_heads(network)) if average == "softmax" else scores
