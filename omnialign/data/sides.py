"""One side of a pair: from a drawn row to an input of its encoder, or to what is stored of it.

Axes: w width of features.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from omnialign.data.features import StoredRows
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import Item, PairRows, identity_number
from omnialign.errors import ReadError

Content = Mapping[str, Any] | None
"""Of a stream's row, which only the main process reads."""


@dataclass(frozen=True)
class Unreadable:
    """A row that was set aside, or a hard negative, whose row stays."""

    row: int
    source: str
    reason: str
    is_negative: bool = False


@dataclass(frozen=True)
class Example:
    """One encoder input, the identity of its item, and which of its segments it is."""

    value: Any
    identity: int
    segment: int


class Side(Protocol):
    """Gives the example of a row; of several items and segments, those that are drawn."""

    def example(
        self, row: int, generator: torch.Generator, content: Content = None
    ) -> Example | Unreadable | None:
        """None where the row has no item."""
        ...

    def collate(self, values: list[Any]) -> Any: ...


class ReadSide:
    """Reads, augments and preprocesses an item of the row; `column` as for `PairRows.items`."""

    def __init__(
        self, rows: PairRows, pipeline: Pipeline, cache: SampleCache, column: str | None = None
    ) -> None:
        self.rows = rows
        self.pipeline = pipeline
        self._cache = cache
        self._column = column

    def items(self, row: int, content: Content = None) -> list[Item]:
        return self.rows.items(row, self.pipeline.modality.name, content, self._column)

    def example(
        self, row: int, generator: torch.Generator, content: Content = None
    ) -> Example | Unreadable | None:
        items = self.items(row, content)
        if not items:
            return None
        try:
            item = items[_drawn(len(items), generator)].held()
            value, segment = self.pipeline.training_input(self._sample(item), generator)
        except ReadError as error:
            return Unreadable(row, error.source, error.reason)
        return Example(value, identity_number(item), segment)

    def _sample(self, item: Item) -> Any:
        key = (self.pipeline.modality.name, item.identity)
        sample = self._cache.get(key)
        if sample is None:
            sample = self.pipeline.open(item.value)
            self._cache.put(key, sample)
        return sample

    def collate(self, values: list[Any]) -> Any:
        return self.pipeline.collate(values)


class StoredSide:
    """Draws as `ReadSide` does without augmentations, and gives stored features `(w,)`.

    Args:
        starts: where the items of each row begin, and where those of the last row end.
        identities: of each item.
        first: the stored row of the first segment of each item.
        num_segments: of each item; 0 where it cannot be read.
        unreadable: why, by the place of the item.
        stored: the features.
    """

    def __init__(
        self,
        starts: np.ndarray[Any, Any],
        identities: np.ndarray[Any, Any],
        first: np.ndarray[Any, Any],
        num_segments: np.ndarray[Any, Any],
        unreadable: Mapping[int, tuple[str, str]],
        stored: StoredRows,
    ) -> None:
        self._starts = starts
        self._identities = identities
        self._first = first
        self._num_segments = num_segments
        self._unreadable = unreadable
        self._stored = stored

    def example(
        self, row: int, generator: torch.Generator, content: Content = None
    ) -> Example | Unreadable | None:
        del content
        start, end = int(self._starts[row]), int(self._starts[row + 1])
        if start == end:
            return None
        place = start + _drawn(end - start, generator)
        if place in self._unreadable:
            return Unreadable(row, *self._unreadable[place])
        segments = int(self._num_segments[place])
        segment = _drawn(segments, generator) if segments > 1 else 0
        features = self._stored[int(self._first[place]) + segment]
        return Example(features, int(self._identities[place]), segment)

    def collate(self, values: list[Tensor]) -> Tensor:
        return torch.stack(values)


def _drawn(num: int, generator: torch.Generator) -> int:
    return int(torch.randint(num, (), generator=generator))


class SampleCache:
    """Samples in memory, up to a number of bytes; what comes later is not kept."""

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._samples: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self._samples.get(key)

    def put(self, key: Any, sample: Any) -> None:
        if self._free <= 0:
            return
        self._free -= len(pickle.dumps(sample, protocol=pickle.HIGHEST_PROTOCOL))
        if self._free > 0:
            self._samples[key] = sample

    def __getstate__(self) -> dict[str, Any]:
        return {"_free": self._free, "_samples": {}}
