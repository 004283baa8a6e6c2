"""What the rest of the package may rely on in every network."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


class SegmentationNetwork(Protocol):
    """A module from images ``(B, in, X, Y, Z)`` to logits ``(B, out, X, Y, Z)``, whose parts can be reached.

    ``network(x)`` equals ``network.head(network.decoder(network.encoder(x)))``, in training and in prediction, so a
    method may bring a head of its own (:meth:`new_head`) or further decoders (a ``copy.deepcopy`` of the decoder).
    """

    divisor: int
    """Sides of the input are multiples of it."""
    last_channels: int
    """Channels of the last features, before the head."""
    last_stride: int
    """Voxels of the image a side for one position of the last features; the head brings them back to all voxels."""
    deepest_channels: int
    """Channels of the deepest features."""

    @property
    def encoder(self) -> "nn.Module":
        """From the image to a list of all maps that the decoder needs, the deepest features last."""
        ...

    @property
    def decoder(self) -> "nn.Module":
        """From the encoder's list, left as it is, to the last features ``(B, last_channels, X / last_stride, ...)``."""
        ...

    @property
    def head(self) -> "nn.Module":
        """From the last features to the logits."""
        ...

    def features(self, x: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the last features ``(B, last_channels, X / last_stride, ...)`` and the deepest, on a coarser grid."""
        ...

    def new_head(self, out_channels: int) -> "nn.Module":
        """Return a head like ``head`` with fresh weights, from the last features to ``(B, out_channels, X, Y, Z)``."""
        ...

    def __call__(self, x: "Tensor") -> "Tensor":
        """Return the logits."""
        ...


class DeeplySupervisedNetwork(SegmentationNetwork, Protocol):
    """A network whose decoder can be supervised at coarser levels too."""

    @property
    def deep_heads(self) -> "nn.Module":
        """From the features of the coarser levels to their logits."""
        ...

    def deep_logits(self, x: "Tensor") -> "tuple[Tensor, ...]":
        """Return the logits of the network, then those of coarser levels, finest first, all ``(B, out, X, Y, Z)``.

        Coarser levels are brought to the image's size, so that one loss on the same labels fits all.
        """
        ...


def features_of(network: SegmentationNetwork, x: "Tensor") -> "tuple[Tensor, Tensor]":
    """Return a network's last and deepest features by its encoder and decoder."""
    maps: list[Tensor] = network.encoder(x)
    last: Tensor = network.decoder(maps)
    return last, maps[-1]


def check_sides(name: str, x: "Tensor", divisor: int) -> None:
    """Refuse images that a network cannot take.

    Raises
    ------
    ValueError
        If a side is not a multiple of the divisor, or all are the divisor: a norm has no variance of one deepest voxel.
    """
    sides = tuple(x.shape[2:])
    if any(side % divisor for side in sides) or all(side == divisor for side in sides):
        raise ValueError(f"{name}: found sides {sides}; expected multiples of {divisor}, not all of them {divisor}.")
