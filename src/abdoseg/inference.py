"""One network over a whole scan: overlapping windows, weighted and averaged where they lie."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from numpy.typing import NDArray
from torch import Tensor, nn

from abdoseg.devices import choose_device
from abdoseg.errors import ConfigError, RunError

Window = tuple[slice, slice, slice]
"""Where a patch lies in the (padded) scan."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a scan is predicted (``method.md`` 6).

    Parameters
    ----------
    patch_shape
        ``(X, Y, Z)`` of a window, voxels: the one the network was trained with.
    overlap
        Part of a window's side that it shares with the next one, in [0, 1).
    weights
        Of a window's voxels: ``gaussian`` trusts the centre most (standard deviation an eighth of the side),
        ``constant`` all alike.
    batch
        Windows per forward pass.
    device
        ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
    average
        What overlapping windows average: ``logits``, or probabilities (``softmax``, the authors' way).
    restore
        What is brought back to the scan's own grid: ``scores`` by linear interpolation, then the best class; or
        ``labels`` by nearest neighbour (the authors' way).

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    patch_shape: tuple[int, int, int]
    overlap: float = 0.5
    weights: Literal["gaussian", "constant"] = "gaussian"
    batch: int = 1
    device: str = "cpu"
    average: Literal["logits", "softmax"] = "logits"
    restore: Literal["scores", "labels"] = "scores"

    def __post_init__(self) -> None:
        _require(len(self.patch_shape) == 3 and min(self.patch_shape) > 0, "patch_shape", "three sides above 0", self)
        _require(0 <= self.overlap < 1, "overlap", "0 <= overlap < 1", self)
        _require(self.weights in ("gaussian", "constant"), "weights", "gaussian or constant", self)
        _require(self.batch > 0, "batch", "at least 1", self)
        _require(self.average in ("logits", "softmax"), "average", "logits or softmax", self)
        _require(self.restore in ("scores", "labels"), "restore", "scores or labels", self)


def _require(holds: bool, name: str, expected: str, settings: InferenceSettings) -> None:  # noqa: FBT001 -- the claim itself
    if not holds:
        raise ConfigError(f"prediction: found {name} = {getattr(settings, name)!r}, expected {expected}")


def sliding_window_logits(
    network: nn.Module,
    image: Tensor | NDArray[np.float32],
    settings: InferenceSettings,
    on_window: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Return the scores of every class at every voxel.

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

    Returns
    -------
    ndarray
        float32 ``(C, X, Y, Z)``: logits, or probabilities where ``settings.average`` is ``softmax``.

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
    The windows and weights are those of MONAI's ``sliding_window_inference``; the scores of a window are added
    straight to the volume, so that no second volume of scores is ever made.
    """
    device = choose_device(settings.device)
    with _evaluating(network.to(device)), torch.inference_mode():
        # A copy: torch takes neither flipped views nor read-only arrays.
        given = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image, dtype=np.float32))
        volume = given.to(device, torch.float32)
        if volume.ndim != 3:
            raise ValueError(f"image: found shape {tuple(volume.shape)}, expected (X, Y, Z)")
        padded, inner = _padded(volume, settings.patch_shape)
        total = _accumulate(network, padded, settings, on_window)
        return np.ascontiguousarray(total[:, *inner].cpu().numpy())


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


def windows_of(shape: tuple[int, ...], settings: InferenceSettings) -> list[Window]:
    """Return the windows over a scan of ``shape``, padded to at least a patch, in the order they are run."""
    step = [max(1, int(p * (1 - settings.overlap))) for p in settings.patch_shape]
    padded = [max(n, p) for n, p in zip(shape, settings.patch_shape, strict=True)]
    return list(dense_patch_slices(padded, settings.patch_shape, step))


def _accumulate(
    network: nn.Module, volume: Tensor, settings: InferenceSettings, on_window: Callable[[int, int], None] | None
) -> Tensor:
    """Run all windows and return their weighted mean ``(C, X, Y, Z)``."""
    windows = windows_of(tuple(volume.shape), settings)
    weight = compute_importance_map(settings.patch_shape, mode=settings.weights, device=volume.device)
    weights = torch.zeros_like(volume)
    total: Tensor | None = None
    for first in range(0, len(windows), settings.batch):
        some = windows[first : first + settings.batch]
        scores = _scores(network, torch.stack([volume[w] for w in some])[:, None], settings.average)
        if total is None:
            total = _volume_of_scores(scores.shape[1], volume)
        for offset, (window, score) in enumerate(zip(some, scores, strict=True), start=1):
            total[:, *window].addcmul_(score.to(total.device), weight.to(total.device))
            weights[window] += weight
            if on_window:
                on_window(first + offset, len(windows))
    assert total is not None  # there is always a window
    return total.div_(weights.to(total.device))


def _scores(network: nn.Module, patches: Tensor, average: str) -> Tensor:
    output: Any = network(patches)
    if output.ndim != 5 or output.shape[2:] != patches.shape[2:]:
        raise ValueError(f"network: {tuple(patches.shape)} became {tuple(output.shape)}, expected (B, C, X, Y, Z)")
    scores: Tensor = output.float()
    # The sum is one quick pass; it may also overflow, so it only raises the suspicion.
    if not scores.sum().isfinite() and not scores.isfinite().all():
        raise RunError("network: its output is NaN or infinite; the weights are damaged or training diverged")
    return scores.softmax(1) if average == "softmax" else scores


def _volume_of_scores(n_classes: int, volume: Tensor) -> Tensor:
    """Return zeros ``(C, X, Y, Z)`` beside the windows, or in main memory where a GPU has no room."""
    try:
        return volume.new_zeros((n_classes, *volume.shape))
    except torch.OutOfMemoryError:
        return torch.zeros((n_classes, *volume.shape))
