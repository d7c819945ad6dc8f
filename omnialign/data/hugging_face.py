"""The source `datasets`: what the library Hugging Face `datasets` loads, by its memory map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnialign.contract import Source
from omnialign.data.arrow_cells import ArrowCells
from omnialign.data.shards import LazyRow
from omnialign.errors import DataError, choices


class HuggingFace(Source):
    """A dataset of Hugging Face: a folder that `save_to_disk` wrote, or one of data files.

    With `repository` instead of `path` one of the hub, downloaded once. Files stay undecoded bytes,
    which the modality reads; class labels are their names.
    """

    def __init__(
        self,
        path: str | None = None,
        repository: str | None = None,
        split: str | None = None,
        config: str | None = None,
    ) -> None:
        """Needs `pip install omnialign[datasets]`.

        Args:
            path: a folder that `save_to_disk` wrote, or one of data files.
            repository: of the hub.
            split: of the dataset; by default `train`, or the only one that `save_to_disk` wrote.
            config: of the dataset, where it has several.

        Raises:
            DataError: no such dataset or split.
        """
        where = place_of(path, repository)
        self._options = path, repository, split, config
        dataset, found = loaded(where, split, config)
        table = dataset.with_format("arrow")[:]
        self._cells = HuggingFaceCells(table, dataset.features, f"datasets {where}, {found}")
        self.root = Path(path) if path else None

    def __reduce__(self) -> Any:
        return HuggingFace, self._options

    @property
    def columns(self) -> Sequence[str]:
        return self._cells.columns

    def __len__(self) -> int:
        return self._cells.num_rows

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return LazyRow(self._cells, range(len(self))[index])


def place_of(path: str | None, repository: str | None) -> str:
    """Whichever is given; raises `DataError` unless it is one of them."""
    where = path or repository
    if where is None or (path and repository):
        raise DataError("a dataset wants either path (local) or repository (of the hub)")
    return where


class HuggingFaceCells(ArrowCells):
    """Cells of an Arrow table; class labels are their names."""

    def __init__(
        self, table: Any, features: Mapping[str, Any] | None, name: str, first_row: int = 0
    ) -> None:
        super().__init__({column: table[column] for column in table.column_names})
        self.num_rows: int = table.num_rows
        self._name, self._first_row = name, first_row
        self._labels = {
            column: feature.names
            for column, feature in (features or {}).items()
            if hasattr(feature, "int2str")
        }

    def place(self, index: int) -> str:
        return f"{self._name}: row {self._first_row + index}"

    def has(self, index: int, column: str) -> bool:
        # -1 is a class label that is unknown
        known = column not in self._labels or self.scalar(index, column).as_py() != -1
        return known and super().has(index, column)

    def value(self, index: int, column: str) -> Any:
        value = super().value(index, column)
        return self._labels[column][value] if column in self._labels else value


def loaded(
    where: str, split: str | None, config: str | None, streaming: bool = False
) -> tuple[Any, str]:
    """A `Dataset`, or an `IterableDataset`, and its split; raises `DataError`.

    Without `split` that is `train`, or the only one that `save_to_disk` wrote.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"source 'datasets' needs the library datasets ({error}); "
            "pip install 'omnialign[datasets]'"
        ) from None
    marks = [Path(where, name) for name in ("state.json", "dataset_dict.json")]
    name = split or "train"
    try:
        if not any(mark.is_file() for mark in marks):
            return datasets.load_dataset(where, config, split=name, streaming=streaming), name
        saved: Any = datasets.load_from_disk(where)
    except Exception as error:
        raise DataError(
            f"datasets cannot load split '{name}' of {where}: {type(error).__name__}: {error}"
        ) from error
    splits: dict[str, Any] = saved
    if isinstance(saved, datasets.Dataset):
        splits = {str(saved.split or ""): saved}
    hint = ""
    if len(splits) == 1:
        name = split or next(iter(splits))
        hint = "; or leave split out"
    if name not in splits:
        raise DataError(
            f"{where} has no split '{name}'; {choices(name, filter(None, splits))}{hint}"
        )
    return splits[name].to_iterable_dataset() if streaming else splits[name], name or "all rows"
