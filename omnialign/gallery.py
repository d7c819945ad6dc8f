"""What is searched: items with their modalities, and what was passed over with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from omnialign.errors import ModalityError, OmniAlignError
from omnialign.registry import registry


@dataclass(frozen=True)
class Hit:
    """A found item: its place in the gallery, itself (a path, or what was given), its cosine."""

    index: int
    item: Any
    modality: str
    score: float


@dataclass
class Gallery:
    """Items to search, their modalities, and what was passed over with the reason."""

    items: list[Any] = field(default_factory=list[Any])
    modalities: list[str] = field(default_factory=list[str])
    skipped: dict[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def gather(
        cls, source: Sequence[Any] | str | Path, among: Sequence[str], only: str | None = None
    ) -> Self:
        """Items of a list, or all files below a folder.

        Args:
            source: a folder, or items.
            among: the modalities to decide between.
            only: of a list, the modality of all items; of a folder, the only one that is kept. It
                also settles files that could be another's.

        In a folder, files of no known modality are passed over; in a list they are an error.
        """
        if not isinstance(source, str | Path):
            named = [(only, i) if only else registry().decide(i, among) for i in source]
            return cls([item for _, item in named], [name for name, _ in named])
        found = cls()
        for file in _files(Path(source)):
            try:
                name, _ = registry().decide(file, among)
            except ModalityError as error:
                if only is None or not _has_suffix(file, only):
                    found.skipped[str(file)] = str(error)
                    continue
                name = only
            if only in (None, name):
                found.items.append(file)
                found.modalities.append(name)
        return found

    def without(self, unreadable: dict[int, str]) -> Self:
        """The gallery without some places, which move to `skipped` with their reasons."""
        keep = [i for i in range(len(self.items)) if i not in unreadable]
        skipped = {str(self.items[i]): reason for i, reason in unreadable.items()}
        return type(self)(
            [self.items[i] for i in keep],
            [self.modalities[i] for i in keep],
            {**self.skipped, **skipped},
        )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise OmniAlignError(f"the gallery '{folder}' is not a folder")
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _has_suffix(item: Any, modality: str) -> bool:
    return Path(item).suffix.lower() in registry().modality(modality).suffixes
