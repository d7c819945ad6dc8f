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
            only: keep this modality alone; it also settles items that could be another's.

        In a folder, files of no known modality are passed over; in a list they are an error.
        """
        folder = isinstance(source, str | Path)
        listed = _files(Path(source)) if isinstance(source, str | Path) else source
        found = cls()
        for item in listed:
            try:
                name, readable = registry().decide(item, among)
            except ModalityError as error:
                if only is not None and (not folder or _has_suffix(item, only)):
                    name, readable = only, item
                elif folder:
                    found.skipped[str(item)] = str(error)
                    continue
                else:
                    raise
            if only in (None, name):
                found.items.append(readable)
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
