"""UNETR by MONAI: a ViT-B on blocks of 16^3 voxels, whose layers are the skips of a decoder (Hatamizadeh et al. 2022).

MONAI's learns positions for one size of image; here they are resized trilinearly for others. No dropout, so training
and prediction compute the same.
"""

from functools import partial
from typing import Any

from monai.networks.blocks import UnetOutBlock
from monai.networks.nets import UNETR
from torch import Tensor, nn

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides
from abdoseg.networks.monai_transformer import without_unused
from abdoseg.networks.transformer import LearnedPositions

DIVISOR = 16
WIDTH = 16
TOKEN_WIDTH = 768
SIDE = 96
"""Voxels a side of the image that positions are learned for."""

TAPS = (3, 6, 9)
"""Layers whose tokens become skips, by index."""


class Encoder(nn.Module):
    """The transformer, a residual block on the image, and doublings of the tapped tokens to the skips' resolutions."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        embedding = net.vit.patch_embedding
        self.embed = embedding.patch_embeddings
        self.positions = LearnedPositions(TOKEN_WIDTH, (SIDE // DIVISOR,) * 3)
        self.positions.vectors = embedding.position_embeddings
        self.layers = nn.ModuleList(without_unused(layer) for layer in net.vit.blocks)
        self.norm = net.vit.norm
        self.on_image = net.encoder1
        self.on_taps = nn.ModuleList([net.encoder2, net.encoder3, net.encoder4])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of ``(B, in, X, Y, Z)``: 16, 32, 64, 128, 768 channels at 1, 1/2, 1/4, 1/8, 1/16."""
        check_sides("unetr", x, DIVISOR)
        maps = [run(self.on_image, x, checkpointing=self.checkpointing)]
        tokens, taps = self._tokens(x)
        for part, tap in zip(self.on_taps, taps, strict=True):
            maps.append(run(part, tap, checkpointing=self.checkpointing))
        return [*maps, tokens]

    def _tokens(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        embedded = self.embed(x)
        grid = embedded.shape[2:]
        tokens = embedded.flatten(2).mT + self.positions(tuple(grid))
        taps = []
        for index, layer in enumerate(self.layers):
            tokens = run(layer, tokens, checkpointing=self.checkpointing)
            if index in TAPS:
                taps.append(_as_map(tokens, grid))
        return _as_map(self.norm(tokens), grid), taps


def _as_map(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    return tokens.mT.reshape(len(tokens), -1, *grid)


class Decoder(nn.Module):
    """Transposed convolutions, each joined with a skip in a residual block."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.up = nn.ModuleList([net.decoder5, net.decoder4, net.decoder3, net.decoder2])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 16, X, Y, Z)``."""
        *skips, x = maps
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = run(up, x, skip, checkpointing=self.checkpointing)
        return x


def unetr(in_channels: int, out_channels: int, *, checkpointing: bool) -> AdaptedNetwork:
    """Return a UNETR; ``checkpointing`` recomputes each layer and block in the backward pass."""
    net = UNETR(in_channels=in_channels, out_channels=out_channels, img_size=SIDE)
    return AdaptedNetwork(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.out,
        partial(UnetOutBlock, 3, WIDTH),
        divisor=DIVISOR,
        last_channels=WIDTH,
        deepest_channels=TOKEN_WIDTH,
    )
