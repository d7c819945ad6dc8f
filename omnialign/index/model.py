"""The model of a library: which one it is, and no more of it in memory than is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omnialign.errors import ModalityError, ModelError
from omnialign.model_folder import load
from omnialign.registry import registry
from omnialign.space import SharedSpace, words_among


@dataclass(frozen=True)
class ModelRecord:
    """What a library keeps of the model that its vectors come from."""

    source: str
    """What `omnialign.load` takes; a folder as an absolute path."""
    dim: int
    fingerprint: str
    towers: dict[str, str]
    """The fingerprint of each tower, by modality."""
    bf16: bool = False
    """Whether files are embedded with products in 16 bits."""

    @classmethod
    def of(cls, space: SharedSpace, source: str | Path, *, bf16: bool = False) -> ModelRecord:
        return cls(
            absolute(source),
            space.dim,
            space.fingerprint(),
            {name: space.tower(name).fingerprint() for name in space.modalities},
            bf16,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def absolute(source: str | Path) -> str:
    return os.path.abspath(source) if os.path.exists(source) else str(source)


class LibraryModel:
    """Loads the towers that are wanted, and refuses those of another model."""

    def __init__(self, record: ModelRecord, source: str | Path | None = None) -> None:
        self.record = record
        self.source = record.source if source is None else absolute(source)
        self._space: SharedSpace | None = None

    @property
    def modalities(self) -> list[str]:
        return list(self.record.towers)

    def use(self, space: SharedSpace) -> None:
        """Takes a model that is loaded already."""
        self._check(space)
        self._space = space

    def space(self, modalities: Sequence[str] | None = None) -> SharedSpace:
        """The model with at least these towers; all by default.

        Raises:
            ModelError: it is not there, or not the one that the vectors come from.
        """
        wanted = self.modalities if modalities is None else list(modalities)
        for name in wanted:
            self.check_has(name)
        held = [] if self._space is None else self._space.modalities
        if self._space is None or not set(wanted) <= set(held):
            towers = [name for name in self.modalities if name in {*wanted, *held}]
            whole = len(towers) == len(self.modalities)
            try:
                space = load(self.source, dim=self.record.dim, modalities=None if whole else towers)
            except ModalityError as error:
                raise ModelError(f"{self._mismatch()}: {error}") from None
            self._check(space)
            self._space = space
        return self._space

    def decide(self, item: Any) -> str:
        """The modality of an item, among those of the model, before anything of it is loaded."""
        return registry().decide(item, self.modalities)[0]

    @property
    def words(self) -> str:
        """As `SharedSpace.words`, with nothing loaded."""
        return words_among({name: registry().modality(name) for name in self.modalities})

    def check_has(self, modality: str) -> None:
        if modality not in self.record.towers:
            raise ModalityError(
                f"the model of this library has no modality '{modality}'; it has: "
                f"{', '.join(self.modalities)}"
            )

    def _check(self, space: SharedSpace) -> None:
        for name in space.modalities:
            stated, found = self.record.towers.get(name), space.tower(name).fingerprint()
            if stated != found:
                raise ModelError(
                    f"{self._mismatch()}: its {name} tower has the fingerprint {found}, that of "
                    f"the library {stated}; give the model that the library was made with, or "
                    "embed everything again with this one: "
                    f"omnialign index --to LIBRARY --rebuild --model {self.source}"
                )

    def _mismatch(self) -> str:
        return f"'{self.source}' is not the model that the vectors of this library come from"
