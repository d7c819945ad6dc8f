"""Exact nearest neighbours by a scan of memory-mapped vectors.

Codes of a quarter of the size are scanned; their error is bounded, and every row that the bound
leaves in question is compared in float32. So what is found is what float32 alone would find.

Axes: n rows, m new rows, D dim, q queries, k neighbours, M masks, p pairs of a query and a row.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from omnialign.errors import OmniAlignError
from omnialign.index.codes import SLACK, Codes, Floats, code, code_queries
from omnialign.index.scorers import (
    HALF_MARGIN,
    FewQueries,
    ManyQueries,
    Mask,
    Pairs,
    Places,
    Plain,
    Rows,
    Scorer,
    torch_of,
)

if TYPE_CHECKING:
    import torch

FORMAT = 1
FILES = {"vectors.float32": 4, "codes.int8": 1, "errors.float32": 4}
"""Bytes of a number in each file; the errors have one number a row, the others D."""
WRITTEN_ROWS = 16_384
SAMPLE = 4096
QUERIES = 256
"""Queries of one pass: their codes and a block's products stay in a cache."""
COMPARED = 4096
CROWDED = 1 / 32
"""Share of the pairs left in question from which on codes cost more than they spare."""


class Neighbours(NamedTuple):
    """Of each query, best first: cosines (q, k) float32 and places (q, k) int64.

    Where there are fewer than k, the place is -1 and the cosine -inf.
    """

    cosines: Floats
    places: Places


class Scan:
    """Vectors of unit length in a folder, appended to and searched; made by `Scan.open`.

    A row is counted once it is in all files. Whoever writes keeps a count of its own and calls
    `truncate` with it after opening, which drops what an interrupted `append` left.
    """

    def __init__(self, folder: Path, dim: int, device: torch.device | str | None) -> None:
        self._folder, self._dim, self._device = folder, dim, device
        self._on_device: torch.Tensor | None = None
        self._map(min(self._stored(name) for name in FILES))

    @classmethod
    def open(cls, folder: Path, dim: int, device: torch.device | str | None = None) -> Self:
        """The vectors in `folder`; none where it is new.

        Args:
            dim: D, numbers of a vector.
            device: None scans codes on the CPU, with as many threads as torch has; a device of
                torch is given the vectors in float16, once, and scans those.

        Raises:
            OmniAlignError: `folder` holds vectors of another size or layout.
        """
        folder.mkdir(parents=True, exist_ok=True)
        about, wanted = folder / "scan.json", {"format": FORMAT, "dim": dim}
        try:
            found = json.loads(about.read_text("utf-8"))
        except FileNotFoundError:
            about.write_text(json.dumps(wanted), "utf-8")
        except ValueError as error:
            raise OmniAlignError(f"'{about}' is not JSON: {_remedy(folder)}") from error
        else:
            if found != wanted:
                raise OmniAlignError(
                    f"'{about}' says {found}, wanted was {wanted}: {_remedy(folder)}"
                )
        return cls(folder, dim, device)

    def __len__(self) -> int:
        return len(self._vectors)

    def append(self, vectors: Floats) -> None:
        """Add rows (m, D) float32 of unit length, or of zeros; they are on disk when it returns.

        Raises:
            OmniAlignError: a vector is not of unit length or not finite.
        """
        assert vectors.ndim == 2, vectors.shape
        assert vectors.shape[1] == self._dim, vectors.shape
        lengths = np.linalg.norm(vectors, axis=1)
        odd = np.flatnonzero(~((np.abs(lengths - 1) < 1e-3) | (lengths == 0)))
        if len(odd):
            raise OmniAlignError(
                f"vectors of unit length were wanted, row {odd[0]} of {len(vectors)} has length "
                f"{lengths[odd[0]]:.4g}: divide by it, and leave out what is not finite"
            )
        files = [self._open(name) for name in FILES]
        try:
            for start in range(0, len(vectors), WRITTEN_ROWS):
                block = np.ascontiguousarray(vectors[start : start + WRITTEN_ROWS], np.float32)
                for file, part in zip(files, (block, *code(block)), strict=True):
                    file.write(part.data)
            for file in files:
                file.flush()
                os.fsync(file.fileno())
        finally:
            for file in files:
                file.close()
        self._map(len(self) + len(vectors))

    def truncate(self, n: int) -> None:
        """Keep the first `n` rows.

        Raises:
            OmniAlignError: a file has fewer.
        """
        for name in FILES:
            if self._stored(name) < n:
                raise OmniAlignError(
                    f"'{self._folder / name}' was to have {n} rows and has {self._stored(name)}: "
                    f"{_remedy(self._folder)}"
                )
        self._map(0)
        for name in FILES:
            if (self._folder / name).exists():
                os.truncate(self._folder / name, n * self._row_bytes(name))
        self._map(n)
        if self._on_device is not None:
            self._on_device = self._on_device[:n]

    def vectors(self) -> Floats:
        """All rows (n, D) float32, memory-mapped."""
        return self._vectors

    def search(
        self, queries: Floats, k: int, masks: Sequence[Mask | None] = (None,)
    ) -> list[Neighbours]:
        """The `k` rows with the largest cosines; of equal ones, those with the lower places.

        Args:
            queries: (q, D) float32 of unit length.
            masks: each (n,), True for rows that may be found, or None for all. One pass over the
                codes serves all masks.

        Returns:
            For each mask its neighbours.
        """
        assert k > 0, k
        assert queries.ndim == 2, queries.shape
        assert queries.shape[1] == self._dim, queries.shape
        assert all(mask is None or mask.shape == (len(self),) for mask in masks)
        queries = np.ascontiguousarray(queries, np.float32)
        parts = [
            self._search(queries[start : start + QUERIES], k, masks)
            for start in range(0, len(queries), QUERIES)
        ]
        nothing = _nothing(0, k)
        return [
            Neighbours(
                np.concatenate([nothing.cosines, *(part[m].cosines for part in parts)]),
                np.concatenate([nothing.places, *(part[m].places for part in parts)]),
            )
            for m in range(len(masks))
        ]

    def codes(self) -> Codes:
        """All rows (n, D) int8, memory-mapped; their products rank as cosines do, nearly."""
        return self._codes

    def compare(self, queries: Floats, candidates: Places, k: int) -> Neighbours:
        """The `k` best for each query (q, D) of its candidates (q, c), compared in float32.

        A candidate of -1 is none.
        """
        query, column = np.nonzero(candidates >= 0)
        places = candidates[query, column]
        pairs = Pairs(query, places, np.zeros(len(places), np.float32))
        return self._merged(_nothing(len(queries), k), pairs, queries)

    def _search(self, queries: Floats, k: int, masks: Sequence[Mask | None]) -> list[Neighbours]:
        import torch

        best = [_nothing(len(queries), k) for _ in masks]
        if not len(self):
            return best
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            scorer = self._scorer(queries, pool)
            floors = np.stack([self._floors(scorer, queries, k, mask) for mask in masks])
            for rows, num_pairs in self._rounds(scorer, len(queries), masks):
                found = scorer.above(rows, masks, floors)
                for m, pairs in enumerate(found):
                    best[m] = self._refined(best[m], pairs, queries, scorer.margins)
                    floors[m] = np.maximum(floors[m], best[m].cosines[:, -1])
                left = sum(len(pairs.places) for pairs in found)
                if self._device is None and left > CROWDED * num_pairs:
                    scorer = Plain(torch_of(self._vectors), queries, SLACK)
        return best

    def _scorer(self, queries: Floats, pool: ThreadPoolExecutor) -> Scorer:
        if self._device is not None:
            return Plain(self._device_vectors(self._device), queries, HALF_MARGIN)
        coded = code_queries(queries, self._worst)
        if len(queries) <= FewQueries.MOST or not ManyQueries.is_exact(self._dim):
            return FewQueries(self._codes, coded, pool)
        return ManyQueries(self._codes, coded)

    def _floors(self, scorer: Scorer, queries: Floats, k: int, mask: Mask | None) -> Floats:
        """For each query a cosine that at least `k` allowed rows reach, from a sample of them."""
        count = len(self) if mask is None else int(np.count_nonzero(mask))
        if count < k:
            return np.full(len(queries), -np.inf, np.float32)
        step = max(1, count // max(SAMPLE, 4 * k))
        sample = np.arange(0, count, step)
        if mask is not None:
            sample = np.flatnonzero(mask)[sample]
        top = scorer.cosines(sample).topk(k, dim=0).indices.numpy()
        query = np.repeat(np.arange(len(queries)), k)
        exact = self._exact(queries, query, sample[top.T].ravel())
        return exact.reshape(len(queries), k).min(1)

    def _rounds(
        self, scorer: Scorer, num_queries: int, masks: Sequence[Mask | None]
    ) -> Iterator[tuple[Rows, int]]:
        """All rows that some mask allows, in growing stretches, and the pairs in each."""
        places: Places | None = None
        filters = [mask for mask in masks if mask is not None]
        if len(filters) == len(masks):
            union = np.logical_or.reduce(filters)
            if np.count_nonzero(union) < len(self) // 2:
                places = np.flatnonzero(union)
        total = len(self) if places is None else len(places)
        start, pairs = 0, scorer.first_round
        while start < total:
            stop = min(start + max(1, pairs // (num_queries * len(masks))), total)
            rows = slice(start, stop) if places is None else places[start:stop]
            yield rows, (stop - start) * num_queries
            start, pairs = stop, min(4 * pairs, scorer.last_round)

    def _refined(
        self, best: Neighbours, pairs: Pairs, queries: Floats, margins: Floats
    ) -> Neighbours:
        """The best of those so far and of the pairs, compared in float32 as far as needed."""
        order = np.lexsort((-pairs.cosines, pairs.queries))
        pairs = pairs.take(order)
        firsts = np.searchsorted(pairs.queries, np.arange(len(queries)))
        rank = np.arange(len(order)) - firsts[pairs.queries]
        leading = rank < best.cosines.shape[1]
        best = self._merged(best, pairs.take(leading), queries)
        reachable = pairs.cosines + margins[pairs.queries] >= best.cosines[pairs.queries, -1]
        return self._merged(best, pairs.take(~leading & reachable), queries)

    def _merged(self, best: Neighbours, pairs: Pairs, queries: Floats) -> Neighbours:
        q, k = best.cosines.shape
        if not len(pairs.places):
            return best
        exact = self._exact(queries, pairs.queries, pairs.places)
        query = np.concatenate([np.repeat(np.arange(q), k), pairs.queries])
        cosines = np.concatenate([best.cosines.ravel(), exact])
        places = np.concatenate([best.places.ravel(), pairs.places])
        order = np.lexsort((places, -cosines, query))
        firsts = np.searchsorted(query[order], np.arange(q))
        kept = order[firsts[:, None] + np.arange(k)]
        return Neighbours(cosines[kept], places[kept])

    def _exact(self, queries: Floats, query: Places, places: Places) -> Floats:
        """Cosines (p,) in float32."""
        cosines = np.empty(len(places), np.float32)
        for start in range(0, len(places), COMPARED):
            part = slice(start, start + COMPARED)
            np.einsum(
                "pd,pd->p", self._vectors[places[part]], queries[query[part]], out=cosines[part]
            )
        return cosines

    def _device_vectors(self, device: torch.device | str) -> torch.Tensor:
        """All rows in float16 on `device`; only those that are not there yet are moved."""
        import torch

        if self._on_device is None or len(self._on_device) < len(self):
            vectors = torch.empty((len(self), self._dim), dtype=torch.float16, device=device)
            there = 0
            if self._on_device is not None:
                there = len(self._on_device)
                vectors[:there] = self._on_device
            for start in range(there, len(self), WRITTEN_ROWS):
                block = torch.from_numpy(self._vectors[start : start + WRITTEN_ROWS])
                vectors[start : start + len(block)] = block.half().to(device)
            self._on_device = vectors
        return self._on_device

    def _row_bytes(self, name: str) -> int:
        return FILES[name] * (1 if name.startswith("errors") else self._dim)

    def _stored(self, name: str) -> int:
        path = self._folder / name
        return path.stat().st_size // self._row_bytes(name) if path.exists() else 0

    def _open(self, name: str):
        path = self._folder / name
        path.touch()
        file = path.open("r+b")
        file.seek(len(self) * self._row_bytes(name))
        return file

    def _map(self, n: int) -> None:
        """Map the first `n` rows of the files."""
        self._vectors = self._mapped("vectors.float32", np.float32, (n, self._dim))
        self._codes = self._mapped("codes.int8", np.int8, (n, self._dim))
        errors = self._mapped("errors.float32", np.float32, (n,))
        self._worst = float(errors.max(initial=0.0))

    def _mapped(self, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
        if not shape[0]:
            return np.empty(shape, dtype)
        # private, so that it counts as writable, which torch wants; nothing is written
        return np.asarray(np.memmap(self._folder / name, dtype, "c", shape=shape))


def _nothing(num_queries: int, k: int) -> Neighbours:
    shape = (num_queries, k)
    return Neighbours(np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int64))


def _remedy(folder: Path) -> str:
    return f"delete the folder '{folder}'; it is made anew from the table"
