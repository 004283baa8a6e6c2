"""The U-Net that nnU-Net plans for 112^3 patches, by MONAI's DynUNet, with deep supervision.

Five resolutions of 32 to 320 channels, two 3^3 convolutions each (instance norm, leaky ReLU), strided convolutions
down and transposed ones up (Isensee et al. 2021). Deep supervision has the logits at 1/2 and 1/4 resolution beside
those at 1: nnU-Net gives the last of its levels, 1/8, no weight.
"""

from typing import Any, Protocol, cast

from monai.networks.blocks import UnetOutBlock
from monai.networks.nets import DynUNet as MonaiDynUNet
from torch import Tensor, nn
from torch.nn import functional

from abdoseg.networks.adapted import AdaptedNetwork
from abdoseg.networks.checkpointing import run
from abdoseg.networks.contract import check_sides

DIVISOR = 16
WIDTHS = (32, 64, 128, 256, 320)
STRIDES = (1, 2, 2, 2, 2)

DEEP_LEVELS = 2
"""Coarser resolutions with logits of their own."""


class Encoder(nn.Module):
    """A block of two convolutions at each resolution."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.blocks = nn.ModuleList([net.input_block, *net.downsamples, net.bottleneck])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps of ``(B, in, X, Y, Z)``: 32, 64, 128, 256, 320 channels at 1, 1/2, 1/4, 1/8, 1/16."""
        check_sides("dynunet", x, DIVISOR)
        maps: list[Tensor] = []
        for block in self.blocks:
            x = run(block, x, checkpointing=self.checkpointing)
            maps.append(x)
        return maps


class Decoder(nn.Module):
    """Transposed convolutions, each joined with a skip in a block of two convolutions."""

    def __init__(self, net: Any, *, checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.up = net.upsamples

    def levels(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the decoder's features, finest first: 32, 64, 128, 256 channels at 1, 1/2, 1/4, 1/8."""
        *skips, x = maps
        levels: list[Tensor] = []
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = run(up, x, skip, checkpointing=self.checkpointing)
            levels.insert(0, x)
        return levels

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's maps to the last features ``(B, 32, X, Y, Z)``."""
        return self.levels(maps)[0]


class LeveledDecoder(Protocol):
    """A decoder that shows its features at each resolution."""

    def levels(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the features, finest first."""
        ...


class DeeplySupervised(AdaptedNetwork):
    """A network whose decoder gives ``levels``; heads on the coarser ones make the deep logits."""

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, deep_heads: nn.ModuleList, *, deepest: int
    ) -> None:
        sizes = {"divisor": DIVISOR, "last_channels": WIDTHS[0], "deepest_channels": deepest}
        super().__init__(encoder, decoder, head, _head, **sizes)
        self.deep_heads = deep_heads

    def deep_logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, then those at 1/2 and 1/4 resolution; nearest voxels fill ``(B, out, X, Y, Z)``."""
        levels = cast("LeveledDecoder", self.decoder).levels(self.encoder(x))
        coarse = [head(level) for head, level in zip(self.deep_heads, levels[1:], strict=False)]
        return (self.head(levels[0]), *(functional.interpolate(logits, x.shape[2:]) for logits in coarse))


def _head(out_channels: int) -> nn.Module:
    head: nn.Module = UnetOutBlock(3, WIDTHS[0], out_channels)
    return head.apply(MonaiDynUNet.initialize_weights)


def monai_dynunet(in_channels: int, out_channels: int) -> Any:
    """Return MONAI's module, from which the parts are taken."""
    return MonaiDynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[3] * len(STRIDES),
        strides=STRIDES,
        upsample_kernel_size=STRIDES[1:],
        filters=WIDTHS,
        deep_supervision=True,
        deep_supr_num=DEEP_LEVELS,
    )


def dynunet(in_channels: int, out_channels: int, *, checkpointing: bool) -> DeeplySupervised:
    """Return the U-Net; ``checkpointing`` recomputes each block in the backward pass."""
    net = monai_dynunet(in_channels, out_channels)
    return DeeplySupervised(
        Encoder(net, checkpointing=checkpointing),
        Decoder(net, checkpointing=checkpointing),
        net.output_block,
        net.deep_supervision_heads,
        deepest=WIDTHS[-1],
    )
