"""Exact search over memory-mapped vectors.

Axes: q queries, n vectors, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Scan:
    def __init__(self, folder: Path, dim: int) -> None:
        self._file = folder / "vectors.float32"
        self._dim = dim
        self._file.touch()

    @classmethod
    def open(cls, folder: Path, dim: int, device: str | None = None) -> Scan:
        return cls(folder, dim)

    def __len__(self) -> int:
        return self._file.stat().st_size // (4 * self._dim)

    def append(self, vectors: Array) -> None:
        with self._file.open("ab") as file:
            file.write(vectors.astype(np.float32).tobytes())

    def truncate(self, n: int) -> None:
        with self._file.open("r+b") as file:
            file.truncate(n * 4 * self._dim)

    def search(
        self, queries: Array, k: int, masks: Sequence[Array | None] = (None,)
    ) -> list[tuple[Array, Array]]:
        n = len(self)
        vectors = np.fromfile(self._file, np.float32).reshape(n, self._dim)
        cosines = queries @ vectors.T
        found: list[tuple[Array, Array]] = []
        for mask in masks:
            own = cosines if mask is None else np.where(mask, cosines, -np.inf)
            order = np.argsort(-own, axis=1, kind="stable")[:, :k]
            best = np.take_along_axis(own, order, 1)
            places = np.where(np.isinf(best), -1, order)
            pad = ((0, 0), (0, max(0, k - order.shape[1])))
            found.append(
                (
                    np.pad(best, pad, constant_values=-np.inf),
                    np.pad(places, pad, constant_values=-1),
                )
            )
        return found
