"""Brings a table up to date with files: only what is new or changed is embedded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
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

    def has_content(self, content: str) -> bool:
        return _find(self._contents, key_of(content)) is not None

    def was_seen(self, path: str) -> bool:
        place = _find(self._paths, key_of(path))
        return place is not None and bool(self.seen[place])


def _find(keys: Array, key: int) -> int | None:
    place = int(np.searchsorted(keys, np.uint64(key)))
    return place if place < len(keys) and keys[place] == np.uint64(key) else None


class Adder:
    """One pass over files.

    What is embedded is written in batches, so a pass that ends early loses at most the last one.
    """

    def __init__(self, store: Store, rows: Rows, dim: int) -> None:
        self.report = AddReport()
        self.modalities: set[str] = set()
        """Of the files whose rows were written."""
        self._store = store
        self._rows = rows
        self._schema = schema(dim)
        self._known = _Known(rows)
        self._set_aside = store.documents(SET_ASIDE)
        self._pending: list[dict[str, Any]] = []
        self._pending_paths: list[str] = []
        self._documents: dict[str, str] = {}
        self._solved: list[str] = []
        self._committed_at = time.monotonic()

    def add(
        self,
        files: Iterable[File],
        space: Callable[[], SharedSpace],
        *,
        workers: int,
        batch_size: int,
    ) -> None:
        """Embeds what is new or changed of `files`; the model is asked for if there is any."""
        to_embed = self._to_embed(files)
        try:
            first = next(to_embed, None)
            if first is None:
                return
            stream = ((file, Path(file.path), file.modality) for file in chain([first], to_embed))
            for done in embed_files(space(), stream, workers=workers, batch_size=batch_size):
                file: File = done.key
                if done.segments is None:
                    self._note(file, done.problem or "unreadable")
                    continue
                if self._known.signature(file.path) is None:
                    self.report.added += 1
                else:
                    self.report.changed += 1
                self._take(file, rows_of(file, done.segments))
        finally:
            self._commit()

    def _to_embed(self, files: Iterable[File]) -> Iterator[File]:
        """Those whose content is new; the others are dealt with on the way."""
        for file in files:
            known = self._known.signature(file.path)
            if known == file.signature:
                self.report.unchanged += 1
                self._solve(file.path)
                continue
            try:
                content = content_key(registry().modality(file.modality), Path(file.path))
            except OSError as error:
                self._note(file, f"cannot read '{file.path}': {error.strerror}")
                continue
            assert content is not None
            file = replace(file, content=f"{file.modality}:{content.hex()}")
            if self._known.has_content(file.content) and self._reuse(
                file, is_held=known is not None
            ):
                continue
            yield file

    def _reuse(self, file: File, *, is_held: bool) -> bool:
        """Whether a file of that content was there, whose vectors are now also this one's."""
        found = self._rows.find("content", [file.content], self._schema.names)
        if not found.num_rows:
            return False
        source = found.column("path")[0].as_py()
        if file.path in set(found.column("path").to_pylist()):
            source = file.path
        again = rows_again(file, found.filter(pc.field("path") == source))
        has_moved = source != file.path and not os.path.exists(source)
        if is_held:
            self.report.changed += 1
        else:
            self.report.moved += 1
        self._take(file, again, also=[source] if has_moved else [])
        return True

    def _take(self, file: File, rows: list[dict[str, Any]], also: Iterable[str] = ()) -> None:
        self._pending += rows
        self.modalities.add(file.modality)
        self._pending_paths += [file.path, *also]
        self._solve(file.path)
        late = time.monotonic() - self._committed_at > _SECONDS_AT_MOST
        if late or len(self._pending) >= _ROWS_AT_ONCE:
            self._commit()

    def _note(self, file: File, reason: str) -> None:
        """Sets a file aside; rows of its former content stay no longer."""
        self.report.set_aside[file.path] = reason
        self._documents[SET_ASIDE + file.path] = json.dumps({"reason": reason})
        self._pending_paths.append(file.path)

    def _solve(self, path: str) -> None:
        if SET_ASIDE + path in self._set_aside:
            self._solved.append(SET_ASIDE + path)

    def _commit(self) -> None:
        if self._pending or self._pending_paths:
            rows = pa.Table.from_pylist(self._pending, schema=self._schema)
            self._rows.replace(self._pending_paths, rows)
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
