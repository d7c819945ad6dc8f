"""The source `datasets-stream`: an `IterableDataset`, read in order and kept in no place.

An epoch goes through the stream in stretches of `shuffle_window` rows, which are shuffled inside.
So the order is a function of seed and step here too, and a resumed run skips to its stretch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omnialign.contract import Blob, Source
from omnialign.data.hugging_face import HuggingFaceCells, loaded, place_of
from omnialign.errors import DataError


class HuggingFaceStream(Source):
    """A dataset of Hugging Face that is not downloaded: `path` or `repository` as of `datasets`.

    Every process reads the whole stream, and takes its share of each batch. Files stay undecoded.
    """

    def __init__(
        self,
        path: str | None = None,
        repository: str | None = None,
        split: str | None = None,
        config: str | None = None,
        num_rows: int | None = None,
        shuffle_window: int = 1000,
    ) -> None:
        """Needs `pip install omnialign[datasets]`.

        Args:
            path: a folder of data files, or one that `save_to_disk` wrote.
            repository: of the hub.
            split: of the dataset; by default `train`, or the only one that `save_to_disk` wrote.
            config: of the dataset, where it has several.
            num_rows: to read of the stream; only needed where the dataset does not say it.
            shuffle_window: rows, undecoded, that are held in memory and shuffled.

        Raises:
            DataError: no such dataset, or its number of rows is not known.
        """
        where = place_of(path, repository)
        self._dataset, found = loaded(where, split, config, streaming=True)
        self._name = f"datasets {where}, {found}"
        self.root = Path(path) if path else None
        self.shuffle_window = self._window = shuffle_window
        stated = (self._dataset.info.splits or {}).get(found)
        self._num_rows = num_rows or (stated.num_examples if stated else 0)
        if self._num_rows < 1 or shuffle_window < 1:
            raise DataError(
                f"{self._name} does not say how many rows it has; give num_rows (and a "
                f"shuffle_window of at least 1)"
            )
        self._blocks: Iterator[Any] = iter(())
        self._block, self._cells = -1, None
        self._columns = self._at(0).columns

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_blocks": iter(()), "_block": -1, "_cells": None}

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Quick inside of a stretch and forwards; backwards the stream is opened anew."""
        block, place = divmod(range(len(self))[index], self._window)
        cells = self._at(block)
        if place >= cells.num_rows:
            raise self._ended(index)
        names = [column for column in cells.columns if cells.has(place, column)]
        return {name: _held(cells.value(place, name)) for name in names}

    def _at(self, block: int) -> HuggingFaceCells:
        """The rows of a stretch."""
        if self._cells is not None and block == self._block:
            return self._cells
        first_row = block * self._window
        if self._cells is None or block != self._block + 1:
            rest = self._dataset.skip(first_row)
            self._blocks = rest.with_format("arrow").iter(batch_size=self._window)
        table = next(self._blocks, None)
        if table is None:
            raise self._ended(first_row)
        self._block = block
        self._cells = HuggingFaceCells(table, self._dataset.features, self._name, first_row)
        return self._cells

    def _ended(self, index: int) -> DataError:
        return DataError(f"{self._name} ends before row {index}; num_rows is {len(self)}")


def _held(value: Any) -> Any:
    """With every `Blob` in memory, so that another process needs no stream."""
    if isinstance(value, list):
        return [_held(entry) for entry in value]
    return value.held() if isinstance(value, Blob) else value
