"""A library that is made, kept in step with files, and asked: `omnialign.Index`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from omnialign.errors import OmniAlignError
from omnialign.index import scoring
from omnialign.index.adding import AddReport, Progress
from omnialign.index.collect import is_below
from omnialign.index.engines import add_files
from omnialign.index.library import ABOUT, FORMAT, Library
from omnialign.index.model import LibraryModel, ModelRecord
from omnialign.index.rebuilding import drop_others, embed_again, former_key, new_table
from omnialign.index.removal import remove
from omnialign.index.store import Store, open_store
from omnialign.model_folder import load

if TYPE_CHECKING:
    from omnialign.index.copying import Copied
    from omnialign.index.upkeep import Duplicates, Verified

Paths = Sequence[str | Path] | str | Path


class Index(Library):
    """A library of files in the space of one model.

    Where it lies is a folder, the URI of an object storage (`s3://…`), or `milvus://host:port/NAME`.
    Nothing of the model is in memory before something has to be embedded, and then only the towers
    that it takes.
    """

    @classmethod
    def create(
        cls,
        uri: str | Path,
        model: str | Path,
        *,
        dim: int | None = None,
        bf16: bool = False,
    ) -> Self:
        """A new, empty library.

        Args:
            uri: where it will lie.
            model: what `omnialign.load` takes.
            dim: of the vectors, where the model was trained for several; by default the largest.
            bf16: whether files are embedded with products in 16 bits: faster where the processor
                or GPU has them, for vectors whose cosine with the exact ones is some 0.9999.

        Raises:
            OmniAlignError: a library is there already.
            ModelError: the model cannot be loaded.
        """
        store = open_store(str(uri))
        _check_free(store)
        space = load(model, dim=dim)
        about = _about(ModelRecord.of(space, model, bf16=bf16), new_table())
        with store.lock():
            _check_free(store)
            fitted = scoring.of_model(space)
            store.write_documents({ABOUT: json.dumps(about), scoring.SCORES: fitted.to_json()})
        index = cls(store)
        index.model.use(space)
        return index

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
            if self.fitted.is_outgrown(self.rows.modalities()):
                self._fit_scores()
        return adder.report

    def _fit_scores(self) -> None:
        fitted = scoring.of_library(self.space, self.rows)
        self._store.write_documents({scoring.SCORES: fitted.to_json()})
        self.fitted = fitted

    def build_graph(self, k: int = 10, *, progress: Progress | None = None) -> float:
        """Builds an approximate index for a library that is too large to be scanned.

        From then on it answers; rows that come later are scanned until this is called again, and
        so are the rows of a filter or a modality where they are no more than a million.

        Args:
            k: of the recall that is measured.
            progress: called with the number of rows done and of all.

        Returns:
            The recall: the share of the exact `k` nearest neighbours of some 200 of the library's
            own rows that the graph finds, without filters.
        """
        total = len(self)
        return self.rows.build_graph(k, progress and (lambda done: progress(done, total)))

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
        bf16: bool = False,
        workers: int = 0,
        batch_size: int = 64,
        prune: bool = False,
        progress: Progress | None = None,
    ) -> AddReport:
        """Embeds all files again with another model.

        The library stays as it is, and answers, until the new table is whole. An interrupted
        rebuild goes on when it is called again with the same model. Who has the library open opens
        it again afterwards.

        Files that are gone, cannot be read or are of no modality of the new model are an error
        before anything changes; with `prune` they leave the library.
        """
        space = load(model, dim=dim)
        record = ModelRecord.of(space, model, bf16=bf16)
        with self._store.lock():
            former = self._about["table"]
            table, report = embed_again(
                self._store,
                self.rows,
                space,
                record,
                former,
                workers=workers,
                batch_size=batch_size,
                prune=prune,
                progress=progress,
            )
            self._about = _about(record, table)
            self._store.write_documents(
                {ABOUT: json.dumps(self._about), former_key(former): former}
            )
            self.model = LibraryModel(record)
            self.model.use(space)
            del self.rows
            self._fit_scores()
            self.rows.settle()
            drop_others(self._store, table)
        return report


def _check_free(store: Store) -> None:
    if store.exists():
        raise OmniAlignError(
            f"'{store.uri}' already holds a library; add to it with Index.open, or choose another "
            "place"
        )


def _about(record: ModelRecord, table: str) -> dict[str, Any]:
    return {"format": FORMAT, "model": record.as_dict(), "table": table}
