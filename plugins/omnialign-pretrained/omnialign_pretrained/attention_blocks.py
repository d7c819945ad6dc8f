"""Transformer blocks as CLIP and its kin have them: normalised first, attention, then an MLP.

Axes: n samples, L tokens, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


def attend(q: Tensor, k: Tensor, v: Tensor, num_heads: int, is_causal: bool) -> Tensor:
    """Attention of `(n, L, W)` in heads; there may be more keys than queries."""
    q, k, v = (t.unflatten(-1, (num_heads, -1)).transpose(1, 2) for t in (q, k, v))
    heads = scaled_dot_product_attention(q, k, v, is_causal=is_causal)  # (n, H, L, W / H)
    return heads.transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two layers."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each added to what went in."""

    def __init__(
        self,
        width: int,
        hidden: int,
        attention: nn.Module,
        activation: Callable[[Tensor], Tensor] = nn.functional.gelu,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, eps)
        self.attn = attention
        self.norm_2 = nn.LayerNorm(width, eps)
        self.mlp = Mlp(width, hidden, activation)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        x = x + self.attn(self.norm_1(x), is_causal)
        return x + self.mlp(self.norm_2(x))
