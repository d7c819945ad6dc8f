"""Rows of a recipe: a source, filtered, with a column for each modality."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omnialign.contract import Blob, Modality, Source
from omnialign.errors import DataError, ReadError, choices
from omnialign.recipe import Recipe, Rows, Scalar
from omnialign.registry import Registry, registry

DEFAULT_COLUMN = "file_name"
"""Where a modality's files are when no column bears its name (the Hugging Face convention)."""
MAX_WEIGHT = 1e30
"""Of a row: float32 holds the sum of many."""

Where = Mapping[str, Scalar | list[Scalar]]


@dataclass(frozen=True)
class Item:
    """Something to read, and its name; bytes have none, and are told by what they hold."""

    value: Any
    name: str | None

    @cached_property
    def identity(self) -> str:
        """What equal items share; of bytes that cannot be read, where they lie."""
        return _content(self.value) if self.name is None else self.name

    def held(self) -> Item:
        """The same with the bytes of a `Blob` in memory, for who takes identity and value.

        Raises `ReadError`.
        """
        return replace(self, value=self.value.held()) if isinstance(self.value, Blob) else self


class PairRows:
    """The rows of `rows` that have an item of every one of `modalities`; picklable.

    Args:
        recipe: that names the source.
        rows: which of it.
        modalities: what a row has items of.
        plugins: the installed ones by default.
        weights: the column with each row's share in a mean; by default all weigh 1.

    Raises:
        DataError: a column is missing, no row is left, or a row's weight is no number from 0 to
            `MAX_WEIGHT`; the rows of a stream are looked at when they are read.
    """

    def __init__(
        self,
        recipe: Recipe,
        rows: Rows,
        modalities: Sequence[str],
        plugins: Registry | None = None,
        weights: str | None = None,
    ) -> None:
        plugins = plugins or registry()
        choice = recipe.data[rows.data].source
        self.name = rows.data
        self.source: Source = plugins.source(choice.name)(**choice.options)
        self._modalities: dict[str, Modality[Any]] = {m: plugins.modality(m) for m in modalities}
        self._columns = {m: self._column(m, rows.columns) for m in modalities}
        self._weights = weights
        self.check_columns([*rows.where, *([weights] if weights else [])])
        self._indices: Sequence[int] = range(len(self.source))
        if self.source.shuffle_window is None:
            self._indices = [i for i in self._indices if self._wanted(i, rows.where)]
        elif rows.where:
            raise DataError(
                f"data '{rows.data}' is a stream, which has no `where`; filter it where it is made"
            )
        if not self._indices:
            found = "; ".join(
                f"{column} is {_summary(self.source, column)}" for column in rows.where
            )
            raise DataError(
                f"data '{rows.data}': no row has {' and '.join(self._columns.values())}"
                + (f" where {dict(rows.where)}; {found}" if rows.where else "")
            )
        if weights is not None and self.source.shuffle_window is None:
            self._check_weights()

    def _column(self, modality: str, columns: Mapping[str, str]) -> str:
        kind, found = self._modalities[modality], self.source.columns
        by_suffix = [column for column in found if f".{column}" in kind.suffixes]
        if modality in columns:
            column = columns[modality]
        elif modality in found:
            column = modality
        elif DEFAULT_COLUMN in found and not kind.inline_strings:
            column = DEFAULT_COLUMN
        else:
            column = by_suffix[0] if len(by_suffix) == 1 else modality
        if column not in found:
            raise DataError(
                f"data '{self.name}' has no column '{column}' for {modality}; name it in the "
                f'recipe, as in columns = {{ {modality} = "..." }}; '
                f"{choices(column, self.source.columns)}"
            )
        return column

    def check_columns(self, columns: Sequence[str]) -> None:
        """Raises `DataError` for one that the source does not have."""
        for column in columns:
            if column not in self.source.columns:
                raise DataError(
                    f"data '{self.name}' has no column '{column}'; "
                    f"{choices(column, self.source.columns)}"
                )

    def _wanted(self, index: int, where: Where) -> bool:
        row = self.source[index]
        return _matches(row, where) and all(c in row for c in self._columns.values())

    def __len__(self) -> int:
        return len(self._indices)

    def value(self, index: int, column: str) -> Any:
        """The plain value of a column."""
        self.check_columns([column])
        return self.row(index).get(column)

    def row(self, index: int) -> Mapping[str, Any]:
        return self.source[self._indices[index]]

    def number(self, index: int) -> int:
        """The place of a row in its source."""
        return self._indices[index]

    @property
    def are_weighted(self) -> bool:
        return self._weights is not None

    def weight(self, index: int, row: Mapping[str, Any] | None = None) -> float:
        """The share of a row in a mean; `row` as for `items`. Raises `DataError`."""
        if self._weights is None:
            return 1.0
        found = (self.row(index) if row is None else row).get(self._weights)
        try:
            weight = math.nan if isinstance(found, bool) else float(found)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            weight = math.nan
        if not 0 <= weight <= MAX_WEIGHT:
            raise DataError(
                f"data '{self.name}', row {self._indices[index]}: {self._weights} is {found!r}, "
                f"and a weight is a number from 0 to {MAX_WEIGHT:g}; correct it there, or leave "
                "the row out"
            )
        return weight

    def _check_weights(self) -> None:
        if not max(self.weight(index) for index in range(len(self))):
            raise DataError(
                f"data '{self.name}': {self._weights} is 0 in all {len(self)} rows; one at least "
                "has to count"
            )

    def items(
        self,
        index: int,
        modality: str,
        row: Mapping[str, Any] | None = None,
        column: str | None = None,
    ) -> list[Item]:
        """All items of a row for a modality: one, or several captions; none where it is empty.

        `row` is what it holds, if that is known already; `column` is another than the modality's.
        """
        column = column or self._columns[modality]
        value = (self.row(index) if row is None else row).get(column)
        values = list(value) if isinstance(value, list) else [value]
        return [
            self._item(entry, f"{column}:{self._indices[index]}:{place}", modality)
            for place, entry in enumerate(values)
            if entry is not None
        ]

    def _item(self, value: Any, place: str, modality: str) -> Item:
        if isinstance(value, str):
            root = self.source.root or Path()
            kind = self._modalities[modality]
            is_path = not kind.inline_strings or (
                os.path.splitext(value)[1].lower() in kind.suffixes and os.path.isfile(root / value)
            )
            return Item(root / value, str(root / value)) if is_path else Item(value, value)
        if isinstance(value, Blob | bytes):
            return Item(value, None)
        return Item(value, f"{self.name}:{place}")


def identity_number(item: Item) -> int:
    """A 63-bit number that equal items share."""
    digest = hashlib.blake2b(item.identity.encode("utf-8", "surrogatepass"), digest_size=8)
    return int.from_bytes(digest.digest(), "big") >> 1


def _content(value: Blob | bytes) -> str:
    """The identity of bytes, which equal bytes share; of what cannot be read, its name."""
    try:
        data = value.read() if isinstance(value, Blob) else value
    except ReadError as error:
        return error.source
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _matches(row: Mapping[str, Any], where: Where) -> bool:
    return all(
        row.get(column) in wanted if isinstance(wanted, list) else row.get(column) == wanted
        for column, wanted in where.items()
    )


def _summary(source: Source, column: str) -> str:
    counts = Counter(repr(source[i].get(column)) for i in range(len(source)))
    shown = ", ".join(f"{value} ({n})" for value, n in counts.most_common(5))
    return shown + (", …" if len(counts) > 5 else "")
