"""SegResNet by MONAI with the 32 channels of its paper: residual blocks in a deep encoder, a light decoder.

Myronenko 2018, "3D MRI brain tumor segmentation using autoencoder regularization"; without its autoencoder branch and
without dropout, so training and prediction compute the same.
"""

from functools import partial
from typing import Any

from monai.networks.blocks.segresnet_block import get_conv_layer
from monai.networks.nets import SegResNet
from torch import Tensor, nn

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides

DIVISOR = 8
WIDTH = 32
DEEPEST_WIDTH = 256


class Encoder(nn.Module):
    """First convolution, then a stage of residual blocks at each of four resolutions."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.first, self.stages = net.convInit, net.down_layers

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of ``(B, in, X, Y, Z)``: 32, 64, 128, 256 channels at 1, 1/2, 1/4, 1/8."""
        check_sides("segresnet", x, DIVISOR)
        x = self.first(x)
        maps: list[Tensor] = []
        for stage in self.stages:
            for block in stage.children():
                x = run(block, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Doublings, each added to a skip and followed by a residual block; then the norm and ReLU before the head."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.up, self.stages = net.up_samples, net.up_layers
        self.finish = net.conv_final[:2]

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 32, X, Y, Z)``."""
        *skips, x = maps
        for up, stage, skip in zip(self.up, self.stages, reversed(skips), strict=True):
            x = run(up, x, checkpointing=self.checkpointing) + skip
            x = run(stage, x, checkpointing=self.checkpointing)
        last: Tensor = self.finish(x)
        return last


def segresnet(in_channels: int, out_channels: int, *, checkpointing: bool) -> AdaptedNetwork:
    """Return a SegResNet; ``checkpointing`` recomputes each residual block in the backward pass."""
    net = SegResNet(init_filters=WIDTH, in_channels=in_channels, out_channels=out_channels)
    return AdaptedNetwork(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.conv_final[2],
        partial(get_conv_layer, 3, WIDTH, kernel_size=1, bias=True),
        divisor=DIVISOR,
        last_channels=WIDTH,
        deepest_channels=DEEPEST_WIDTH,
    )
