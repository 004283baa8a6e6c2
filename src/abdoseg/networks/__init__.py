"""Networks: from an image ``(B, 1, X, Y, Z)`` to logits ``(B, 1 + N, X, Y, Z)``.

Importing this package loads neither torch nor MONAI, so the command line can list the networks at once.

To add a network, write one file with an ``nn.Module`` that keeps the contract of
:class:`~abdoseg.networks.contract.SegmentationNetwork` (MONAI's are wrapped by
:class:`~abdoseg.networks.adapted.AdaptedNetwork`) and one entry in :data:`NETWORKS`, which names the file and what to
call in it. The tests then run on it by themselves.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
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
    deep_supervision
        Whether it has ``deep_logits`` (:class:`~abdoseg.networks.contract.DeeplySupervisedNetwork`).
    """

    name: str
    title: str
    build: "Callable[[int, int, bool], nn.Module]"
    divisor: int
    patch: tuple[int, int, int]
    parameters: int
    source: str
    deep_supervision: bool = False


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


def _from(module: str, function: str, *first: str) -> "Callable[[int, int, bool], nn.Module]":
    """Return a builder that imports a module of this package when it is called."""

    def build(in_channels: int, out_channels: int, checkpointing: bool) -> "nn.Module":  # noqa: FBT001
        make = getattr(import_module(f"abdoseg.networks.{module}"), function)
        made: nn.Module = make(*first, in_channels, out_channels, checkpointing=checkpointing)
        return made

    return build


_PATCH = (112, 112, 112)
_SMALL_PATCH = (96, 96, 96)
_MEDNEXT = "Roy et al. 2023, MedNeXt; kernel 3; MONAI's modules"

_ALL = (
    NetworkSpec(
        name="transunet3d",
        title="3D TransUNet, the authors'",
        build=_from("transunet3d", "TransUNet3D"),
        divisor=16,
        patch=_PATCH,
        parameters=67_379_697,
        source="Chen et al., Versatile Medical Image Segmentation Learned from Multi-Source Datasets",
    ),
    NetworkSpec("mednext", "MedNeXt L", _from("mednext", "mednext", "L"), 16, _PATCH, 61_727_249, _MEDNEXT),
    NetworkSpec("mednext_m", "MedNeXt M", _from("mednext", "mednext", "M"), 16, _PATCH, 17_534_001, _MEDNEXT),
    NetworkSpec("mednext_b", "MedNeXt B", _from("mednext", "mednext", "B"), 16, _PATCH, 10_511_345, _MEDNEXT),
    NetworkSpec("mednext_s", "MedNeXt S", _from("mednext", "mednext", "S"), 16, _PATCH, 5_551_409, _MEDNEXT),
    NetworkSpec(
        name="swin_unetr",
        title="Swin UNETR, feature size 48",
        build=_from("swin_unetr", "swin_unetr"),
        divisor=32,
        patch=_SMALL_PATCH,
        parameters=62_187_443,
        source="Hatamizadeh et al. 2022, Swin UNETR; MONAI's modules",
    ),
    NetworkSpec(
        name="unetpp",
        title="UNet++",
        build=_from("unetpp", "unetpp"),
        divisor=16,
        patch=_PATCH,
        parameters=6_980_273,
        source="Zhou et al. 2018, UNet++; MONAI's modules and widths",
    ),
    NetworkSpec(
        name="transunet3d_nnunet",
        title="3D TransUNet on nnU-Net, encoder only",
        build=_from("transunet3d_nnunet", "transunet3d_nnunet"),
        divisor=16,
        patch=_PATCH,
        parameters=102_359_475,
        source="Chen et al. 2023, 3D TransUNet: Advancing Medical Image Segmentation through Vision Transformers",
        deep_supervision=True,
    ),
    NetworkSpec(
        name="dynunet",
        title="U-Net as nnU-Net plans it",
        build=_from("dynunet", "dynunet"),
        divisor=16,
        patch=_PATCH,
        parameters=16_547_443,
        source="Isensee et al. 2021, nnU-Net; MONAI's DynUNet",
        deep_supervision=True,
    ),
    NetworkSpec(
        name="segresnet",
        title="SegResNet, 32 channels",
        build=_from("segresnet", "segresnet"),
        divisor=8,
        patch=_PATCH,
        parameters=18_796_497,
        source="Myronenko 2018, 3D MRI brain tumor segmentation using autoencoder regularization; MONAI's modules",
    ),
    NetworkSpec(
        name="unetr",
        title="UNETR",
        build=_from("unetr", "unetr"),
        divisor=16,
        patch=_SMALL_PATCH,
        parameters=92_784_097,
        source="Hatamizadeh et al. 2022, UNETR; MONAI's modules",
    ),
    NetworkSpec(
        name="unet_small",
        title="small U-Net for CPUs",
        build=_from("unet_small", "UNetSmall"),
        divisor=16,
        patch=(48, 48, 48),
        parameters=935_864,
        source="abdoseg's own, for the demo and the tests",
    ),
)

NETWORKS: Mapping[str, NetworkSpec] = {spec.name: spec for spec in _ALL}
"""Name -> network; the one place where networks are listed."""
