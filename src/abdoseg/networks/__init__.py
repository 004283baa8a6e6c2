"""Networks: from an image ``(B, 1, X, Y, Z)`` to logits ``(B, 1 + N, X, Y, Z)``.

Importing this package loads neither torch nor MONAI, so the command line can list the networks at once.

To add a network, write one file with an ``nn.Module`` that keeps the contract of
:class:`~abdoseg.networks.contract.SegmentationNetwork`, a two-line builder below that imports it when
called, and one entry in :data:`NETWORKS`. The tests then run on it by themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from abdoseg.errors import unknown_name
from abdoseg.networks.contract import SegmentationNetwork

if TYPE_CHECKING:
    from torch import nn

    from abdoseg.networks.padded import PaddedNetwork

__all__ = ["NETWORKS", "NetworkSpec", "SegmentationNetwork", "build_network"]


@dataclass(frozen=True)
class NetworkSpec:
    """What can be known of a network without building it.

    Parameters
    ----------
    name
        What ``--network`` takes.
    title
        The name for people.
    build
        ``build(in_channels, out_channels, checkpointing)``: the bare module; imports torch when called.
    divisor
        Sides of its input are multiples of it.
    patch
        Sides of the patch it is usually trained with, in voxels.
    parameters
        Their number at one input channel and 17 classes.
    source
        Where it comes from.
    """

    name: str
    title: str
    build: "Callable[[int, int, bool], nn.Module]"
    divisor: int
    patch: tuple[int, int, int]
    parameters: int
    source: str


def build_network(
    name: str, out_channels: int, *, in_channels: int = 1, checkpointing: bool = False
) -> "PaddedNetwork":
    """Return a network with fresh weights that takes images of any size.

    Parameters
    ----------
    name
        A key of :data:`NETWORKS`.
    out_channels
        Channels of the logits: 1 + N for N structures.
    in_channels
        Channels of the image.
    checkpointing
        Trade time for memory in training: recompute activations in the backward pass.

    Returns
    -------
    PaddedNetwork
        Maps ``(B, in_channels, X, Y, Z)`` to ``(B, out_channels, X, Y, Z)``. Weights depend on torch's global
        seed alone.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    """
    if name not in NETWORKS:
        raise unknown_name("network", name, list(NETWORKS), "See `abdoseg list networks`.")
    from abdoseg.networks.padded import PaddedNetwork

    return PaddedNetwork(NETWORKS[name].build(in_channels, out_channels, checkpointing))


def _transunet3d(in_channels: int, out_channels: int, checkpointing: bool) -> "nn.Module":  # noqa: FBT001
    from abdoseg.networks.transunet3d import TransUNet3D

    return TransUNet3D(in_channels, out_channels, checkpointing=checkpointing)


def _unet_small(in_channels: int, out_channels: int, checkpointing: bool) -> "nn.Module":  # noqa: FBT001
    from abdoseg.networks.unet_small import UNetSmall

    return UNetSmall(in_channels, out_channels, checkpointing=checkpointing)


NETWORKS: Mapping[str, NetworkSpec] = {
    "transunet3d": NetworkSpec(
        name="transunet3d",
        title="3D TransUNet, the authors'",
        build=_transunet3d,
        divisor=16,
        patch=(112, 112, 112),
        parameters=67_379_697,
        source="Chen et al., Versatile Medical Image Segmentation Learned from Multi-Source Datasets",
    ),
    "unet_small": NetworkSpec(
        name="unet_small",
        title="small U-Net for CPUs",
        build=_unet_small,
        divisor=16,
        patch=(48, 48, 48),
        parameters=935_864,
        source="abdoseg's own, for the demo and the tests",
    ),
}
"""Name -> network; the one place where networks are listed."""
