"""Brings a table up to date with files: only what is new or changed is embedded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from omnialign.data.features import content_key
from omnialign.index.embedding import embed_files
from omnialign.index.rows import File, key_of, rows_again, rows_of, schema
from omnialign.index.store import Array, Rows, Store
from omnialign.registry import registry
from omnialign.space import SharedSpace

Progress = Callable[[int, int], None]
SET_ASIDE = "set-aside/"
"""Before the path of a file that could not be read, as the key of a document."""
_ROWS_AT_ONCE = 1024
_SECONDS_AT_MOST = 15.0
"""Between two commits."""


@dataclass
class AddReport:
    """What `Index.add` found and did; numbers are of files."""

    added: int = 0
    changed: int = 0
    moved: int = 0
    """Or copied: their content was there, so their vectors were taken from it."""
    unchanged: int = 0
    rows: int = 0
    """That were written."""
    gone: list[str] = field(default_factory=list[str])
    """Files of the library that lay among the given paths and do not exist any more."""
    set_aside: dict[str, str] = field(default_factory=dict[str, str])
    """Files that cannot be read, with the reason."""
    passed_over: dict[str, str] = field(default_factory=dict[str, str])
    """Files of no modality of the model, with the reason."""


def counted(files: Iterator[File], total: int, progress: Progress) -> Iterator[File]:
    """The files, and says how many of all are done."""
    for done, file in enumerate(files):
        progress(done, total)
        yield file
    progress(total, total)


@dataclass(frozen=True)
class Contents:
    """What the files of a table hold, 8 bytes each."""

    keys: Array
    """In order."""

    def __contains__(self, content: str) -> bool:
        return _find(self.keys, key_of(content)) is not None


def identified(file: File) -> File:
    """A file with the hash of its bytes; raises `OSError`."""
    content = content_key(registry().modality(file.modality), Path(file.path))
    assert content is not None
    return replace(file, content=f"{file.modality}:{content.hex()}")


def unseen(path: str, error: OSError) -> str:
    """Why a file is set aside that cannot be identified."""
    return f"cannot read '{path}': {error.strerror}"


class _Known:
    """The files that a table holds, 24 bytes each."""

    def __init__(self, rows: Rows) -> None:
        paths: list[int] = []
        contents: list[int] = []
        signatures: list[int] = []
        for batch in rows.read(["path", "content", "signature", "segment"]):
            for row in batch.to_pylist():
                if row["segment"] == 0:
                    paths.append(key_of(row["path"]))
                    contents.append(key_of(row["content"]))
                    signatures.append(row["signature"])
        keys = np.array(paths, np.uint64)
        order = np.argsort(keys)
        self._paths: Array = keys[order]
        self._signatures: Array = np.array(signatures, np.int64)[order]
        self._contents: Array = np.sort(np.array(contents, np.uint64))
        self.seen: Array = np.zeros(len(keys), dtype=bool)

    def signature(self, path: str) -> int | None:
        """Of the file when it was embedded, which is now seen; None of one that is not held."""
        place = _find(self._paths, key_of(path))
        if place is None:
            return None
        self.seen[place] = True
        return int(self._signatures[place])

    @property
    def contents(self) -> Contents:
        return Contents(self._contents)

    def was_seen(self, path: str) -> bool:
        place = _find(self._paths, key_of(path))
        return place is not None and bool(self.seen[place])


def _find(keys: Array, key: int) -> int | None:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place if place < len(keys) and keys[place] == np.uint64(key) else None


class Adder:
    """One pass over files.

    What is embedded is written in batches, so a pass that ends early loses at most the last one.

    Args:
        store: takes the documents.
        rows: the table as it is.
        dim: of the vectors.
        replace: takes a batch, as `Rows.replace`; that of `rows` by default.
    """

    def __init__(
        self,
        store: Store,
        rows: Rows,
        dim: int,
        replace: Callable[[Sequence[str], pa.Table], None] | None = None,
    ) -> None:
        self.report = AddReport()
        self.modalities: set[str] = set()
        """Of the files whose rows were written."""
        self._store = store
        self._rows = rows
        self._replace = replace or rows.replace
        self._schema = schema(dim)
        self._known = _Known(rows)
        self._set_aside = store.documents(SET_ASIDE)
        self._pending: list[dict[str, Any]] = []
        self._pending_paths: list[str] = []
        self._documents: dict[str, str] = {}
        self._solved: list[str] = []
        self._committed_at = time.monotonic()

    @property
    def contents(self) -> Contents:
        """What is embedded already."""
        return self._known.contents

    def add(
        self,
        files: Iterable[File],
        space: Callable[[], SharedSpace],
        *,
        workers: int,
        batch_size: int,
        bf16: bool,
    ) -> None:
        """Embeds what is new or changed of `files`; the model is asked for if there is any."""
        try:
            to_embed = self._to_embed(self.to_read(files))
            if (first := next(to_embed, None)) is not None:
                options = {"workers": workers, "batch_size": batch_size, "bf16": bf16}
                self._embed(chain([first], to_embed), space(), options)
        finally:
            self.commit()

    def to_read(self, files: Iterable[File]) -> Iterator[File]:
        """Those that are not as they were, or were not there, when they were embedded."""
        for file in files:
            if self._known.signature(file.path) == file.signature:
                self.report.unchanged += 1
                self._solve(file.path)
            else:
                yield file

    def _to_embed(self, files: Iterable[File]) -> Iterator[File]:
        """Those whose content is new, identified; the others are dealt with on the way."""
        contents = self.contents
        for file in files:
            try:
                named = identified(file)
            except OSError as error:
                self.set_aside(file, unseen(file.path, error))
                continue
            if not (named.content in contents and self.reuse(named)):
                yield named

    def _embed(self, files: Iterable[File], space: SharedSpace, options: Mapping[str, Any]) -> None:
        stream = ((file, Path(file.path), file.modality) for file in files)
        for done in embed_files(space, stream, **options):
            file: File = done.key
            if done.segments is None:
                self.set_aside(file, done.problem or "unreadable")
            else:
                self._count(file)
                self._take(file, rows_of(file, done.segments))

    def written(self, file: File, num_rows: int) -> None:
        """A file whose rows `replace` need not be given any more; those of before still go."""
        self._count(file)
        self.report.rows += num_rows
        if self._known.signature(file.path) is not None:
            self._pending_paths.append(file.path)

    def _count(self, file: File) -> None:
        self.modalities.add(file.modality)
        if self._known.signature(file.path) is None:
            self.report.added += 1
        else:
            self.report.changed += 1
        self._solve(file.path)

    def reuse(self, file: File) -> bool:
        """Whether a file of that content was there, whose vectors are now also this one's."""
        found = self._rows.find("content", [file.content], self._schema.names)
        if not found.num_rows:
            return False
        source = found.column("path")[0].as_py()
        if file.path in set(found.column("path").to_pylist()):
            source = file.path
        again = rows_again(file, found.filter(pc.field("path") == source))
        has_moved = source != file.path and not os.path.exists(source)
        if self._known.signature(file.path) is None:
            self.report.moved += 1
        else:
            self.report.changed += 1
        self._solve(file.path)
        self._take(file, again, also=[source] if has_moved else [])
        return True

    def _take(self, file: File, rows: list[dict[str, Any]], also: Iterable[str] = ()) -> None:
        self._pending += rows
        self._pending_paths += [file.path, *also]
        late = time.monotonic() - self._committed_at > _SECONDS_AT_MOST
        if late or len(self._pending) >= _ROWS_AT_ONCE:
            self.commit()

    def set_aside(self, file: File, reason: str) -> None:
        """Sets a file aside; rows of its former content stay no longer."""
        self.report.set_aside[file.path] = reason
        self._documents[SET_ASIDE + file.path] = json.dumps({"reason": reason})
        self._pending_paths.append(file.path)

    def _solve(self, path: str) -> None:
        if SET_ASIDE + path in self._set_aside:
            self._solved.append(SET_ASIDE + path)

    def commit(self) -> None:
        """Writes what is pending."""
        if self._pending or self._pending_paths:
            rows = pa.Table.from_pylist(self._pending, schema=self._schema)
            self._replace(self._pending_paths, rows)
            self.report.rows += len(self._pending)
        self._store.write_documents(self._documents)
        self._store.remove_documents(self._solved)
        self._pending, self._pending_paths = [], []
        self._documents, self._solved = {}, []
        self._committed_at = time.monotonic()

    def gone(self, is_meant: Callable[[str], bool]) -> Mapping[str, list[str]]:
        """Ids by path of files that were not seen, lie where `is_meant(path)`, and do not exist."""
        missing: dict[str, list[str]] = {}
        if self._known.seen.all():
            return missing
        for batch in self._rows.read(["id", "path"]):
            for row in batch.to_pylist():
                path = row["path"]
                if not self._known.was_seen(path) and is_meant(path) and not os.path.exists(path):
                    missing.setdefault(path, []).append(row["id"])
        return missing
