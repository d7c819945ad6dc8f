"""A library: files of any modality, kept as vectors that last, and asked in words.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from omnialign.errors import OmniAlignError
from omnialign.index.adding import SET_ASIDE, AddReport, Progress
from omnialign.index.collect import is_below
from omnialign.index.engines import add_files
from omnialign.index.model import LibraryModel, ModelRecord
from omnialign.index.rebuilding import embed_again, new_table, pending_key
from omnialign.index.removal import remove
from omnialign.index.rows import WITHOUT_VECTORS, file_of, vectors_of
from omnialign.index.searching import Hit, hit_of, nearest_files
from omnialign.index.store import Array, Rows, Store, open_store
from omnialign.index.where import ROW_COLUMNS, Where
from omnialign.model_folder import load

if TYPE_CHECKING:
    from omnialign.contract import Preview
    from omnialign.index.copying import Copied
    from omnialign.index.upkeep import Duplicates, Verified
    from omnialign.space import SharedSpace

ABOUT = "about"
FORMAT = 1
Paths = Sequence[str | Path] | str | Path


class Index:
    """A library of files in the space of one model.

    Where it lies is a folder, the URI of an object storage (`s3://…`), or `milvus://host:port/NAME`.
    Nothing of the model is in memory before something has to be embedded, and then only the towers
    that it takes.
    """

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
    def create(cls, uri: str | Path, model: str | Path, *, dim: int | None = None) -> Self:
        """A new, empty library.

        Args:
            uri: where it will lie.
            model: what `omnialign.load` takes.
            dim: of the vectors, where the model was trained for several; by default the largest.

        Raises:
            OmniAlignError: a library is there already.
            ModelError: the model cannot be loaded.
        """
        store = open_store(str(uri))
        if store.exists():
            raise OmniAlignError(
                f"'{uri}' already holds a library; add to it with Index.open, or choose another "
                "place"
            )
        space = load(model, dim=dim)
        about = _about(ModelRecord.of(space, model), new_table())
        store.write_documents({ABOUT: json.dumps(about)})
        index = cls(store)
        index.model.use(space)
        return index

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

    def add(
        self,
        paths: Paths,
        *,
        modality: str | None = None,
        workers: int = 0,
        batch_size: int = 64,
        prune: bool = False,
        progress: Progress | None = None,
        engine: str = "local",
        ray_address: str | None = None,
    ) -> AddReport:
        """Brings the library up to date with files.

        Only what is new or has changed is embedded; a file that moved keeps its vectors. What is
        embedded is written in batches: a pass that was interrupted goes on where it was, when it is
        called again. A file that cannot be read is set aside.

        Args:
            paths: folders, files, patterns (`sounds/**/*.flac`). Where a `metadata.jsonl` lies
                beside or above the files, its rows are their metadata (`file_name` and anything).
            modality: of all of them; also settles files that could be several.
            workers: processes that read files; 0 reads in this one. With Ray, encoders; 0 is one a
                GPU or, where there is none, one a core.
            batch_size: encoder inputs in one forward.
            prune: whether files that are gone leave the library; otherwise they are reported.
            progress: called with the number of files done and of all.
            engine: `local`, or `ray`: over a cluster, and committed at once at the end.
            ray_address: of the cluster; else that of `RAY_ADDRESS`, else this machine is one.
        """
        given = [paths] if isinstance(paths, str | Path) else list(paths)
        if modality is not None:
            self.model.check_has(modality)
        with self._store.lock():
            adder = add_files(
                self._store,
                self.rows,
                self.model,
                given,
                modality=modality,
                engine=engine,
                ray_address=ray_address,
                workers=workers,
                batch_size=batch_size,
                progress=progress,
            )
            missing = adder.gone(lambda path: is_below(path, given))
            adder.report.gone = sorted(missing)
            if prune:
                self.rows.remove([row_id for ids in missing.values() for row_id in ids])
            if adder.report.rows:
                self.rows.settle()
        return adder.report

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
        plus = self.embed(_as_list(query), query_modality)
        vector = plus.mean(0)
        if minus is not None:
            vector = vector - self.embed(_as_list(minus), query_modality).mean(0)
        return self.search_vectors(
            _unit(vector)[None], k, modality=modality, where=where, segments=segments
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
        rows = self._row(row_id, ["id", "vector"])
        hits = self.search_vectors(
            vectors_of(rows), k + 1, modality=modality, where=where, segments=segments
        )[0]
        return [hit for hit in hits if file_of(hit.id) != file_of(row_id)][:k]

    def embed(self, queries: Sequence[Any], modality: str | None = None) -> Array:
        """Queries as unit vectors `(q, D)`; loads the towers that these take."""
        if not queries:
            raise OmniAlignError("the query is empty")
        names = [modality or self.model.decide(query) for query in queries]
        space = self.model.space(list(dict.fromkeys(names)))
        return np.concatenate(
            [space.embed([q], name).numpy() for q, name in zip(queries, names, strict=True)]
        )

    def search_vectors(
        self,
        vectors: Array,
        k: int = 10,
        *,
        modality: str | Sequence[str] | None = None,
        where: str | None = None,
        segments: bool = False,
    ) -> list[list[Hit]]:
        """As `search`, for unit vectors `(q, D)`: a list of hits for each."""
        if k < 1:
            raise OmniAlignError(f"k is {k}; it is at least 1")
        held = self.modalities
        wanted = self._wanted(modality, held)
        if not wanted:
            return [[] for _ in vectors]
        condition = self._condition(where)
        most = max(held[name] for name in wanted)
        return nearest_files(self.rows, vectors, k, wanted, most, condition, segments=segments)

    def _wanted(self, modality: str | Sequence[str] | None, held: dict[str, int]) -> list[str]:
        if modality is None:
            return list(held)
        names = [modality] if isinstance(modality, str) else list(modality)
        for name in names:
            if name not in held:
                self.model.check_has(name)
        return [name for name in names if name in held]

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

    def remove(self, where: str | None = None, *, paths: Paths | None = None) -> int:
        """Takes files out of the library: those with a row that a filter fits, or those of paths.

        The files themselves stay where they are. Gives the number of rows that were removed.
        """
        with self._store.lock():
            return remove(self.rows, self._condition(where), paths)

    def duplicates(self, threshold: float = 0.98) -> list[Duplicates]:
        """Groups of files that are the same, or whose cosine is at least `threshold`."""
        from omnialign.index.upkeep import duplicates

        return duplicates(self, threshold)

    def verify(self, sample: int = 16) -> Verified:
        """Whether rows are sound and files as they were embedded; embeds `sample` of them again."""
        from omnialign.index.upkeep import verify

        return verify(self, sample)

    def export(self, file: str | Path) -> int:
        """Writes all rows with their vectors as Parquet; gives their number."""
        from omnialign.index.upkeep import export

        return export(self, Path(file))

    def copy_to(self, uri: str | Path, progress: Progress | None = None) -> Copied:
        """Copies the library to another place, a folder or Milvus, and compares every row.

        Files stay where they are. A copy that was interrupted begins anew when it is called again.
        """
        from omnialign.index.copying import copy_library

        table = self._about["table"]
        return copy_library(self._store, str(uri), table, self.dim, progress)

    def rebuild(
        self,
        model: str | Path,
        *,
        dim: int | None = None,
        workers: int = 0,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> AddReport:
        """Embeds all files again with another model.

        The library stays as it is, and answers, until the new table is whole. An interrupted
        rebuild goes on when it is called again with the same model.
        """
        space = load(model, dim=dim)
        record = ModelRecord.of(space, model)
        with self._store.lock():
            table, report = embed_again(
                self._store, self.rows, space, record, workers, batch_size, progress
            )
            former = self._about["table"]
            self._about = _about(record, table)
            self._store.write_documents({ABOUT: json.dumps(self._about)})
            self._store.remove_documents([pending_key(record)])
            self.model = LibraryModel(record)
            self.model.use(space)
            del self.rows
            self.rows.settle()
            self._store.drop(former)
        return report


def _about(record: ModelRecord, table: str) -> dict[str, Any]:
    return {"format": FORMAT, "model": record.as_dict(), "table": table}


def _as_list(query: Any) -> list[Any]:
    return list(query) if isinstance(query, list) else [query]


def _unit(vector: Array) -> Array:
    norm = float(np.linalg.norm(vector))
    if norm < 1e-6:
        raise OmniAlignError("the query and what is taken away from it are the same")
    return (vector / norm).astype(np.float32)
