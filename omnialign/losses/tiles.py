"""The similarity matrix a tile at a time: it is never whole, so memory is linear in the batch.

Axes: n rows, M columns, of which the first N are partners and the rest hard negatives; D dim.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

ROWS, COLUMNS = 1024, 2048
"""Of a tile: its float32 entries stay in a CPU's cache between the passes over them, and its
matrix products run near the processor's peak."""

COARSE = (torch.bfloat16, torch.float16)


def tiles(
    n: int, num_partners: int, num_columns: int, shape: tuple[int, int] | None = None
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile; none holds partners and hard negatives together."""
    height, width = shape or (ROWS, COLUMNS)
    for top in range(0, n, height):
        rows = slice(top, min(top + height, n))
        for start, stop in ((0, num_partners), (num_partners, num_columns)):
            for left in range(start, stop, width):
                yield rows, slice(left, min(left + width, stop))


class Tile:
    """Memory for one tile, reused, and the products that fill and empty it.

    Similarities of 16-bit inputs, and gradients of bfloat16, are multiplied in 16 bits, which sums
    in float32; the rest of the arithmetic is float32.
    """

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._memory: dict[str, Tensor] = {}

    def _view(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Uninitialised memory, valid until the same name is asked for again."""
        size = shape[0] * shape[1]
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = self._like.new_empty(size, dtype=dtype)
        return self._memory[name][:size].view(shape)

    def similarities(self, x: Tensor, keys: Tensor, scale: float) -> Tensor:
        """`scale * x @ keys.T`, which the caller may change in place."""
        shape = (len(x), len(keys))
        S = self._view("similarities", shape, accumulated(x.dtype))
        if x.dtype not in COARSE:
            return torch.addmm(S, x, keys.T, beta=0, alpha=scale, out=S)
        coarse = torch.mm(x, keys.T, out=self._view("coarse", shape, x.dtype))
        return S.copy_(coarse).mul_(scale)

    def beside(self, S: Tensor) -> Tensor:
        """A second tile of the same shape."""
        return self._view("beside", (S.shape[0], S.shape[1]), S.dtype)

    def accumulate(
        self,
        S: Tensor,
        r: slice,
        c: slice,
        x: Tensor,
        keys: Tensor,
        d_x: Tensor | None,
        d_keys: Tensor | None,
    ) -> None:
        """`d_x[r] += S @ keys[c]` and `d_keys[c] += S.T @ x[r]`."""
        if x.dtype != torch.bfloat16:  # derivatives of many pairs are too small for float16
            if d_x is not None:
                d_x[r].addmm_(S, keys[c].to(S.dtype))
            if d_keys is not None:
                d_keys[c].addmm_(S.T, x[r].to(S.dtype))
            return
        coarse = self._view("coarse", (S.shape[0], S.shape[1]), x.dtype).copy_(S)
        for into, place, weights, vectors in (
            (d_x, r, coarse, keys[c]),
            (d_keys, c, coarse.T, x[r]),
        ):
            if into is not None:
                shape = (len(weights), vectors.shape[1])
                product = self._view("product", shape, x.dtype)
                into[place].add_(torch.mm(weights, vectors, out=product))


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """What sums of this dtype are kept in."""
    return torch.float32 if dtype in COARSE else dtype


def own_cosines(x: Tensor, y: Tensor, rounded: bool) -> Tensor:
    """Cosines `(n,)` of partners; rounded as those of a tile, or not."""
    dtype = accumulated(x.dtype)
    cosines = (x.to(dtype) * y.to(dtype)).sum(1)
    return cosines.to(x.dtype).to(dtype) if rounded else cosines


def derivative_by_scale(
    d_x: Tensor | None, d_keys: Tensor | None, x: Tensor, keys: Tensor
) -> Tensor:
    """The sum over entries of derivative times cosine, from either side's gradient.

    That is a gradient by vectors before it is multiplied by the scale.
    """
    gradient, vectors = (d_x, x) if d_keys is None else (d_keys, keys)
    assert gradient is not None
    return torch.dot(gradient.flatten(), vectors.to(gradient.dtype).flatten())
