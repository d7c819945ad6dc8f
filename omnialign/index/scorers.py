"""Cosines that are nearly right, quickly, and which rows they leave in question.

Axes: n rows, b rows of a block, D dim, q queries, p pairs of a query and a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omnialign.index.codes import LEVELS, CodedQueries, Codes, Floats

if TYPE_CHECKING:
    import torch

Places = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = slice | Places
"""Rows of one stretch, or at any places in ascending order."""

GROUP = 64
FEW_BLOCK, DEVICE_BLOCK = 1 << 18, 1 << 27
"""Pairs of a query and a row in a block: of a thread with few queries, and of an accelerator."""
HALF_MARGIN = 2.0**-9
"""Products of unit vectors in float16, summed in float32: three roundings of 2⁻¹¹ and a spare."""
BELOW = np.float32(-2)
"""Less than any cosine."""


class Pairs(NamedTuple):
    """Rows in question: (p,) the query, the row's place, and the cosine that is nearly right."""

    queries: Places
    places: Places
    cosines: Floats

    def take(self, which: Places | Mask) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.queries[which], self.places[which], self.cosines[which])


class Scorer(ABC):
    """Cosines of some queries with rows, off by at most `margins` (q,).

    first_round, last_round: pairs of a query and a row to look at before the best of them are
    compared exactly, which raises the floors of the next round.
    """

    margins: Floats
    first_round: int = 1 << 22
    last_round: int = 1 << 24

    @abstractmethod
    def cosines(self, rows: Rows) -> torch.Tensor:
        """(b, q) of some rows."""

    @abstractmethod
    def above(self, rows: Rows, masks: Sequence[Mask | None], floors: Floats) -> list[Pairs]:
        """For each mask, the pairs whose cosine could be at or above `floors` (masks, q)."""


def allowed(rows: Rows, mask: Mask | None) -> Places | None:
    """Which of the rows a mask allows; None for all."""
    if mask is None or (some := mask[rows]).all():
        return None
    return np.flatnonzero(some)


def places(rows: Rows, which: Places | None, hits: Places) -> Places:
    """Places of hits among those of the rows that are allowed."""
    hits = hits if which is None else which[hits]
    return rows.start + hits if isinstance(rows, slice) else rows[hits]


def blocks(rows: Rows, size: int) -> list[Rows]:
    """Rows in pieces of `size`."""
    if isinstance(rows, slice):
        starts = range(rows.start, rows.stop, size)
        return [slice(start, min(start + size, rows.stop)) for start in starts]
    return [rows[start : start + size] for start in range(0, len(rows), size)]


class FewQueries(Scorer):
    """Products of int8 by the CPU's instructions for them: as fast as the codes can be read."""

    MOST = 31
    """Queries; for more a matrix product is faster."""
    ALONE = 3
    """Queries that are faster one by one than as a small matrix."""

    def __init__(self, codes: Codes, queries: CodedQueries, pool: ThreadPoolExecutor) -> None:
        import numkong

        self.margins = queries.margins
        self._codes, self._units, self._pool = codes, queries.units, pool
        self._alone = queries.codes if len(queries.codes) <= self.ALONE else None
        self._packed = numkong.dots_pack(queries.codes, dtype="int8")

    def _products(self, rows: Rows) -> NDArray[np.float32 | np.int32]:
        import numkong

        codes = self._codes[rows]
        if self._alone is not None:
            return np.asarray(numkong.cdist(codes, self._alone, "inner", out_dtype="float32"))
        return np.asarray(numkong.dots_packed(codes, self._packed))

    def cosines(self, rows: Rows) -> torch.Tensor:
        import torch

        return torch.from_numpy(self._products(rows) * self._units)

    def above(self, rows: Rows, masks: Sequence[Mask | None], floors: Floats) -> list[Pairs]:
        bounds = whole_bounds(floors - self.margins, self._units)
        width = len(self._units)

        def block(part: Rows) -> list[Pairs]:
            products, found = self._products(part), list[Pairs]()
            for mask, bound in zip(masks, bounds.astype(products.dtype), strict=True):
                which = allowed(part, mask)
                chosen = products if which is None else products[which]
                at = np.flatnonzero((chosen >= bound).ravel())
                row, query = np.divmod(at, width)
                cosines = chosen.ravel()[at] * self._units[query]
                found.append(Pairs(query, places(part, which, row), cosines))
            return found

        size = max(256, FEW_BLOCK // max(width, 16))
        found = list(self._pool.map(block, blocks(rows, size)))
        return [joined([pairs[m] for pairs in found]) for m in range(len(masks))]


class Batch(Scorer):
    """Matrix products by torch, in blocks whose products stay in a cache."""

    block: int = 1 << 20
    _units: Floats

    @abstractmethod
    def _products(self, rows: Rows) -> torch.Tensor: ...

    @abstractmethod
    def _bounds(self, floors: Floats) -> torch.Tensor:
        """Floors (masks, q) in the units of the products."""

    def cosines(self, rows: Rows) -> torch.Tensor:
        return self._products(rows).cpu().float() * torch_of(self._units)

    def above(self, rows: Rows, masks: Sequence[Mask | None], floors: Floats) -> list[Pairs]:
        bounds = self._bounds(floors)
        found: list[list[Pairs]] = [[] for _ in masks]
        for part in blocks(rows, max(GROUP, self.block // len(self._units))):
            products = self._products(part)
            for mask, bound, pairs in zip(masks, bounds, found, strict=True):
                which = allowed(part, mask)
                chosen = products
                if which is not None:
                    chosen = products[torch_of(which).to(products.device)]
                row, query, value = (x.cpu().numpy() for x in at_least(chosen, bound))
                cosines = value.astype(np.float32) * self._units[query]
                pairs.append(Pairs(query, places(part, which, row), cosines))
        return [joined(pairs) for pairs in found]


class ManyQueries(Batch):
    """Products of int8 as a matrix product on a CPU."""

    def __init__(self, codes: Codes, queries: CodedQueries) -> None:
        self.margins = queries.margins
        self._units = queries.units
        self._codes = torch_of(codes)
        self._queries = torch_of(queries.codes).t().contiguous()

    @staticmethod
    @lru_cache
    def is_exact(dim: int) -> bool:
        """Whether torch's product of int8, which is no public name, is there and right here.

        Processors without instructions for it may sum two products in 16 bits.
        """
        import torch

        if not hasattr(torch, "_int_mm"):
            return False
        most = np.full((GROUP, dim), LEVELS, np.int8)
        signs = np.where(np.arange(GROUP)[:, None] % 2, 1, -1).astype(np.int8)
        products = product(torch_of(most * signs), torch_of(most).t().contiguous())
        return bool((products.numpy() == signs.astype(np.int32) * LEVELS**2 * dim).all())

    def _products(self, rows: Rows) -> torch.Tensor:
        codes = self._codes[rows if isinstance(rows, slice) else torch_of(rows)]
        return product(codes, self._queries)

    def _bounds(self, floors: Floats) -> torch.Tensor:
        return torch_of(whole_bounds(floors - self.margins, self._units))


class Plain(Batch):
    """Products of the vectors themselves, in their own precision and where they are."""

    def __init__(self, vectors: torch.Tensor, queries: Floats, margin: float) -> None:
        self._vectors = vectors
        self._queries = torch_of(queries).to(vectors.device, vectors.dtype).t()
        self._units = np.ones(len(queries), np.float32)
        self.margins = self._units * np.float32(margin)
        if vectors.device.type != "cpu":
            self.block = DEVICE_BLOCK
            self.first_round, self.last_round = DEVICE_BLOCK // 4, DEVICE_BLOCK * 2

    def _products(self, rows: Rows) -> torch.Tensor:
        at = rows if isinstance(rows, slice) else torch_of(rows).to(self._vectors.device)
        return self._vectors[at] @ self._queries

    def _bounds(self, floors: Floats) -> torch.Tensor:
        return torch_of(np.maximum(floors - self.margins, BELOW)).to(self._vectors.device)


def at_least(
    products: torch.Tensor, bounds: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Row, query and value of products (b, q) that reach their query's bound (q,).

    The maxima of groups are looked at first, and then only the groups that have one.
    """
    import torch

    spare = -len(products) % GROUP
    if spare:
        least = float("-inf") if products.is_floating_point() else torch.iinfo(products.dtype).min
        products = torch.nn.functional.pad(products, (0, 0, 0, spare), value=least)
    groups = products.view(-1, GROUP, products.shape[1])
    group, query = (groups.amax(1) >= bounds).nonzero(as_tuple=True)
    values = groups[group, :, query]
    hit, inside = (values >= bounds[query, None]).nonzero(as_tuple=True)
    return group[hit] * GROUP + inside, query[hit], values[hit, inside]


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """int8 (a, D) times int8 (D, b) in int32."""
    import torch

    return torch._int_mm(left, right)  # pyright: ignore


def whole_bounds(floors: Floats, units: Floats) -> NDArray[np.int32]:
    """The whole numbers (masks, q) that products of int8 reach where cosines reach `floors`."""
    limits = np.iinfo(np.int32)
    whole = np.floor(floors.astype(np.float64) / units)
    return np.clip(whole, limits.min + 1, limits.max).astype(np.int32)


def joined(pairs: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(column) for column in zip(*pairs, strict=True)))


def torch_of(array: NDArray[np.generic]) -> torch.Tensor:
    import torch

    return torch.from_numpy(array)
