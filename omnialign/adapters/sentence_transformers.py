"""A space as a model of sentence-transformers.

Axes: n items, s stretches of all items, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modality import infer_batch_modality
from sentence_transformers.base.modality_types import MULTIMODAL_DICT_KEYS
from sentence_transformers.base.modules import InputModule
from torch.nn import functional as F  # noqa: N812

from omnialign.adapters import as_space
from omnialign.errors import ModelError
from omnialign.model_folder import load
from omnialign.space import SharedSpace
from omnialign.tower import prefix

STRETCHES_IN_ONE_FORWARD = 64


def as_sentence_transformer(model: SharedSpace | str | Path) -> SentenceTransformer:
    """A space as a `SentenceTransformer`, whose `encode` agrees with `SharedSpace.embed`.

    What its `save` writes is both: a folder for `SentenceTransformer`, which wants
    `trust_remote_code=True` for modules of other packages, and one for `omnialign.load`.

    Raises:
        ModalityError: no modality of the space takes words.
    """
    space = as_space(model)
    return SentenceTransformer(modules=[SpaceModule(space)], device=str(space.device))


class SpaceModule(InputModule):
    """The one module of such a model: from items to embeddings.

    A string is words to it, unless it names a file or an address of a modality that
    sentence-transformers knows and the space has. Gradients go through `forward`.
    """

    def __init__(self, space: SharedSpace) -> None:
        super().__init__()
        self.space = space
        self.words = space.words

    @property
    def modalities(self) -> list[Any]:
        """What sentence-transformers has a name for; whatever takes words is its text."""
        shared = [name for name in self.space.modalities if name in MULTIMODAL_DICT_KEYS]
        return [*super().modalities, *(name for name in shared if name != self.words)]

    def preprocess(
        self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Items of one modality to the inputs of its encoder; `prompt` is put before words.

        Raises `ReadError` for an item that cannot be read: empty words, say.
        """
        del kwargs
        name = infer_batch_modality(inputs, supported_modalities=self.modalities)
        items = [item[name] if isinstance(item, dict) and name in item else item for item in inputs]
        if name in super().modalities:
            name = self.words
            items = [f"{prompt or ''}{item}" if isinstance(item, str) else item for item in items]
        pipeline = self.space.tower(str(name)).pipeline
        found = [pipeline.inputs(pipeline.read(item)) for item in items]
        stretches = [one for own in found for one in own]
        return {
            "modality": name,
            "batches": [
                pipeline.collate(stretches[start : start + STRETCHES_IN_ONE_FORWARD])
                for start in range(0, len(stretches), STRETCHES_IN_ONE_FORWARD)
            ],
            "owners": torch.tensor([i for i, own in enumerate(found) for _ in own]),
            "num_items": len(items),
        }

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds `sentence_embedding`, unit vectors `(n, D)`."""
        del kwargs
        tower = self.space.tower(features["modality"])
        stretches = torch.cat([tower(batch).float() for batch in features["batches"]])
        sums = stretches.new_zeros(features["num_items"], stretches.shape[1])
        sums = sums.index_add(0, features["owners"].to(sums.device), stretches)
        features["sentence_embedding"] = prefix(F.normalize(sums, dim=-1), self.space.dim)
        return features

    def get_embedding_dimension(self) -> int:
        return self.space.dim

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> None:
        """Writes what `omnialign.load` reads, always as safetensors."""
        del args, kwargs
        self.space.save(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Reads it again, from a folder or the hub; sentence-transformers chooses the device."""
        del init_defaults, kwargs
        folder = cls.load_dir_path(
            model_name_or_path,
            subfolder,
            token=token,
            cache_folder=cache_folder,
            revision=revision,
            local_files_only=local_files_only,
        )
        if folder is None:
            raise ModelError(f"'{model_name_or_path}' has no folder '{subfolder}' with a model")
        return cls(load(folder, "cpu"))
