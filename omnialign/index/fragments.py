"""Rows of a Lance table that many processes write: first as files, then named by one version."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
from lance.file import LanceFileReader
from lance.fragment import write_fragments

from omnialign.errors import OmniAlignError
from omnialign.index.lance import KEEP_OLD_VERSIONS, LanceRows, is_one_of

lance: Any = import_module("lance")


def write(uri: str, storage_version: str, rows: pa.Table) -> list[str]:
    """Writes files of a table that no version of it names yet; gives what `Fragments` takes."""
    written = write_fragments(rows, uri, mode="append", data_storage_version=storage_version)
    return [json.dumps(fragment.to_json()) for fragment in written]


class Fragments:
    """What is written of a change of a table, until all of it becomes one version."""

    def __init__(self, rows: LanceRows) -> None:
        self._rows = rows
        dataset = rows.dataset()
        self.uri: str = dataset.uri
        self.storage_version: str = dataset.data_storage_version
        self._fragments: list[str] = []
        self._paths: list[str] = []

    def add(self, fragments: Iterable[str]) -> None:
        """Takes fragments that `write` gave, here or elsewhere."""
        self._fragments += fragments

    def replace(self, paths: Sequence[str], rows: pa.Table) -> None:
        """As `Rows.replace`, once it is committed."""
        self._paths += paths
        if rows.num_rows:
            self.add(write(self.uri, self.storage_version, rows))

    def drop(self, fragments: Iterable[str], paths: Collection[str]) -> None:
        """Takes the rows of some files out of fragments that were added."""
        dropped = set(paths)
        for fragment in fragments:
            self._fragments.remove(fragment)
            for file in self._files(fragment):
                rows = LanceFileReader(file).read_all().to_table()
                kept = [path not in dropped for path in rows.column("path").to_pylist()]
                self.replace([], rows.filter(pa.array(kept)))

    def commit(self) -> None:
        """Makes one version of it all: the rows of replaced files go as the new ones come.

        Raises:
            OmniAlignError: a file that a worker wrote is not there.
        """
        self._check()
        new = [lance.FragmentMetadata.from_json(fragment) for fragment in self._fragments]
        dataset = self._rows.dataset()
        removed, changed = _without(dataset, self._paths)
        if not (new or removed or changed):
            return
        operation = lance.LanceOperation.Update(
            removed_fragment_ids=removed, updated_fragments=changed, new_fragments=new
        )
        lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)

    def _check(self) -> None:
        if "://" in self.uri:
            return
        for fragment in self._fragments:
            for file in self._files(fragment):
                if not Path(file).is_file():
                    raise OmniAlignError(
                        f"a worker wrote {file}, which is not on this machine: all nodes of the "
                        "cluster must reach the library under the same path (a shared file system, "
                        "or a library in an object storage); nothing was added"
                    )

    def _files(self, fragment: str) -> list[str]:
        files: list[Mapping[str, str]] = json.loads(fragment)["files"]
        return [f"{self.uri}/data/{file['path']}" for file in files]

    def tidy(self) -> None:
        """Removes files that no version names, of this change and of ones that ended early.

        Only of a library in a folder, whose lock keeps others from writing meanwhile. Elsewhere
        Lance removes such files when they are a week old.
        """
        if "://" not in self.uri:
            self._rows.dataset().cleanup_old_versions(KEEP_OLD_VERSIONS, delete_unverified=True)


def _without(dataset: Any, paths: Sequence[str]) -> tuple[list[int], list[Any]]:
    """Fragments of which nothing remains without the rows of these paths, and those changed."""
    removed: list[int] = []
    changed: list[Any] = []
    wanted = set(paths)
    for fragment in dataset.get_fragments() if paths else ():
        held = fragment.to_table(columns=["path"]).column("path").to_pylist()
        found = sorted(wanted.intersection(held))
        if not found:
            continue
        without = fragment.delete(is_one_of("path", found))
        if without is None:
            removed.append(fragment.fragment_id)
        else:
            changed.append(without)
    return removed, changed
