"""How a scan is predicted."""

from dataclasses import dataclass
from typing import Literal

from abdoseg.errors import ConfigError


@dataclass(frozen=True)
class View:
    """A look at a window beside the plain one.

    Parameters
    ----------
    scale
        Side of what is shown over the patch's side: above 1, more of the scan is shown, smaller.
    shift
        Along X, Y, Z, as a part of the patch's side, at most a half.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """

    scale: float = 1.0
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not 0.5 <= self.scale <= 2 or len(self.shift) != 3 or max(map(abs, self.shift)) > 0.5:
            found = f"found scale {self.scale}, shift {self.shift}"
            raise ConfigError(f"view: {found}; expected a scale of 0.5 to 2 and shifts of at most half a patch")


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
        What overlapping windows average: ``logits``, or probabilities (``softmax``, the authors' way; of networks with
        independent heads the sigmoids).
    restore
        What is brought back to the scan's own grid: ``scores`` by linear interpolation, then the best class; or
        ``labels`` by nearest neighbour (the authors' way).
    views
        What each window is seen by (test-time augmentation); all count alike.

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
    views: tuple[View, ...] = (View(),)

    def __post_init__(self) -> None:
        _require(len(self.patch_shape) == 3 and min(self.patch_shape) > 0, "patch_shape", "three sides above 0", self)
        _require(0 <= self.overlap < 1, "overlap", "0 <= overlap < 1", self)
        _require(self.weights in ("gaussian", "constant"), "weights", "gaussian or constant", self)
        _require(self.batch > 0, "batch", "at least 1", self)
        _require(self.average in ("logits", "softmax"), "average", "logits or softmax", self)
        _require(self.restore in ("scores", "labels"), "restore", "scores or labels", self)
        # Without the plain one, the scan's rim could be seen by no window.
        _require(View() in self.views, "views", "the plain View() among them", self)


def _require(holds: bool, name: str, expected: str, settings: InferenceSettings) -> None:  # noqa: FBT001 -- the claim itself
    if not holds:
        raise ConfigError(f"prediction: found {name} = {getattr(settings, name)!r}, expected {expected}")
