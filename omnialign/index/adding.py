"""Brings a table up to date with files: only what is new or changed is embedded."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from omnialign.data.features import content_key
from omnialign.index.embedding import embed_files
from omnialign.index.roots import Roots
from omnialign.index.rows import File, key_of, rows_again, rows_of, schema
from omnialign.index.store import Array, Rows, Store
from omnialign.registry import registry
from omnialign.space import SharedSpace

Progress = Callable[[int, int], None]
SET_ASIDE = "set-aside/"
"""Before the path of a file that could not be read, as the key of a document."""
_CONTENTS_AT_ONCE = 1000
"""Whose vectors are asked for: each time the whole table is looked through."""
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
    """Files of no modality of the model, and folders that hold nothing to see, with the reason."""


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
        roots: where files are looked for.
    """

    def __init__(
        self,
        store: Store,
        rows: Rows,
        dim: int,
        replace: Callable[[Sequence[str], pa.Table], None] | None = None,
        roots: Sequence[str | Path] = (),
    ) -> None:
        self.report = AddReport()
        self._store = store
        self._rows = rows
        self._replace = replace or rows.replace
        self._schema = schema(dim)
        self._known = _Known(rows)
        self._roots = Roots(roots)
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
        held: list[File] = []
        for file in files:
            try:
                named = identified(file)
            except OSError as error:
                self.set_aside(file, unseen(file.path, error))
                continue
            if named.content not in contents:
                yield named
                continue
            held.append(named)
            if len(held) >= _CONTENTS_AT_ONCE:
                yield from self.reuse(held)
                held = []
        yield from self.reuse(held)

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
        if self._known.signature(file.path) is None:
            self.report.added += 1
        else:
            self.report.changed += 1
        self._solve(file.path)

    def reuse(self, files: Sequence[File]) -> list[File]:
        """Gives files the vectors that their contents have; returns those without any."""
        step = _CONTENTS_AT_ONCE
        batches = (files[start : start + step] for start in range(0, len(files), step))
        return [file for batch in batches for file in self._reuse(batch)]

    def _reuse(self, files: Sequence[File]) -> list[File]:
        contents = list(dict.fromkeys(file.content for file in files))
        found = self._rows.find("content", contents, self._schema.names)
        places: dict[str, dict[str, list[int]]] = {}
        names = (found.column(name).to_pylist() for name in ("content", "path"))
        for place, (content, path) in enumerate(zip(*names, strict=True)):
            places.setdefault(content, {}).setdefault(path, []).append(place)
        without: list[File] = []
        for file in files:
            if (of_path := places.get(file.content)) is None:
                without.append(file)
                continue
            source = file.path if file.path in of_path else next(iter(of_path))
            has_moved = source != file.path and self._roots.is_gone(source)
            if self._known.signature(file.path) is None:
                self.report.moved += 1
            else:
                self.report.changed += 1
            self._solve(file.path)
            again = rows_again(file, found.take(of_path[source]))
            self._take(file, again, also=[source] if has_moved else [])
        return without

    def _take(self, file: File, rows: list[dict[str, Any]], also: Iterable[str] = ()) -> None:
        self._pending += rows
        self._pending_paths += [file.path, *also]
        self._commit_when_due()

    def _commit_when_due(self) -> None:
        late = time.monotonic() - self._committed_at > _SECONDS_AT_MOST
        if late or max(len(self._pending), len(self._pending_paths)) >= _ROWS_AT_ONCE:
            self.commit()

    def set_aside(self, file: File, reason: str) -> None:
        """Sets a file aside; rows of its former content stay no longer."""
        self.report.set_aside[file.path] = reason
        self._documents[SET_ASIDE + file.path] = json.dumps({"reason": reason})
        self._pending_paths.append(file.path)
        self._commit_when_due()

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
        self._forget(self._solved)
        self._pending, self._pending_paths = [], []
        self._documents, self._solved = {}, []
        self._committed_at = time.monotonic()

    def _forget(self, notes: Sequence[str]) -> None:
        for start in range(0, len(notes), _ROWS_AT_ONCE):
            self._store.remove_documents(notes[start : start + _ROWS_AT_ONCE])

    def gone(self, is_meant: Callable[[str], bool]) -> Mapping[str, list[str]]:
        """Ids by path of files that were not seen, lie where `is_meant(path)`, and do not exist.

        Of a folder without any file nothing is gone: its disk may not be there.
        """
        self._roots.empty.clear()
        missing: dict[str, list[str]] = {}
        kept: set[str] = set()
        for batch in () if self._known.seen.all() else self._rows.read(["id", "path"]):
            for row in batch.to_pylist():
                path = row["path"]
                if path in missing:
                    missing[path].append(row["id"])
                elif path in kept or self._known.was_seen(path) or not is_meant(path):
                    continue
                elif self._roots.is_gone(path):
                    missing[path] = [row["id"]]
                else:
                    kept.add(path)
        aside = (key.removeprefix(SET_ASIDE) for key in self._set_aside)
        self._forget([SET_ASIDE + p for p in aside if is_meant(p) and self._roots.is_gone(p)])
        for folder, number in self._roots.empty.items():
            self.report.passed_over[folder] = (
                f"'{folder}' holds no file, and {number} of the library lay there; they stay, for "
                "its disk may not be mounted; to take them out, remove that path"
            )
        return missing
