"""Towers of models that have a configuration beside their weights."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from omnialign import Encoder
from omnialign_pretrained.places import Place, read_json


@dataclass(frozen=True)
class PlacedModel(ABC):
    """A model that was found: its place, its configuration, its weights."""

    CONFIG: ClassVar[str]
    """The name of the file."""

    place: Place
    config: dict[str, Any]
    weights: Path

    @classmethod
    @abstractmethod
    def find(cls, name: str, revision: str | None) -> Self:
        """Looks at the files, and reads no weights; raises `ModelError`."""

    @abstractmethod
    def load(self, towers: Mapping[str, PlacedTower]) -> dict[str, Tensor]:
        """Fills towers, by modality, and no others; gives what belongs to no tower."""


class PlacedTower(Encoder):
    """An encoder of such a model, which it is rebuilt from without its weights."""

    KIND: ClassVar[type[PlacedModel]]
    MODALITY: ClassVar[str]
    network: Any
    config: dict[str, Any]

    def __init__(self, model: str, revision: str | None = None) -> None:
        super().__init__()
        found = self.KIND.find(model, revision)
        self.config = found.config
        self.build(found.place)
        found.load({self.MODALITY: self})

    @abstractmethod
    def build(self, place: Place) -> None:
        """Makes the network and the preprocessing that `config` says, with fresh weights.

        `place` has what else is needed: the tokenizer.
        """

    @classmethod
    def built(cls, config: dict[str, Any], place: Place) -> Self:
        """With fresh weights."""
        tower = cls.__new__(cls)
        nn.Module.__init__(tower)
        tower.config = config
        tower.build(place)
        return tower

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch)

    def save_files(self, folder: Path) -> None:
        """What the model's own library would find in a folder, but the weights."""
        (folder / self.KIND.CONFIG).write_text(json.dumps(self.config, indent=2), "utf-8")

    @classmethod
    def from_files(cls, folder: Path, **origin: Any) -> Self:
        """Rebuilds it from `save_files`; where it came from is not used."""
        del origin
        return cls.built(read_json(folder / cls.KIND.CONFIG), Place(str(folder)))
