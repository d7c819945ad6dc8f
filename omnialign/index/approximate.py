"""Nearest neighbours by a graph over the codes of a scan, where the scan takes too long.

Yu. A. Malkov, D. A. Yashunin, "Efficient and robust approximate nearest neighbor search using
Hierarchical Navigable Small World graphs", 2018; https://arxiv.org/abs/1603.09320.

Axes: n rows, D dim, q queries, k neighbours, c candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np

from omnialign.errors import OmniAlignError
from omnialign.index.codes import Floats, code_queries
from omnialign.index.scan import Neighbours, Scan
from omnialign.index.scorers import Mask, Places

FILE = "graph.usearch"
BREADTH = 256
"""Rows that a search keeps in view at least; more of them find more and take longer."""
SPARE = 5
"""Candidates for each neighbour that is wanted; they are compared in float32."""
SCANNED = 1_000_000
"""Rows that a filter may leave for a scan to be the better way."""
BLOCK = 20_000


class Approximate:
    """A graph in a folder, over the rows that a scan had when it was built or last extended.

    Later rows are scanned. A scan that was written anew needs a graph that is built anew.
    """

    def __init__(self, folder: Path, scan: Scan, graph: Any, is_mapped: bool) -> None:
        self._file, self._scan, self._graph = folder / FILE, scan, graph
        self._is_mapped = is_mapped

    @classmethod
    def build(cls, folder: Path, scan: Scan, progress: Callable[[int], None] | None = None) -> Self:
        """Over all rows of `scan`, with as many threads as torch has.

        `progress` is told after each block how many rows are in the graph.
        """
        made = cls(folder, scan, _graph(scan), is_mapped=False)
        made.extend(progress)
        return made

    @classmethod
    def open(cls, folder: Path, scan: Scan) -> Self:
        """The graph in `folder`, memory-mapped.

        Raises:
            OmniAlignError: there is none, it is damaged, or it is not of these rows.
        """
        file, graph = folder / FILE, _graph(scan)
        remedy = "build the approximate index again"
        if not file.is_file():
            raise OmniAlignError(f"no approximate index was found at '{file}': {remedy}")
        try:
            graph.view(file)
        except (RuntimeError, ValueError) as error:
            raise OmniAlignError(f"'{file}' cannot be read ({error}): {remedy}") from error
        if graph.ndim != scan.codes().shape[1] or len(graph) > len(scan):
            raise OmniAlignError(
                f"'{file}' has {len(graph)} rows of {graph.ndim} numbers, the vectors beside it "
                f"{len(scan)} of {scan.codes().shape[1]}: {remedy}"
            )
        return cls(folder, scan, graph, is_mapped=True)

    def __len__(self) -> int:
        return len(self._graph)

    def extend(self, progress: Callable[[int], None] | None = None) -> None:
        """Take in the rows that the scan has since gained. The file is replaced at the end."""
        import torch

        if self._is_mapped:
            self._graph.load(self._file)
            self._is_mapped = False
        codes = self._scan.codes()
        for start in range(len(self), len(self._scan), BLOCK):
            block = np.ascontiguousarray(codes[start : start + BLOCK])
            keys = np.arange(start, start + len(block), dtype=np.uint64)
            self._graph.add(keys, block, threads=torch.get_num_threads())
            if progress is not None:
                progress(len(self))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".partial")
        self._graph.save(partial)
        partial.replace(self._file)

    def search(self, queries: Floats, k: int, mask: Mask | None = None) -> Neighbours:
        """About the `k` rows with the largest cosines, which are exact, to queries (q, D).

        The graph knows of no filter: under one it is asked for more, in proportion, and where a
        filter leaves few rows these are scanned. `mask`: (n,), True for rows that may be found.
        """
        n = len(self._scan)
        allowed = n if mask is None else int(np.count_nonzero(mask))
        if not len(self) or (mask is not None and allowed <= SCANNED):
            return self._scan.search(queries, k, [mask])[0]
        candidates = self._candidates(queries, min(len(self), SPARE * k * n // allowed))
        if mask is not None:
            candidates[~mask[candidates]] = -1
        if len(self) < n:
            later = np.arange(n) >= len(self)
            later = later if mask is None else later & mask
            places = self._scan.search(queries, k, [later])[0].places
            candidates = np.concatenate([candidates, places], axis=1)
        found = self._scan.compare(queries, candidates, k)
        if mask is not None and (found.places < 0).any():  # its rows lie far from the query
            return self._scan.search(queries, k, [mask])[0]
        return found

    def _candidates(self, queries: Floats, count: int) -> Places:
        """Places (q, c) in the graph; -1 where it found no more."""
        import torch

        self._graph.expansion_search = max(BREADTH, count)
        codes = code_queries(queries, 0.0).codes
        found = self._graph.search(codes, count, threads=torch.get_num_threads())
        keys = np.asarray(found.keys).astype(np.int64).reshape(len(queries), -1)
        counts = np.asarray(getattr(found, "counts", keys.shape[1])).reshape(-1, 1)
        keys[np.arange(keys.shape[1]) >= counts] = -1
        return keys

    def recall(self, queries: Floats, k: int) -> float:
        """The share of the exact scan's neighbours of queries (q, D) that are found."""
        exact = self._scan.search(queries, k)[0].places
        found = self.search(queries, k).places
        wanted = exact >= 0
        hits = (exact[:, :, None] == found[:, None, :]).any(2)
        return float(hits[wanted].mean())


def _graph(scan: Scan) -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise OmniAlignError(
            f"usearch is not installed ({error}): pip install 'omnialign[index]'"
        ) from error
    return Index(ndim=scan.codes().shape[1], metric="ip", dtype="i8")
