"""What the rest of the package may rely on in every network."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class SegmentationNetwork(Protocol):
    """A module from images ``(B, in, X, Y, Z)`` to logits ``(B, out, X, Y, Z)``, whose parts can be reached.

    ``network(x)`` equals ``network.head(network.features(x)[0])``, so a method may bring a head of its own.
    """

    divisor: int
    """Sides of the input are multiples of it."""
    last_channels: int
    """Channels of the last features, before the head."""
    last_stride: int
    """Voxels of the image a side for one position of the last features; the head brings them back to all voxels."""
    deepest_channels: int
    """Channels of the deepest features."""
    head: "nn.Module"
    """From the last features to the logits."""

    def features(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the last features ``(B, last_channels, X / last_stride, ...)`` and the deepest, on a coarser grid."""
        ...

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return the logits."""
        ...
