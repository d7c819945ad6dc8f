"""Takes files out of a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omnialign.errors import OmniAlignError
from omnialign.index.collect import is_below
from omnialign.index.rows import file_of
from omnialign.index.store import Rows
from omnialign.index.where import Where


def remove(rows: Rows, where: Where | None, paths: Sequence[str | Path] | str | Path | None) -> int:
    """Removes the files with a row that a filter fits, or those of paths; gives their rows."""
    if (where is None) == (paths is None):
        raise OmniAlignError("remove wants either where=… or paths=…")
    given = [paths] if isinstance(paths, str | Path) else list(paths or ())
    files = {file_of(row_id) for row_id in rows.matching(where)} if where else set[str]()
    ids = [
        row["id"]
        for batch in rows.read(["id", "path"])
        for row in batch.to_pylist()
        if (file_of(row["id"]) in files if where else is_below(row["path"], given))
    ]
    rows.remove(ids)
    return len(ids)
