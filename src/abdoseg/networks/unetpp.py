"""UNet++ by MONAI, with its default widths: a U-Net whose skips pass through nodes of their own (Zhou et al. 2018).

The three heads that MONAI builds for deep supervision are left out: the plain logits do not need them, and weights
without a gradient stop distributed training.
"""

from functools import partial
from typing import Any

import torch
from monai.networks.nets import BasicUNetPlusPlus
from torch import Tensor, nn

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides

DIVISOR = 16
LEVELS = 5
LAST_WIDTH = 32
DEEPEST_WIDTH = 256


class Encoder(nn.Module):
    """The column of nodes without skips: two convolutions a level, max pooling between levels."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.levels = nn.ModuleList(getattr(net, f"conv_{level}_0") for level in range(LEVELS))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of ``(B, in, X, Y, Z)``: 32, 32, 64, 128, 256 channels at 1, 1/2, 1/4, 1/8, 1/16."""
        check_sides("unetpp", x, DIVISOR)
        maps: list[Tensor] = []
        for level in self.levels:
            x = run(level, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps


class Node(nn.Module):
    """One node: the map below it doubled, and all maps before it at its own level."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.up = up

    def forward(self, below: Tensor, *before: Tensor) -> Tensor:
        """Map ``(B, c, X/2, Y/2, Z/2)`` and maps at ``(X, Y, Z)`` to one at ``(X, Y, Z)``."""
        # Joined inside the node, so that checkpointing does not keep the joint map.
        made: Tensor = self.up(below, torch.cat(before, dim=1))
        return made


class Decoder(nn.Module):
    """The triangle of nodes, column by column; the last column has the one node that the head reads."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.columns = nn.ModuleList(
            nn.ModuleList(Node(getattr(net, f"upcat_{level}_{column}")) for level in range(LEVELS - column))
            for column in range(1, LEVELS)
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 32, X, Y, Z)``."""
        made = [[x] for x in maps]
        for column in self.columns:
            for level, node in enumerate(column.children()):
                below = made[level + 1][len(made[level]) - 1]
                made[level].append(run(node, below, *made[level], checkpointing=self.checkpointing))
        return made[0][-1]


def unetpp(in_channels: int, out_channels: int, *, checkpointing: bool) -> AdaptedNetwork:
    """Return a UNet++; ``checkpointing`` recomputes each node in the backward pass."""
    net = BasicUNetPlusPlus(in_channels=in_channels, out_channels=out_channels)
    return AdaptedNetwork(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.final_conv_0_4,
        partial(nn.Conv3d, LAST_WIDTH, kernel_size=1),
        divisor=DIVISOR,
        last_channels=LAST_WIDTH,
        deepest_channels=DEEPEST_WIDTH,
    )
