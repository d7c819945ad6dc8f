"""From the features of tokens to those of a sample.

Axes: n samples, T tokens, W width, H height, V breadth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AttentionPool(nn.Module):
    """A learned query over tokens; at first it takes all alike."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """`x` `(n, T, W)`; `held` `(n, T)` is true where there is data."""
        scores = (x @ self.query) * len(self.query) ** -0.5
        shares = scores.masked_fill(~held, -torch.inf).softmax(-1)
        return (shares[..., None] * x).sum(1)


def tokens_of(x: Tensor) -> Tensor:
    """Features `(n, T, W)`, or a map `(n, W, H, V)`, as `(n, T, W)`."""
    return x.flatten(2).mT if x.ndim == 4 else x


def pool(kind: str, x: Tensor, held: Tensor, num_marks: int) -> Tensor:
    """`(n, T, W)` to `(n, W)` by `cls`, `last`, `mean` or `max`.

    `held` `(n, T)` is true where there is data; the mean and the maximum leave out the first
    `num_marks` tokens.
    """
    if kind == "cls":
        return x[:, 0]
    if kind == "last":
        place = (held * torch.arange(1, x.shape[1] + 1, device=x.device)).argmax(1)
        return x[torch.arange(len(x), device=x.device), place]
    x, held = x[:, num_marks:], held[:, num_marks:, None]
    if kind == "max":
        return x.masked_fill(~held, -torch.inf).amax(1)
    return (x * held).sum(1) / held.sum(1)
