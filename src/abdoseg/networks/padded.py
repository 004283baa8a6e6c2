"""Inputs of any size: pad to what a network can take, crop what it gives."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from abdoseg.networks.contract import SegmentationNetwork


class PaddedNetwork(nn.Module):
    """A network for any sides: pads with 0 at the far ends to the divisor, and crops the result.

    It keeps the contract of :class:`SegmentationNetwork` with divisor 1. Sides that fit are not copied.

    Parameters
    ----------
    network
        A module that keeps the contract of :class:`SegmentationNetwork`.
    """

    divisor = 1

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    @property
    def inner(self) -> SegmentationNetwork:
        """The network inside."""
        return cast("SegmentationNetwork", self.network)

    @property
    def head(self) -> nn.Module:
        """The inner network's head, from its last features to logits."""
        return self.inner.head

    @property
    def last_channels(self) -> int:
        """Channels of the last features."""
        return self.inner.last_channels

    @property
    def last_stride(self) -> int:
        """Voxels a side for one position of the last features."""
        return self.inner.last_stride

    @property
    def deepest_channels(self) -> int:
        """Channels of the deepest features."""
        return self.inner.deepest_channels

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last and the deepest features of the padded input; logits made of them want :func:`crop_to`."""
        return self.inner.features(pad_to_divisor(x, self.inner.divisor))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, out, X, Y, Z)`` of images ``(B, in, X, Y, Z)`` with any sides."""
        return crop_to(self.inner(pad_to_divisor(x, self.inner.divisor)), x)


def pad_to_divisor(x: Tensor, divisor: int) -> Tensor:
    """Return ``(B, C, X, Y, Z)`` with 0 at the far ends up to the next multiples of the divisor.

    0 is the value outside the image. A patch that would leave one deepest voxel, which some norms cannot take,
    gets two along the last axis.
    """
    target = [-(-side // divisor) * divisor for side in x.shape[2:]]
    if all(side == divisor for side in target):
        target[-1] *= 2
    missing = [after - before for after, before in zip(target, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    return functional.pad(x, [0, missing[2], 0, missing[1], 0, missing[0]])


def crop_to(y: Tensor, x: Tensor) -> Tensor:
    """Return the near corner of ``y`` with the sides of ``x``."""
    sides = x.shape[2:]
    return y if y.shape[2:] == sides else y[:, :, : sides[0], : sides[1], : sides[2]]
