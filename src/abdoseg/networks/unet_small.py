"""A small 3D U-Net for the CPU demo and the tests: under a million parameters, most accuracy a CPU second.

Convolutions at full resolution dominate the time of a 3D network on a CPU, so there are two of them only, 16
channels wide, and skips are added, not concatenated. Depth is cheap: five levels and a residual convolution
at each let every voxel see 123 voxels along each axis, all of a 48^3 patch. Weights are kept in
channels-last order, which oneDNN's convolutions and group norm run faster; the activations follow the
weights.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from abdoseg.networks.checkpointing import run

WIDTHS = (16, 32, 48, 64, 96)
"""Channels at full, 1/2, 1/4, 1/8 and 1/16 resolution."""

_SLOPE = 0.01


class ConvNormAct(nn.Module):
    """3^3 convolution, norm, leaky ReLU; with ``residual``, plus the input.

    The norm is a group norm of one channel a group: on one batch it learnt about twice as fast as groups of 8 (focal
    0.17 against 0.38 after 60 steps), and as a group norm it keeps the channels-last order that an instance norm loses.
    """

    def __init__(self, width_in: int, width_out: int, *, stride: int = 1, residual: bool = False) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(width_in, width_out, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.GroupNorm(width_out, width_out)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in, X, Y, Z)`` to ``(B, out, X / stride, Y / stride, Z / stride)``."""
        y = self.norm(self.convolution(x))
        if self.residual:
            y = y + x
        return functional.leaky_relu(y, _SLOPE, inplace=True)


class UpAdd(nn.Module):
    """1^3 convolution to the skip's width, trilinear doubling, plus the skip, then a :class:`ConvNormAct`."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(width_in, width_out, 1)
        self.mix = ConvNormAct(width_out, width_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Map ``(B, in, X, Y, Z)`` and a skip ``(B, out, 2X, 2Y, 2Z)`` to the skip's shape."""
        x = functional.interpolate(self.narrow(x), scale_factor=2.0, mode="trilinear", align_corners=False)
        mixed: Tensor = self.mix(x + skip)
        return mixed


class UNetSmall(nn.Module):
    """The small U-Net.

    Parameters
    ----------
    in_channels, out_channels
        Channels of the image and of the logits.
    checkpointing
        Recompute each level in the backward pass instead of keeping its activations.
    """

    divisor = 16
    last_channels = WIDTHS[0]
    deepest_channels = WIDTHS[-1]

    def __init__(self, in_channels: int, out_channels: int, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.stem = ConvNormAct(in_channels, WIDTHS[0])
        self.down = nn.ModuleList(
            nn.Sequential(ConvNormAct(wide, deep, stride=2), ConvNormAct(deep, deep, residual=True))
            for wide, deep in pairwise(WIDTHS)
        )
        self.up = nn.ModuleList(UpAdd(deep, wide) for wide, deep in reversed(list(pairwise(WIDTHS))))
        self.head = nn.Conv3d(WIDTHS[0], out_channels, 1)
        self.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last features ``(B, 16, X, Y, Z)`` and the deepest ``(B, 96, X/16, Y/16, Z/16)``."""
        skips = [run(self.stem, x, checkpointing=self.checkpointing)]
        for level in self.down:
            skips.append(run(level, skips[-1], checkpointing=self.checkpointing))
        last = deepest = skips.pop()
        for level in self.up:
            last = run(level, last, skips.pop(), checkpointing=self.checkpointing)
        return last, deepest

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(B, out, X, Y, Z)`` of images ``(B, in, X, Y, Z)``, sides divisible by 16."""
        last, _ = self.features(x)
        logits: Tensor = self.head(last)
        return logits
