"""MedNeXt by MONAI: a U-Net of depthwise convolutions with wide 1^3 layers between them (Roy et al. 2023).

Kernel 3 and 32 channels at full resolution in every size; S, B, M and L differ in the number of blocks and in how wide
they expand. Plain logits, no deep supervision.
"""

from functools import partial
from typing import Any

from monai.networks.blocks.mednext_block import MedNeXtOutBlock
from monai.networks.nets.mednext import create_mednext
from torch import Tensor, nn

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides

DIVISOR = 16
WIDTH = 32
DEEPEST_WIDTH = 512


class Encoder(nn.Module):
    """Stem, four stages each followed by a halving, and the bottleneck."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.stem, self.stages, self.down, self.bottleneck = net.stem, net.enc_stages, net.down_blocks, net.bottleneck

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of ``(B, in, X, Y, Z)``: 32, 64, 128, 256, 512 channels at 1, 1/2, 1/4, 1/8, 1/16."""
        check_sides("mednext", x, DIVISOR)
        x = self.stem(x)
        maps = []
        for stage, down in zip(self.stages, self.down, strict=True):
            maps.append(_each(stage, x, checkpointing=self.checkpointing))
            x = run(down, maps[-1], checkpointing=self.checkpointing)
        return [*maps, _each(self.bottleneck, x, checkpointing=self.checkpointing)]


class Decoder(nn.Module):
    """Doublings, each added to a skip and followed by a stage."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.up, self.stages = net.up_blocks, net.dec_stages

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 32, X, Y, Z)``."""
        *skips, x = maps
        for up, stage, skip in zip(self.up, self.stages, reversed(skips), strict=True):
            x = run(up, x, checkpointing=self.checkpointing) + skip
            x = _each(stage, x, checkpointing=self.checkpointing)
        return x


def _each(blocks: nn.Module, x: Tensor, *, checkpointing: bool) -> Tensor:
    for block in blocks.children():
        x = run(block, x, checkpointing=checkpointing)
    return x


def mednext(variant: str, in_channels: int, out_channels: int, *, checkpointing: bool) -> AdaptedNetwork:
    """Return a MedNeXt.

    Parameters
    ----------
    variant
        ``S``, ``B``, ``M`` or ``L``.
    in_channels, out_channels
        Channels of the image and of the logits.
    checkpointing
        Recompute each block in the backward pass instead of keeping its activations.
    """
    net = create_mednext(variant, in_channels=in_channels, out_channels=out_channels, kernel_size=3)
    return AdaptedNetwork(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.out_0,
        partial(MedNeXtOutBlock, WIDTH, dim="3d"),
        divisor=DIVISOR,
        last_channels=WIDTH,
        deepest_channels=DEEPEST_WIDTH,
    )
