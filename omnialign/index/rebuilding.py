"""Embeds the files of a table again, with another model, into a table of their own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from omnialign.errors import ModalityError
from omnialign.index.adding import Adder, AddReport, Progress, counted
from omnialign.index.collect import found
from omnialign.index.model import ModelRecord
from omnialign.index.rows import File
from omnialign.index.store import Rows, Store
from omnialign.space import SharedSpace


def new_table() -> str:
    """The name of a table; no other has it, so a snapshot is never that of another."""
    return f"rows_{uuid.uuid4().hex[:12]}"


def pending_key(record: ModelRecord) -> str:
    """Of the document that names the table of a rebuild that has not come to its end."""
    return f"rebuild/{record.fingerprint}/{record.dim}/{record.bf16}"


def embed_again(
    store: Store,
    rows: Rows,
    space: SharedSpace,
    record: ModelRecord,
    workers: int,
    batch_size: int,
    progress: Progress | None,
) -> tuple[str, AddReport]:
    """The name of the new table; one that was begun before is gone on with."""
    key = pending_key(record)
    table = store.documents(key).get(key) or new_table()
    store.write_documents({key: table})
    adder = Adder(store, store.rows(table, record.dim), record.dim)
    files = _files(rows, space.modalities, adder.report)
    if progress is not None:
        files = counted(files, rows.count(), progress)
    adder.add(files, lambda: space, workers=workers, batch_size=batch_size, bf16=record.bf16)
    return table, adder.report


def _files(rows: Rows, among: Sequence[str], report: AddReport) -> Iterator[File]:
    """The files of a table, as they are now."""
    for batch in rows.read(["path", "modality", "segment"]):
        for row in batch.to_pylist():
            if row["segment"]:
                continue
            try:
                yield found(row["path"], among, row["modality"])
            except FileNotFoundError:
                report.gone.append(row["path"])
            except (OSError, ModalityError) as error:
                report.passed_over[row["path"]] = str(error)
