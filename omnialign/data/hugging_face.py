"""The source `datasets`: what the library Hugging Face `datasets` loads, by its memory map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnialign.contract import Source
from omnialign.data.arrow_cells import ArrowCells
from omnialign.data.shards import LazyRow
from omnialign.errors import DataError


class HuggingFace(Source):
    """A dataset of Hugging Face: a folder that `save_to_disk` wrote, or one of data files.

    With `repository` instead of `path` one of the hub, downloaded once. Files stay undecoded bytes,
    which the modality reads; class labels are their names.
    """

    def __init__(
        self,
        path: str | None = None,
        repository: str | None = None,
        split: str = "train",
        config: str | None = None,
    ) -> None:
        """Needs `pip install omnialign[datasets]`.

        Raises:
            DataError: no such dataset or split.
        """
        if (path is None) == (repository is None):
            raise DataError(
                "source 'datasets' wants either path (local) or repository (of the hub)"
            )
        self._options = path, repository, split, config
        where = path or repository or ""
        self._cells = _Cells(_loaded(where, split, config), f"datasets {where}, {split}")
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


class _Cells(ArrowCells):
    def __init__(self, dataset: Any, name: str) -> None:
        table = dataset.with_format("arrow")[:]
        super().__init__({column: table[column] for column in table.column_names})
        self.num_rows = table.num_rows
        self._name = name
        self._labels = {
            column: feature.names
            for column, feature in dataset.features.items()
            if hasattr(feature, "int2str")
        }

    def place(self, index: int) -> str:
        return f"{self._name}: row {index}"

    def has(self, index: int, column: str) -> bool:
        # -1 is a class label that is unknown
        known = column not in self._labels or self.scalar(index, column).as_py() != -1
        return known and super().has(index, column)

    def value(self, index: int, column: str) -> Any:
        value = super().value(index, column)
        return self._labels[column][value] if column in self._labels else value


def _loaded(where: str, split: str, config: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"source 'datasets' needs the library datasets ({error}); "
            "pip install 'omnialign[datasets]'"
        ) from None
    marks = [Path(where, name) for name in ("state.json", "dataset_dict.json")]
    try:
        if any(mark.is_file() for mark in marks):
            found = datasets.load_from_disk(where)
            return found[split] if isinstance(found, datasets.DatasetDict) else found
        return datasets.load_dataset(where, config, split=split)
    except Exception as error:
        raise DataError(
            f"datasets cannot load split '{split}' of {where}: {type(error).__name__}: {error}"
        ) from error
