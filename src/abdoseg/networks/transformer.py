"""The transformer between encoder and decoder of 3D TransUNet: cosine attention over tokens (method, 7.1)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

NORM_EPS = 1e-6

_SCALE_START = math.log(10)
_SCALE_MOST = math.log(100)


class CosineAttention(nn.Module):
    """Multi-head self-attention on cosines: softmax(cos(q, k) x exp(min(s, ln 100))) v.

    ``s`` is one learned number a head, ln 10 at the start (Liu et al. 2022, "Swin Transformer V2").
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), _SCALE_START))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, T, width)`` to tokens of the same shape."""
        batch, tokens, width = x.shape
        by_head = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (project(x).view(by_head).transpose(1, 2) for project in (self.q, self.k, self.v))
        scale = self.log_scale.clamp(max=_SCALE_MOST).exp()
        q = (functional.normalize(q, dim=-1) * scale).to(v.dtype)
        k = functional.normalize(k, dim=-1).to(v.dtype)
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=1.0)
        attended: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return attended


class TransformerLayer(nn.Module):
    """x + Att(LN x), then x + MLP(LN x), with an exact GELU in the MLP."""

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.attention = CosineAttention(width, heads)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, T, width)`` to tokens of the same shape."""
        x = x + self.attention(self.attention_norm(x))
        deeper: Tensor = x + self.mlp(self.mlp_norm(x))
        return deeper


class LearnedPositions(nn.Module):
    """One learned vector for each token of a grid, 0 at the start; resized trilinearly for another grid.

    Parameters
    ----------
    width
        Length of a vector.
    grid
        Number of tokens along each axis of the grid that the vectors are kept for.
    """

    def __init__(self, width: int, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.vectors = nn.Parameter(torch.zeros(1, math.prod(grid), width))

    def forward(self, grid: tuple[int, ...]) -> Tensor:
        """Return the positions of a grid: ``(1, tokens, width)``, the last axis of the grid fastest."""
        if grid == self.grid:
            return self.vectors
        field = self.vectors.mT.reshape(1, -1, *self.grid)
        field = functional.interpolate(field, size=list(grid), mode="trilinear", align_corners=False)
        return field.flatten(2).mT
