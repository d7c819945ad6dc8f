"""Adds to a library over a Ray cluster: readers, encoders and writers on any number of nodes.

    files ─ read (tasks) ─ inputs ─ Encoder (actors) ─ vectors ─ write_rows (tasks) ─ fragments
                                                                                         │
                                     one version of the table, committed here ───────────┘

What is new is decided as by the local engine. Before anything is committed, the rows that were
written of each file are counted: a file has all of them, once, or is embedded again here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from omnialign.errors import OmniAlignError
from omnialign.index.adding import Adder, Progress
from omnialign.index.fragments import Fragments
from omnialign.index.lance import LanceRows
from omnialign.index.model import LibraryModel
from omnialign.index.ray_session import check_nodes, connected, in_one_line
from omnialign.index.ray_tasks import FILES, Encoder, Job, read, write_rows
from omnialign.index.rows import File
from omnialign.index.store import Array, Rows
from omnialign.segments import check_batch_size
from omnialign.space import SharedSpace

FILES_AT_ONCE = 32
"""That a reader takes; these are read again if its node dies."""
ROWS_AT_ONCE = 2048
"""Of a fragment."""
_BLOCKS_TO_LOSE = 16
"""So many tasks may fail for good, as does one whose file kills its reader; then all fails."""


class Cluster:
    """One pass over files on a cluster; `replace` is for the `Adder` of that pass."""

    def __init__(self, rows: Rows, model: LibraryModel, address: str | None) -> None:
        if not isinstance(rows, LanceRows):
            raise OmniAlignError(
                "engine 'ray' writes into a library in a folder or in an object storage; add to "
                "this one with engine 'local'"
            )
        self._model = model
        self._address = address
        self._fragments = Fragments(rows)
        self.replace = self._fragments.replace

    def add(
        self,
        adder: Adder,
        files: Iterable[File],
        *,
        workers: int,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        """Embeds what is new or changed of `files`: none of it is there before the end, then all.

        Args:
            adder: decides what is new, and takes what becomes of it.
            files: all that were found.
            workers: encoders; 0 is one a GPU or, where there is none, one a core.
            batch_size: inputs in one forward.
            progress: called with the number of files done and of all.

        Raises:
            OmniAlignError: there is no cluster, a node lacks something, or too much of it failed.
        """
        check_batch_size(batch_size)
        fresh = adder.to_read(files)
        first = next(fresh, None)
        try:
            if first is not None:
                space = self._model.space()
                with connected(self._address) as ray:
                    self._check_nodes(ray, first)
                    found = _Found(ray, chain([first], fresh))
                    self._embed(ray, found, adder, space, workers, batch_size, progress)
                    self._settle(found, adder, space, batch_size)
            adder.commit()
            self._fragments.commit()
        finally:
            self._fragments.tidy()

    def _check_nodes(self, ray: ModuleType, first: File) -> None:
        paths = [self._fragments.uri, self._model.source, first.path]
        check_nodes(ray, [path for path in paths if path.startswith("/")])

    def _embed(
        self,
        ray: ModuleType,
        found: _Found,
        adder: Adder,
        space: SharedSpace,
        workers: int,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        """All that runs elsewhere."""
        job = ray.put(
            Job(
                {name: space.tower(name).pipeline for name in space.modalities},
                adder.contents,
                space.dim,
                self._fragments.uri,
                self._fragments.storage_version,
            )
        )
        has = ray.cluster_resources()
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 1))
        done = adder.report.unchanged
        with _quiet(ray):
            stream = (
                ray.data.from_arrow_refs(found.blocks)
                .map_batches(
                    read, fn_args=(job,), batch_size=None, batch_format="pyarrow", num_cpus=1
                )
                .map_batches(
                    Encoder,
                    fn_constructor_args=(self._model.record, self._model.source),
                    compute=ray.data.ActorPoolStrategy(
                        size=min(workers or gpus or cores, len(found.blocks))
                    ),
                    batch_size=batch_size,
                    batch_format="pyarrow",
                    num_cpus=0,  # whichever nodes are left, there is room for it beside the readers
                    num_gpus=1 if gpus else 0,
                )
                .map_batches(
                    write_rows,
                    fn_args=(job,),
                    batch_size=ROWS_AT_ONCE,
                    batch_format="pyarrow",
                    num_cpus=1,
                )
            )
            try:
                for ends in stream.iter_batches(batch_size=None, batch_format="pyarrow"):
                    done += found.take(ends, self._fragments)
                    if progress is not None:
                        progress(done, adder.report.unchanged + len(found))
            except ray.exceptions.RayError as error:
                raise OmniAlignError(
                    f"the cluster gave up: {in_one_line(error)}; nothing was added"
                ) from None

    def _settle(self, found: _Found, adder: Adder, space: SharedSpace, batch_size: int) -> None:
        """Tells of all files; embeds those again, here, of which something was lost."""
        again: list[File] = []
        held: list[File] = []
        broken: dict[int, str] = {}
        for number, file in found:
            num_rows = int(found.num_written[number])
            problem, content = found.problems.get(number), found.held.get(number)
            if problem is not None:
                adder.set_aside(file, problem)
            elif content is not None:
                held.append(replace(file, content=content))
            elif num_rows and num_rows == found.num_segments[number]:
                adder.written(file, num_rows)
                continue
            else:
                again.append(file)
            if num_rows:
                broken[number] = file.path
        for fragments, numbers in found.written:
            if not broken.keys().isdisjoint(numbers.tolist()):
                self._fragments.drop(fragments, list(broken.values()))
        again += adder.reuse(held)
        if again:  # each may be what killed its reader, so it is not read in this process
            bf16 = self._model.record.bf16
            adder.add(again, lambda: space, workers=1, batch_size=batch_size, bf16=bf16)


class _Found:
    """The files of a pass, in Ray's object store, and what comes back of them: 12 bytes each."""

    def __init__(self, ray: ModuleType, files: Iterator[File]) -> None:
        self._ray = ray
        self._num = 0
        self.blocks: list[Any] = []
        while block := list(islice(files, FILES_AT_ONCE)):
            self.blocks.append(ray.put(self._table(block)))
        self.num_segments: Array = np.zeros(self._num, np.int32)
        """As the last segment of each says; 0 before it came."""
        self.num_written: Array = np.zeros(self._num, np.int32)
        self.problems: dict[int, str] = {}
        self.held: dict[int, str] = {}
        """Contents that are embedded already."""
        self.written: list[tuple[list[str], Array]] = []
        """Fragments, and the numbers of their files."""

    def __len__(self) -> int:
        return self._num

    def _table(self, files: list[File]) -> pa.Table:
        rows = [
            {
                "number": self._num + i,
                "path": file.path,
                "modality": file.modality,
                "signature": file.signature,
                "metadata": json.dumps(file.metadata, ensure_ascii=False, sort_keys=True),
            }
            for i, file in enumerate(files)
        ]
        self._num += len(rows)
        return pa.Table.from_pylist(rows, schema=FILES)

    def __iter__(self) -> Iterator[tuple[int, File]]:
        for block in self.blocks:
            for row in self._ray.get(block).to_pylist():
                metadata = json.loads(row["metadata"])
                yield row["number"], File(row["path"], row["modality"], row["signature"], metadata)

    def take(self, ends: pa.Table, fragments: Fragments) -> int:
        """What `write_rows` gave; returns the number of files that are done with it."""
        done = 0
        for row in ends.to_pylist():
            number = row["number"]
            if row["written"] is not None:
                written, numbers, counts = json.loads(row["written"])
                fragments.add(written)
                self.written.append((written, np.array(numbers, np.int32)))
                self.num_written[numbers] += np.array(counts, np.int32)
                continue
            done += 1
            if row["problem"] is not None:
                self.problems[number] = row["problem"]
            elif row["num_segments"] == 0:
                self.held[number] = row["content"]
            else:
                self.num_segments[number] = row["num_segments"]
        return done


@contextmanager
def _quiet(ray: ModuleType) -> Generator[None]:
    """Ray Data without its own progress, and past some tasks that fail."""
    import ray.data

    settings = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_errored_blocks": _BLOCKS_TO_LOSE,
    }
    context = ray.data.DataContext.get_current()
    before = {name: getattr(context, name) for name in settings}
    logger = logging.getLogger("ray.data")
    level = logger.level
    try:
        for name, value in settings.items():
            setattr(context, name, value)
        logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)
