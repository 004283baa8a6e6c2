"""Swin UNETR by MONAI: a Swin transformer as the encoder of a U-Net of residual blocks (Hatamizadeh et al. 2022).

Feature size 48, no dropout and no stochastic depth, so training and prediction compute the same.
"""

from functools import partial
from typing import Any

import torch
from monai.networks.blocks import UnetOutBlock
from monai.networks.nets import SwinUNETR
from torch import Tensor, nn

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides

DIVISOR = 32
WIDTH = 48
DEEPEST_WIDTH = 16 * WIDTH


class Encoder(nn.Module):
    """The Swin transformer, and a residual block on the image and on each of its maps but the one at 1/16."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.transformer = net.swinViT
        self.on_image, self.on_half, self.on_quarter, self.on_eighth, self.on_deepest = (
            net.encoder1,
            net.encoder2,
            net.encoder3,
            net.encoder4,
            net.encoder10,
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps: 48, 48, 96, 192, 384, 768 channels at 1, 1/2, 1/4, 1/8, 1/16, 1/32."""
        check_sides("swin_unetr", x, DIVISOR)
        half, quarter, eighth, sixteenth, deepest = self.transformer(x, normalize=True)
        return [
            run(self.on_image, x, checkpointing=self.checkpointing),
            run(self.on_half, half, checkpointing=self.checkpointing),
            run(self.on_quarter, quarter, checkpointing=self.checkpointing),
            run(self.on_eighth, eighth, checkpointing=self.checkpointing),
            sixteenth,
            run(self.on_deepest, deepest, checkpointing=self.checkpointing),
        ]


class Decoder(nn.Module):
    """Transposed convolutions, each joined with a skip in a residual block."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.up = nn.ModuleList([net.decoder5, net.decoder4, net.decoder3, net.decoder2, net.decoder1])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 48, X, Y, Z)``."""
        *skips, x = maps
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = run(up, x, skip, checkpointing=self.checkpointing)
        return x


def swin_unetr(in_channels: int, out_channels: int, *, checkpointing: bool) -> AdaptedNetwork:
    """Return a Swin UNETR.

    ``checkpointing`` recomputes each block in the backward pass: those of the transformer by MONAI's own switch.
    """
    with torch.device("cpu"):  # it reads numbers from tensors while it is built, which the meta device has not
        net = SwinUNETR(
            in_channels=in_channels, out_channels=out_channels, feature_size=WIDTH, use_checkpoint=checkpointing
        )
    net.to(torch.get_default_device())
    return AdaptedNetwork(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.out,
        partial(UnetOutBlock, 3, WIDTH),
        divisor=DIVISOR,
        last_channels=WIDTH,
        deepest_channels=DEEPEST_WIDTH,
    )
