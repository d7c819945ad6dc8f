"""A space as the embedding function `omnialign` of LanceDB's registry.

A table keeps the name of its function, not its code: whoever opens one imports this module first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lancedb.embeddings import EmbeddingFunction, register
from pydantic import PrivateAttr

from omnialign.errors import ModelError
from omnialign.model_folder import load
from omnialign.space import SharedSpace


@register("omnialign")
class OmniAlignFunction(EmbeddingFunction):
    """Embeds a column when rows are added, and what is asked.

    Options of `create`, which a table keeps:
        model: what `omnialign.load` takes; an absolute path, to be found from elsewhere.
        modality: of the column, which holds paths, bytes or words; by default words.
        dim: a size that the model was trained for; by default the largest.

    A table also keeps the model's fingerprint. If another model lies there when it is needed, that
    is a `ModelError`, because its vectors could not be compared with those of the table.
    """

    model: str
    modality: str | None = None
    dim: int | None = None
    fingerprint: str | None = None
    max_retries: int = 0
    """LanceDB's own: what fails here would fail again."""
    _space: SharedSpace | None = PrivateAttr(None)

    @classmethod
    def create(cls, **kwargs: Any) -> OmniAlignFunction:
        function = super().create(**kwargs)
        if function.fingerprint is None:
            function.fingerprint = function.space.fingerprint()
            function._original_args = {**kwargs, "fingerprint": function.fingerprint}
        return function

    @property
    def space(self) -> SharedSpace:
        """The model, loaded when it is first needed."""
        if self._space is None:
            space = load(self.model, dim=self.dim)
            space.tower(self.modality or space.words)
            if self.fingerprint not in (None, space.fingerprint()):
                raise ModelError(
                    f"{self.model} is not the model that the vectors of this table come from; put "
                    "that one back, or make the table again"
                )
            self._space = space
        return self._space

    def ndims(self) -> int:
        return self.space.dim

    def compute_source_embeddings(self, values: Any, *_: Any, **__: Any) -> list[Any]:
        """Float32 unit vectors of a column's values; None of a value that is missing."""
        items = self.sanitize_input(values)
        there = [item for item in items if item is not None]
        vectors = iter(self._embed(there, self.modality or self.space.words))
        return [None if item is None else next(vectors) for item in items]

    def compute_query_embeddings(self, query: Any, *_: Any, **__: Any) -> list[Any]:
        """Of words, or of something else of the column's modality."""
        is_words = isinstance(query, str)
        return self._embed([query], self.space.words if is_words else self.modality)

    def _embed(self, items: list[Any], modality: str | None) -> list[np.ndarray[Any, Any]]:
        return [*self.space.embed(items, modality).numpy()]
