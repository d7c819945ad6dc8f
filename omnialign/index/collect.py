"""Finds the files that are to be in a library, with their modalities and what is said of them."""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

from omnialign.errors import DataError, ModalityError, OmniAlignError
from omnialign.index.roots import MAGIC, files_below
from omnialign.index.rows import File
from omnialign.registry import registry

MANIFEST = "metadata.jsonl"


def collect(
    paths: Sequence[str | Path],
    among: Sequence[str],
    *,
    only: str | None = None,
    passed_over: dict[str, str] | None = None,
    except_below: str = "",
) -> Iterator[File]:
    """The files of folders (recursively), of patterns and of names, each once.

    Args:
        paths: folders, files, or patterns as of a shell, with `**` for any folders.
        among: the modalities to decide between.
        only: the one modality of all; files that cannot be it are passed over.
        passed_over: takes the files that are of none, and folders that cannot be read, with the
            reason.
        except_below: a folder that is left out.

    A file's `metadata.jsonl` is that of the nearest folder above it that has one and names it. Its
    `modality` settles files that could be several.

    Raises:
        OmniAlignError: a path does not exist, or a pattern matches nothing.
        DataError: a `metadata.jsonl` is malformed.
    """
    seen: set[int] = set()
    reasons = {} if passed_over is None else passed_over

    def unreadable(error: OSError) -> None:
        reasons[_shown(error.filename)] = f"the folder cannot be read: {error.strerror}"

    for given in paths:
        for path in _files(str(given), unreadable):
            if except_below and path.startswith(except_below + os.sep):
                continue
            if hash(path) in seen or os.path.basename(path) == MANIFEST:
                continue
            seen.add(hash(path))
            if not _is_utf8(path):
                reasons[_shown(path)] = "its name is not UTF-8; rename it"
                continue
            try:
                yield found(path, among, only)
            except (ModalityError, OSError) as error:
                reasons[path] = str(error)


def found(path: str, among: Sequence[str], only: str | None = None) -> File:
    """A file with its modality; raises `ModalityError` where it is of none."""
    metadata = described(path)
    stated = metadata.get("modality")
    if only is not None:
        stated = only
    if stated in among and _could_be(path, str(stated)):
        modality = str(stated)
    else:
        modality, _ = registry().decide(Path(path), [only] if only else among)
    return File(path, modality, _signature(path, modality, metadata), metadata)


def _could_be(path: str, modality: str) -> bool:
    return Path(path).suffix.lower() in registry().modality(modality).suffixes


def is_below(path: str, paths: Sequence[str | Path]) -> bool:
    """Whether a file, if it existed, would be among those of `paths`."""
    return any(_holds(os.path.abspath(given), path) for given in paths)


def _holds(whole: str, path: str) -> bool:
    if path == whole or path.startswith(whole.rstrip(os.sep) + os.sep):
        return True
    if not MAGIC & set(whole) or not _matches(path.split(os.sep), whole.split(os.sep)):
        return False
    return not os.path.lexists(whole)  # a name that looks like a pattern


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """As `glob` has it, name by name; a folder that fits includes what is below it."""
    if not patterns:
        return True
    pattern, rest = patterns[0], patterns[1:]
    if pattern == "**" and _matches(names, rest):
        return True
    if not names or (names[0].startswith(".") and not pattern.startswith(".")):
        return False
    if pattern == "**":
        return _matches(names[1:], patterns)
    return fnmatchcase(names[0], pattern) and _matches(names[1:], rest)


def _files(given: str, unreadable: Callable[[OSError], None]) -> Iterator[str]:
    whole = os.path.abspath(given)
    if os.path.isdir(whole):
        yield from files_below(whole, unreadable)
    elif os.path.isfile(whole):
        yield whole
    elif MAGIC & set(given):
        matches = sorted(glob.iglob(whole, recursive=True))
        if not matches:
            raise OmniAlignError(f"no file matches '{given}'")
        for match in matches:
            yield from _files(match, unreadable)
    else:
        raise OmniAlignError(f"'{given}' is no file and no folder")


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: str) -> str:
    """A path that can be printed and kept."""
    return os.fsencode(path).decode(errors="backslashreplace")


def described(path: str) -> Mapping[str, Any]:
    """The row of the nearest `metadata.jsonl` that names the file, without its name."""
    folder, name = os.path.split(path)
    while True:
        manifest = _manifest(folder, _stamp(os.path.join(folder, MANIFEST)))
        if name in manifest.offsets:
            return manifest.row(name)
        parent, own = os.path.split(folder)
        if parent == folder:
            return {}
        folder, name = parent, f"{own}/{name}"


class _Manifest:
    """Where in a `metadata.jsonl` the row of a file begins."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.offsets: dict[str, int] = {}
        offset = 0
        with open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    self.offsets[self._name(line, number)] = offset
                offset += len(line)

    def _name(self, line: bytes, number: int) -> str:
        try:
            row = json.loads(line)
            return os.path.normpath(str(row["file_name"]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{self._file}, line {number}: wants a JSON object with file_name, found "
                f"{line[:80].decode(errors='replace').strip()!r} ({type(error).__name__}: {error})"
            ) from None

    def row(self, name: str) -> Mapping[str, Any]:
        with open(self._file, "rb") as lines:
            lines.seek(self.offsets[name])
            row = json.loads(lines.readline())
        whole = json.dumps(row, ensure_ascii=False).encode(
            errors="replace"
        )  # half a surrogate pair
        return {key: value for key, value in json.loads(whole).items() if key != "file_name"}


class _NoManifest:
    offsets: Mapping[str, int] = {}

    def row(self, name: str) -> Mapping[str, Any]:
        raise KeyError(name)


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=64)
def _manifest(folder: str, stamp: tuple[int, int] | None) -> _Manifest | _NoManifest:
    return _NoManifest() if stamp is None else _Manifest(os.path.join(folder, MANIFEST))


def signature_now(path: str, modality: str) -> int:
    """As `File.signature` would be if the file were found now; raises `OSError`."""
    return _signature(path, modality, described(path))


def _signature(path: str, modality: str, metadata: Mapping[str, Any]) -> int:
    digest = blake2b(digest_size=8)
    for file in (path, *sorted(map(str, registry().modality(modality).companions(Path(path))))):
        stamp = os.stat(file)
        digest.update(
            f"{file}\0{stamp.st_size}\0{stamp.st_mtime_ns}\0".encode(errors="surrogatepass")
        )
    digest.update(
        f"{modality}\0{json.dumps(metadata, sort_keys=True)}".encode(errors="surrogatepass")
    )
    return int.from_bytes(digest.digest(), signed=True)
