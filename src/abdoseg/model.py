"""A trained network with everything needed to use it on a scan."""

from dataclasses import dataclass

from torch import nn

from abdoseg.anatomy import Anatomy
from abdoseg.inference import InferenceSettings
from abdoseg.inference.probabilities import has_independent_heads
from abdoseg.windows import Windows


@dataclass(frozen=True, eq=False)
class SegmentationModel:
    """A trained network and everything needed to use it.

    Parameters
    ----------
    network
        ``(B, 1, X, Y, Z)`` to scores ``(B, 1 + N, X, Y, Z)``, of a kind of :mod:`abdoseg.inference.probabilities`.
    anatomy
        The N structures, in channel order.
    spacing_mm, windows
        The grid and intensities it was trained on.
    patch_shape
        ``(X, Y, Z)`` it was trained on, voxels.
    device
        ``cpu``, ``cuda``, ``cuda:N`` or ``auto``.
    name
        What to call it in messages.
    inference
        How to predict when not the usual way; its patch and device then stand for those above.
    """

    network: nn.Module
    anatomy: Anatomy
    spacing_mm: float
    windows: Windows
    patch_shape: tuple[int, int, int]
    device: str = "cpu"
    name: str = "model"
    inference: InferenceSettings | None = None

    @property
    def independent_heads(self) -> bool:
        """Whether its scores are each structure's logit against all else, and 0 for background."""
        return has_independent_heads(self.network)

    def settings(self) -> InferenceSettings:
        """Return how to predict with this model."""
        return self.inference or InferenceSettings(self.patch_shape, device=self.device)
