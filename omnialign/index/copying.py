"""A library copied to another place, and compared with it row by row.

Axes: n rows, D dim.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from omnialign.errors import OmniAlignError
from omnialign.index.adding import Progress
from omnialign.index.rebuilding import PENDING
from omnialign.index.rows import WITHOUT_VECTORS, key_of, schema, vectors_of
from omnialign.index.store import Array, Rows, Store, open_store

"""Before the key of a document about a table that is not whole; neither is copied."""
_NAMED = 5


@dataclass(frozen=True)
class Copied:
    """What `Index.copy_to` has copied, and found equal."""

    source: str
    target: str
    rows: int
    """Equal in every column, and in every bit of their vectors."""
    documents: int


def copy_library(
    source: Store, uri: str, table: str, dim: int, progress: Progress | None
) -> Copied:
    """Rows first, in batches; then, when they are verified, the documents that make it a library.

    What an interrupted copy has left is no library, and is written anew.
    """
    target = open_store(uri)
    if target.exists():
        raise OmniAlignError(f"'{uri}' already holds a library; choose another place")
    with source.lock(), target.lock():
        target.drop(table)
        rows, copied = source.rows(table, dim), target.rows(table, dim)
        _copy_rows(rows, copied, dim, progress)
        _compare(rows, copied, uri)
        documents = {
            key: text for key, text in source.documents().items() if not key.startswith(PENDING)
        }
        target.write_documents(documents)
        if target.documents() != documents:
            raise OmniAlignError(f"the documents in '{uri}' are not those that were copied")
    return Copied(source.uri, target.uri, copied.count(), len(documents))


def _copy_rows(source: Rows, target: Rows, dim: int, progress: Progress | None) -> None:
    kind = schema(dim)
    done, total = 0, source.count()
    for batch in source.read(kind.names):
        rows = pa.Table.from_batches([batch]).select(kind.names).cast(kind)
        target.replace([], rows)
        done += rows.num_rows
        if progress is not None:
            progress(done, total)
    target.settle()


def _compare(source: Rows, target: Rows, uri: str) -> None:
    wanted, found = _digests(source), _digests(target)
    if np.array_equal(wanted, found):
        return
    missing = np.setdiff1d(wanted[:, 0], found[:, 0])
    extra = np.setdiff1d(found[:, 0], wanted[:, 0])
    shared = np.intersect1d(wanted[:, 0], found[:, 0])
    kept = [digests[np.isin(digests[:, 0], shared)] for digests in (wanted, found)]
    other = kept[0][kept[0][:, 1] != kept[1][:, 1], 0] if len(kept[0]) == len(kept[1]) else shared
    ids = _ids(source, {*missing.tolist(), *other.tolist()})
    raise OmniAlignError(
        f"the copy in '{uri}' is not the same: of {len(wanted)} rows {len(missing)} are missing, "
        f"{len(other)} differ, and {len(extra)} are too many ({', '.join(ids) or 'of other ids'}); "
        "copy again"
    )


def _digests(rows: Rows) -> Array:
    """A key of the id and a hash of everything else, for each row, by key: uint64 `(n, 2)`."""
    parts: list[Array] = [np.empty((0, 2), np.uint64)]
    for batch in rows.read([*WITHOUT_VECTORS, "vector"]):
        vectors = np.ascontiguousarray(vectors_of(batch), "<f4")
        plain = batch.select(WITHOUT_VECTORS).to_pylist()
        pairs = [
            (key_of(row["id"]), _hash(row, vector.tobytes()))
            for row, vector in zip(plain, vectors, strict=True)
        ]
        parts.append(np.array(pairs, np.uint64).reshape(-1, 2))
    found = np.concatenate(parts)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


def _hash(row: dict[str, Any], vector: bytes) -> int:
    text = json.dumps(row, sort_keys=True).encode()
    return int.from_bytes(blake2b(text + b"\0" + vector, digest_size=8).digest())


def _ids(rows: Rows, keys: set[int]) -> list[str]:
    """The first few ids with these keys."""
    names: list[str] = []
    for batch in rows.read(["id"]):
        names += [row_id for row_id in batch.column("id").to_pylist() if key_of(row_id) in keys]
        if len(names) >= _NAMED:
            return names[:_NAMED]
    return names
