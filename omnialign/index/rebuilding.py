"""Embeds the files of a table again, with another model, into a table of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from omnialign.errors import ModalityError, OmniAlignError
from omnialign.index.adding import Adder, AddReport, Progress, counted
from omnialign.index.collect import found
from omnialign.index.model import ModelRecord
from omnialign.index.rows import File, key_of
from omnialign.index.store import Rows, Store
from omnialign.space import SharedSpace

PENDING = "rebuild/"
"""Before the key of a document that names a table which is not yet whole, or of no use any more."""


def new_table() -> str:
    """The name of a table; no other has it, so a snapshot is never that of another."""
    return f"rows_{uuid.uuid4().hex[:12]}"


def pending_key(record: ModelRecord) -> str:
    """Of the document that names the table of a rebuild that has not come to its end."""
    return f"{PENDING}{record.fingerprint}/{record.dim}/{record.bf16}"


def former_key(table: str) -> str:
    """Of the document that names a table which a rebuild has replaced, until it is dropped."""
    return f"{PENDING}former/{table}"


def embed_again(
    store: Store,
    rows: Rows,
    space: SharedSpace,
    record: ModelRecord,
    live: str,
    *,
    workers: int,
    batch_size: int,
    prune: bool,
    progress: Progress | None,
) -> tuple[str, AddReport]:
    """The name of the new table; one that was begun before is gone on with.

    Raises `OmniAlignError` where a file of the library cannot be embedded, unless `prune`.
    """
    key = pending_key(record)
    table = store.documents(key).get(key)
    if table is None or table == live:
        table = new_table()
    store.write_documents({key: table})
    target = store.rows(table, record.dim)
    adder = Adder(store, target, record.dim)
    files = _files(rows, space.modalities, adder.report)
    if progress is not None:
        files = counted(files, rows.count(), progress)
    adder.add(files, lambda: space, workers=workers, batch_size=batch_size, bf16=record.bf16)
    if not prune:
        _refuse_losses(adder.report)
    _forget_removed(rows, target)
    return table, adder.report


def _refuse_losses(report: AddReport) -> None:
    lost = {**dict.fromkeys(report.gone, "it is gone"), **report.passed_over, **report.set_aside}
    if lost:
        path, reason = next(iter(lost.items()))
        raise OmniAlignError(
            f"{len(lost)} files of the library cannot be embedded again, the first: {path}: "
            f"{reason}; the library stays as it was. Bring them back and go on, or say prune to "
            "leave them out"
        )


def _forget_removed(rows: Rows, target: Rows) -> None:
    """Takes files out that left the library since an earlier pass embedded them."""
    held = {key_of(path) for batch in rows.read(["path"]) for path in batch["path"].to_pylist()}
    target.remove(
        [
            row["id"]
            for batch in target.read(["id", "path"])
            for row in batch.to_pylist()
            if key_of(row["path"]) not in held
        ]
    )


def drop_others(store: Store, live: str) -> None:
    """Drops the table of before, and those of rebuilds that were given up."""
    pending = store.documents(PENDING)
    for table in {*pending.values()} - {live}:
        store.drop(table)
    store.remove_documents(list(pending))


def _files(rows: Rows, among: Sequence[str], report: AddReport) -> Iterator[File]:
    """The files of a table, as they are now."""
    for batch in rows.read(["path", "modality", "segment"]):
        for row in batch.to_pylist():
            if row["segment"]:
                continue
            path, modality = row["path"], row["modality"]
            if modality not in among:
                report.passed_over[path] = f"the new model has no modality '{modality}'"
                continue
            try:
                yield found(path, among, modality)
            except FileNotFoundError:
                report.gone.append(path)
            except (OSError, ModalityError) as error:
                report.passed_over[path] = str(error)
