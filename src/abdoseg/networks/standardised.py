"""Weight-standardised convolutions and the blocks made of them, as 3D TransUNet uses (method, 7.1)."""

from torch import Tensor, nn
from torch.nn import functional

WEIGHT_EPS = 1e-5
NORM_EPS = 1e-6


class StandardisedConv3d(nn.Conv3d):
    """k^3 convolution, stride 1, same size, whose filters have mean 0 and variance 1.

    Each output filter has its mean subtracted and is divided by ``sqrt(biased variance + 1e-5)``, both over
    input channels and the k^3 positions (Qiao et al. 2019, "Micro-Batch Training with Batch-Channel
    Normalization and Weight Standardization"). ``k`` is odd; the bias is an ordinary one.
    """

    def __init__(self, width_in: int, width_out: int, k: int) -> None:
        super().__init__(width_in, width_out, k, padding=(k - 1) // 2)

    def standardised_weight(self) -> Tensor:
        """Return the filters as they are applied: ``(out, in, k, k, k)``."""
        axes = (1, 2, 3, 4)
        centred = self.weight - self.weight.mean(dim=axes, keepdim=True)
        variance = centred.square().mean(dim=axes, keepdim=True)
        return centred * (variance + WEIGHT_EPS).rsqrt()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the name nn.Conv3d gives it)
        """Map ``(B, in, X, Y, Z)`` to ``(B, out, X, Y, Z)``."""
        return functional.conv3d(input, self.standardised_weight(), self.bias, padding=self.padding)

    def plain(self) -> nn.Conv3d:
        """Return an ordinary convolution that computes the same: its filters are standardised now, once."""
        convolution = nn.Conv3d(
            self.in_channels, self.out_channels, self.kernel_size[0], padding=self.kernel_size[0] // 2, device="meta"
        )
        convolution.weight, convolution.bias = nn.Parameter(self.standardised_weight()), self.bias
        return convolution


def standardise_once(module: nn.Module) -> None:
    """Replace the standardised convolutions in a module by ordinary ones, for prediction."""
    for name, child in list(module.named_children()):
        if isinstance(child, StandardisedConv3d):
            setattr(module, name, child.plain())
        else:
            standardise_once(child)


def channel_norm(width: int) -> nn.GroupNorm:
    """Return GroupNorm with one channel a group, affine, eps 1e-6."""
    return nn.GroupNorm(width, width, eps=NORM_EPS)


def conv_norm_relu(width_in: int, width_out: int, k: int) -> nn.Sequential:
    """Return standardised k^3 convolution, norm, ReLU: the CNRk of the method."""
    return nn.Sequential(StandardisedConv3d(width_in, width_out, k), channel_norm(width_out), nn.ReLU(inplace=True))


class ResidualBlock(nn.Module):
    """Two standardised 3^3 convolutions and a shortcut: relu(norm(conv(relu(norm(conv x)))) + shortcut x).

    The shortcut is the identity where widths agree, else a standardised 1^3 convolution without a norm.
    """

    def __init__(self, width_in: int, width_middle: int, width_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm_relu(width_in, width_middle, 3),
            StandardisedConv3d(width_middle, width_out, 3),
            channel_norm(width_out),
        )
        self.shortcut = nn.Identity() if width_in == width_out else StandardisedConv3d(width_in, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, in, X, Y, Z)`` to ``(B, out, X, Y, Z)``."""
        # In place: nobody else reads the sum or the norm's output, and a map of the finest levels is hundreds of MB.
        y: Tensor = self.body(x)
        return y.add_(self.shortcut(x)).relu_()


def halve(x: Tensor) -> Tensor:
    """Return ``(B, C, X, Y, Z)``, even sides, resized trilinearly to half of each, corners aligned."""
    return _resize(x, [side // 2 for side in x.shape[2:]])


def double(x: Tensor) -> Tensor:
    """Return ``(B, C, X, Y, Z)`` resized trilinearly to twice each side, corners aligned."""
    return _resize(x, [side * 2 for side in x.shape[2:]])


def _resize(x: Tensor, size: list[int]) -> Tensor:
    return functional.interpolate(x, size=size, mode="trilinear", align_corners=True)
