"""A library that is asked: files of any modality, found by words or by each other.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omnialign.calibration import FittedScores
from omnialign.errors import OmniAlignError
from omnialign.index import scoring
from omnialign.index.adding import SET_ASIDE
from omnialign.index.model import LibraryModel, ModelRecord
from omnialign.index.rows import WITHOUT_VECTORS, file_of, vectors_of
from omnialign.index.searching import Hit, hit_of, nearest_files
from omnialign.index.store import Array, Rows, Store, open_store
from omnialign.index.where import ROW_COLUMNS, Where

if TYPE_CHECKING:
    from omnialign.contract import Preview
    from omnialign.space import SharedSpace

ABOUT = "about"
FORMAT = 1


class Library:
    """What lies at a place, as far as it is only read; `Index` also changes it."""

    def __init__(self, store: Store, model: str | Path | None = None) -> None:
        """Use `create` and `open`."""
        self._store = store
        about = store.documents(ABOUT).get(ABOUT)
        if about is None:
            raise OmniAlignError(
                f"the library '{store.uri}' was not made to its end; remove it and make it again"
            )
        self._about = json.loads(about)
        if self._about["format"] != FORMAT:
            raise OmniAlignError(
                f"the library '{store.uri}' has format {self._about['format']}; this version of "
                f"OmniAlign reads {FORMAT}"
            )
        self.model = LibraryModel(ModelRecord(**self._about["model"]), model)

    @classmethod
    def open(cls, uri: str | Path, model: str | Path | None = None) -> Self:
        """A library that is there.

        Args:
            uri: where it lies.
            model: where its model lies now, if it is no longer where it was. Another model is
                refused when it is loaded.
        """
        store = open_store(str(uri))
        if not store.exists():
            raise OmniAlignError(
                f"no library at '{uri}'; make one: omnialign index PATH… --model RUN --to {uri}"
            )
        return cls(store, model)

    @staticmethod
    def exists(uri: str | Path) -> bool:
        """Whether a library lies there."""
        return open_store(str(uri)).exists()

    @property
    def uri(self) -> str:
        return self._store.uri

    @property
    def dim(self) -> int:
        return self.model.record.dim

    @property
    def version(self) -> str:
        """Another one after every change of the rows."""
        return self.rows.version

    @cached_property
    def rows(self) -> Rows:
        """The table itself."""
        return self._store.rows(self._about["table"], self.dim)

    def __len__(self) -> int:
        """The number of rows: segments."""
        return self.rows.count()

    @property
    def space(self) -> SharedSpace:
        """The whole model."""
        return self.model.space()

    @property
    def modalities(self) -> dict[str, int]:
        """How many rows each modality has."""
        return self.rows.modalities()

    @property
    def columns(self) -> dict[str, str]:
        """What a filter may ask for: the type of each column, of the metadata and of our own."""
        return {**self.rows.metadata_columns(), **ROW_COLUMNS}

    @property
    def set_aside(self) -> dict[str, str]:
        """Files that could not be read when they were last added, with the reason."""
        found = self._store.documents(SET_ASIDE)
        return {
            key.removeprefix(SET_ASIDE): json.loads(text)["reason"] for key, text in found.items()
        }

    @property
    def scores(self) -> FittedScores:
        """What makes cosines of several modalities compare."""
        return self.fitted.scores

    @cached_property
    def fitted(self) -> scoring.Fitted:
        """The scores, and what they are fitted to."""
        return scoring.Fitted.from_json(self._store.documents(scoring.SCORES)[scoring.SCORES])

    def _check_current(self) -> None:
        """Raises `OmniAlignError` where another process has rebuilt the library since."""
        about = self._store.documents(ABOUT).get(ABOUT)
        if about is None or json.loads(about) != self._about:
            raise OmniAlignError(
                f"the library '{self.uri}' was made anew since it was opened; open it again"
            )

    def search(
        self,
        query: Any,
        k: int = 10,
        *,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        minus: Any = None,
        query_modality: str | None = None,
        segments: bool = False,
    ) -> list[Hit]:
        """The `k` files that fit best, best first, each with its best segment.

        Args:
            query: words, or an item of any modality of the model; of a list, the mean.
            k: how many hits.
            modality: only of this one, or of these.
            where: a filter over `columns`, as in SQL: `label = 'pets' and year >= 2020`.
            minus: what is taken away from the query; one item or a list.
            query_modality: of all items of the query; decided by the plugins if None.
            segments: every segment by itself, also several of one file.
        """
        asked = _as_list(query)
        vector = self.embed(asked, query_modality).mean(0)
        names = {query_modality or self.model.decide(item) for item in asked}
        if minus is not None:
            vector = vector - self.embed(_as_list(minus), query_modality).mean(0)
        return self.search_vectors(
            _unit(vector)[None],
            k,
            modality=modality,
            where=where,
            segments=segments,
            query_modalities=[names.pop() if len(names) == 1 else None],
        )[0]

    def similar(
        self,
        row_id: str,
        k: int = 10,
        *,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        segments: bool = False,
    ) -> list[Hit]:
        """As `search`, with the vector of a row that is there; its file is not among the hits."""
        row = self._row(row_id, ["path", "modality", "vector"])
        (path,), (own,) = row.column("path").to_pylist(), row.column("modality").to_pylist()
        hits = self.search_vectors(
            vectors_of(row),
            k + (self.rows.find("path", [path], ["id"]).num_rows if segments else 1),
            modality=modality,
            where=where,
            segments=segments,
            query_modalities=[own],
        )[0]
        return [hit for hit in hits if file_of(hit.id) != file_of(row_id)][:k]

    def embed(self, queries: Sequence[Any], modality: str | None = None) -> Array:
        """Queries as unit vectors `(q, D)`; loads the towers that these take."""
        if not queries:
            raise OmniAlignError("the query is empty")
        names = [modality or self.model.decide(query) for query in queries]
        space = self.model.space(list(dict.fromkeys(names)))
        vectors = np.empty((len(queries), self.dim), np.float32)
        for name in space.modalities:
            places = [i for i, own in enumerate(names) if own == name]
            vectors[places] = space.embed([queries[i] for i in places], name).numpy()
        return vectors

    def search_vectors(
        self,
        vectors: Array,
        k: int = 10,
        *,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        segments: bool = False,
        query_modalities: Sequence[str | None] | None = None,
    ) -> list[list[Hit]]:
        """As `search`, for unit vectors `(q, D)`: a list of hits for each.

        `query_modalities`, one for each, make scores surer; None for a mixed query.
        """
        if k < 1:
            raise OmniAlignError(f"k is {k}; it is at least 1")
        self._check_current()
        vectors = np.require(vectors, np.float32, ["C", "W"])
        held = self.modalities
        wanted = self._wanted(modality, held)
        if not wanted:
            return [[] for _ in vectors]
        condition = self._condition(where)
        most = max(held[name] for name in wanted)
        return nearest_files(
            self.rows,
            vectors,
            k,
            wanted,
            most,
            condition,
            scores=self.scores,
            query_modalities=query_modalities or [None] * len(vectors),
            segments=segments,
        )

    def _wanted(self, modality: str | Sequence[str] | None, held: dict[str, int]) -> list[str]:
        if modality is None:
            return list(held)
        names = [modality] if isinstance(modality, str) else list(modality)
        for name in names:
            if name not in held:
                self.model.check_has(name)
        return [name for name in dict.fromkeys(names) if name in held]

    def _condition(self, where: str | None) -> Where | None:
        if where is None:
            return None
        return Where.parse(where, self.columns)

    def hit(self, row_id: str) -> Hit:
        """A row by its id, as a hit without scores (both 1)."""
        return hit_of(self._row(row_id, WITHOUT_VECTORS).to_pylist()[0], 1.0, 1.0)

    def _row(self, row_id: str, columns: Sequence[str]) -> Any:
        rows = self.rows.find("id", [row_id], columns)
        if not rows.num_rows:
            raise OmniAlignError(f"the library has no row '{row_id}'")
        return rows

    def preview(self, row_id: str) -> Preview:
        """A picture or a player of a row's file; raises `ReadError` where it cannot be read."""
        from omnialign.registry import registry

        row = self.hit(row_id)
        modality = registry().modality(row.modality)
        return modality.preview(modality.read(Path(row.path)))


def _as_list(query: Any) -> list[Any]:
    return list(query) if isinstance(query, list) else [query]


def _unit(vector: Array) -> Array:
    norm = float(np.linalg.norm(vector))
    if norm < 1e-6:
        raise OmniAlignError("the query and what is taken away from it are the same")
    return (vector / norm).astype(np.float32)
