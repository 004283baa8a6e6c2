"""Inputs of any size: pad to what a network can take, crop what it gives."""

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional

from abdoseg.networks.contract import SegmentationNetwork

if TYPE_CHECKING:
    from abdoseg.networks.contract import DeeplySupervisedNetwork


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
    def encoder(self) -> nn.Module:
        """The inner network's encoder; what it takes comes from :meth:`pad`."""
        return self.inner.encoder

    @property
    def decoder(self) -> nn.Module:
        """The inner network's decoder, from the encoder's maps to its last features."""
        return self.inner.decoder

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

    def pad(self, x: Tensor) -> Tensor:
        """Return ``(B, in, X, Y, Z)`` with the sides that the inner network takes."""
        return pad_to_divisor(x, self.inner.divisor)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last and the deepest features of the padded input; logits made of them want :func:`crop_to`."""
        return self.inner.features(self.pad(x))

    def new_head(self, out_channels: int) -> nn.Module:
        """Return a head with fresh weights for the last features."""
        return self.inner.new_head(out_channels)

    def deep_logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits and those of coarser levels, finest first, all ``(B, out, X, Y, Z)``.

        Only for networks listed with ``deep_supervision``.
        """
        network = cast("DeeplySupervisedNetwork", self.network)
        return tuple(crop_to(logits, x) for logits in network.deep_logits(self.pad(x)))

    def for_prediction(self, *, keep_features: bool = False) -> "PaddedNetwork":
        """Return a network for prediction: a faster copy with the same logits up to rounding, or itself.

        Parameters
        ----------
        keep_features
            Whether ``features``, ``decoder`` and ``head`` are read too. Without it only the logits of the copy mean
            what they did.

        Returns
        -------
        PaddedNetwork
            In evaluation mode. Weights of a copy are not those that a checkpoint holds: load them before.
        """
        make = getattr(self.network, "for_prediction", None)
        return self.eval() if make is None else PaddedNetwork(make(keep_features=keep_features)).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, out, X, Y, Z)`` of images ``(B, in, X, Y, Z)`` with any sides."""
        return crop_to(self.inner(self.pad(x)), x)


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
