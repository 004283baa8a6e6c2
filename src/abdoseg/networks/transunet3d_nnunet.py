"""The other 3D TransUNet: a plain U-Net with a ViT-B on its deepest map, encoder-only variant (Chen et al. 2023).

"3D TransUNet: Advancing Medical Image Segmentation through Vision Transformers" and its public code leave to the plan
of each data set what is chosen here: the U-Net is the one that nnU-Net plans for 112^3 patches (``dynunet``: 32 to 320
channels, four halvings, deep supervision at 1/2 and 1/4), so a 112^3 patch has 343 tokens. As in the public code:
tokens by a 1^3 convolution 320 -> 768, learned positions that start at 0, 12 layers of 12 heads with an MLP of 3072 and
biases throughout, layer norms with eps 1e-6, a last norm, and a 1^3 convolution 768 -> 320 back. Ours: random start
instead of ImageNet weights (training is from scratch), no dropout in the transformer, so that training and prediction
compute the same, and positions resized trilinearly for other patches.
"""

from typing import Any

from monai.networks.blocks import TransformerBlock
from torch import Tensor, nn

from abdoseg.networks import dynunet
from abdoseg.networks.checkpointing import run
from abdoseg.networks.monai_transformer import without_unused
from abdoseg.networks.transformer import NORM_EPS, LearnedPositions

TOKEN_WIDTH = 768
MLP_WIDTH = 3072
HEADS = 12
LAYERS = 12
TOKEN_GRID = (7, 7, 7)
"""Tokens of a 112^3 patch, for which positions are learned."""


class Encoder(nn.Module):
    """The U-Net's encoder, then the transformer on its deepest map."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.convolutions = dynunet.Encoder(net, checkpointing=checkpointing)
        self.embed = nn.Conv3d(dynunet.WIDTHS[-1], TOKEN_WIDTH, 1)
        self.positions = LearnedPositions(TOKEN_WIDTH, TOKEN_GRID)
        self.layers = nn.ModuleList(_layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(TOKEN_WIDTH, eps=NORM_EPS)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the U-Net's maps but the deepest, then the tokens as ``(B, 768, X/16, Y/16, Z/16)``."""
        *skips, deepest = self.convolutions(x)
        grid = tuple(deepest.shape[2:])
        tokens = self.embed(deepest).flatten(2).mT + self.positions(grid)
        for layer in self.layers:
            tokens = run(layer, tokens, checkpointing=self.checkpointing)
        return [*skips, self.norm(tokens).mT.reshape(len(x), TOKEN_WIDTH, *grid)]


class Decoder(nn.Module):
    """A 1^3 convolution back to the U-Net's deepest width, then the U-Net's decoder."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.narrow = nn.Conv3d(TOKEN_WIDTH, dynunet.WIDTHS[-1], 1)
        self.convolutions = dynunet.Decoder(net, checkpointing=checkpointing)

    def levels(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the decoder's features, finest first: 32, 64, 128, 256 channels at 1, 1/2, 1/4, 1/8."""
        return self.convolutions.levels([*maps[:-1], self.narrow(maps[-1])])

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 32, X, Y, Z)``."""
        return self.levels(maps)[0]


def _layer() -> nn.Module:
    layer: Any = TransformerBlock(TOKEN_WIDTH, MLP_WIDTH, HEADS, qkv_bias=True, use_flash_attention=True)
    for norm in (layer.norm1, layer.norm2):
        norm.eps = NORM_EPS
    for linear in (layer.mlp.linear1, layer.mlp.linear2):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(linear.bias, std=1e-6)
    return without_unused(layer)


def transunet3d_nnunet(in_channels: int, out_channels: int, *, checkpointing: bool) -> dynunet.DeeplySupervised:
    """Return the network; ``checkpointing`` recomputes each block and layer in the backward pass."""
    net = dynunet.monai_dynunet(in_channels, out_channels)
    return dynunet.DeeplySupervised(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.output_block,
        net.deep_supervision_heads,
        deepest=TOKEN_WIDTH,
    )
