"""Features on disk, found by the content that they were computed from.

A folder holds chunks, which are never changed: a chunk is one array of records, each a key and the
features of one segment, in a file whose name is the hash of its bytes. So a half-written or damaged
chunk is seen, and runs that write at once do no harm to each other.

Axes: s segments of an item, w width of features.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omnialign.contract import Modality

KEY_BYTES = 16
Chunk = Path | np.ndarray[Any, Any]
"""A file, or, where it could not be written, the records themselves."""
Place = tuple[int, int]
"""The stored row of an item's first segment, and the number of its segments."""


def content_key(modality: Modality[Any], item: Any) -> bytes | None:
    """A hash of what an item holds; None for a form whose content only its reader knows.

    Of a path: the bytes of its file, or of all files of its folder, of the files that belong to it,
    and its suffix, but neither its name nor its times. Raises `OSError`.
    """
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    if isinstance(item, str):
        digest.update(b"str:" + item.encode("utf-8", "surrogatepass"))
    elif isinstance(item, bytes | bytearray | memoryview):
        digest.update(b"bytes:" + bytes(item))
    elif isinstance(item, PathLike):
        path = Path(item)
        digest.update(f"file:{path.suffix.lower()}:".encode())
        own = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file())
        for file in (*own, *sorted(modality.companions(path))):
            name = "" if file == path else os.path.relpath(file, path)
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "blake2b")
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0" + content.digest())
    else:
        return None
    return digest.digest()


def sample_key(sample: Any) -> bytes:
    """A hash of a canonical sample."""
    written = BytesIO()
    _SamplePickler(written, protocol=5).dump(sample)
    return hashlib.blake2b(b"sample:" + written.getbuffer(), digest_size=KEY_BYTES).digest()


class _SamplePickler(pickle.Pickler):
    """Writes tensors by value: torch's own form of them holds addresses."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            values = obj.detach().cpu().contiguous()
            raw = values.reshape(-1).view(torch.uint8).numpy().tobytes()
            return dict, ((), ("dtype", str(obj.dtype)), ("shape", tuple(obj.shape)), raw)
        return NotImplemented


class FeatureStore:
    """Features `(s, w)` of the items that one frozen encoder has seen, by content key.

    Where a chunk cannot be written, its features stay in memory and `problem` says why.
    """

    def __init__(self, folder: Path, width: int, about: Mapping[str, Any]) -> None:
        self.folder = folder
        self.problem: str | None = None
        self._about = dict(about)
        self._dtype = np.dtype([("key", f"V{KEY_BYTES}"), ("features", "<f4", (width,))])
        self._in_memory: list[np.ndarray[Any, Any]] = []
        self._checked: set[Path] = set()

    def add(self, features: Mapping[bytes, Tensor]) -> None:
        """Writes one chunk: the features `(s, w)` of some items."""
        if not features:
            return
        records = np.empty(sum(map(len, features.values())), self._dtype)
        keys = [key for key, rows in features.items() for _ in range(len(rows))]
        records["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
        records["features"] = torch.cat(list(features.values())).float().numpy()
        try:
            self._write(records)
        except OSError as error:
            self.problem = (
                f"features cannot be kept in {self.folder} ({error.strerror}); this run holds them "
                "in memory, and the next computes them again: free some space, or set "
                "OMNIALIGN_CACHE to another folder"
            )
            self._in_memory.append(records)

    def _write(self, records: np.ndarray[Any, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        about = self.folder / "about.json"
        partial = self.folder / f"{uuid.uuid4().hex}.partial"
        try:
            if not about.exists():
                partial.write_text(json.dumps(self._about) + "\n", "utf-8")
                os.replace(partial, about)
            with partial.open("wb") as file:
                np.save(file, records)
            os.replace(partial, self.folder / f"{_digest(records)}.npy")
        finally:
            partial.unlink(missing_ok=True)

    def open(self) -> tuple[StoredRows, dict[bytes, Place]]:
        """All that is stored and sound, and where each item is. Damaged chunks are deleted.

        Of an item that two runs have written at once, the older features count, so that a resumed
        run finds the same.
        """
        chunks: list[Chunk] = []
        places: dict[bytes, Place] = {}
        offsets = [0]
        for chunk in (*_oldest_first(self.folder), *self._in_memory):
            records = self._sound(chunk) if isinstance(chunk, Path) else chunk
            if records is None:
                continue
            keys = np.ascontiguousarray(records["key"]).view(np.uint8).reshape(-1, KEY_BYTES)
            firsts = [0, *(1 + np.flatnonzero((keys[1:] != keys[:-1]).any(1))).tolist()]
            for first, end in zip(firsts, [*firsts[1:], len(records)], strict=True):
                places.setdefault(keys[first].tobytes(), (offsets[-1] + first, end - first))
            chunks.append(chunk)
            offsets.append(offsets[-1] + len(records))
        return StoredRows(chunks, offsets), places

    def _sound(self, chunk: Path) -> np.ndarray[Any, Any] | None:
        """The records of a chunk whose content is what its name says; another is deleted."""
        try:
            records: np.ndarray[Any, Any] = np.load(chunk, mmap_mode="r")
            right = records.dtype == self._dtype and records.ndim == 1
            if right and (chunk in self._checked or _digest(records) == chunk.stem):
                self._checked.add(chunk)
                return records
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            pass
        with suppress(OSError):
            chunk.unlink()
        return None


class StoredRows:
    """Stored features, read by memory map. Pickles as the names of its files."""

    def __init__(self, chunks: Sequence[Chunk], offsets: Sequence[int]) -> None:
        self._chunks = list(chunks)
        self._offsets = list(offsets)
        self._opened: dict[int, np.ndarray[Any, Any]] = {}

    def __getitem__(self, row: int) -> Tensor:
        """The features `(w,)` of one segment."""
        number = bisect_right(self._offsets, row) - 1
        if number not in self._opened:
            chunk = self._chunks[number]
            opened = np.load(chunk, mmap_mode="r") if isinstance(chunk, Path) else chunk
            self._opened[number] = np.asarray(opened["features"])  # plain, so that rows are quick
        return torch.from_numpy(self._opened[number][row - self._offsets[number]].copy())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": {}}


def _digest(records: np.ndarray[Any, Any]) -> str:
    return hashlib.blake2b(records.view(np.uint8).data, digest_size=KEY_BYTES).hexdigest()


def _oldest_first(folder: Path) -> list[Path]:
    found: list[tuple[int, Path]] = []
    for path in folder.glob("*.npy"):
        try:
            found.append((path.stat().st_mtime_ns, path))
        except FileNotFoundError:
            continue
    return [path for _, path in sorted(found)]


def cache_folder() -> Path:
    """Where features are kept: `OMNIALIGN_CACHE`, by default `~/.cache/omnialign`."""
    return Path(os.environ.get("OMNIALIGN_CACHE") or Path.home() / ".cache" / "omnialign")


@dataclass(frozen=True)
class Kept:
    """What one frozen encoder has on disk."""

    folder: Path
    modality: str
    encoder: str
    num_bytes: int


def kept_features() -> list[Kept]:
    """All that is in the cache folder, largest first."""
    found: list[Kept] = []
    for folder in (cache_folder() / "features").glob("*"):
        num_bytes = sum(path.stat().st_size for path in folder.glob("*"))
        try:
            about = json.loads((folder / "about.json").read_text("utf-8"))
        except (OSError, ValueError):
            about = {}
        found.append(
            Kept(
                folder,
                str(about.get("modality", "unknown")),
                str(about.get("encoder", "unknown")),
                num_bytes,
            )
        )
    return sorted(found, key=lambda kept: -kept.num_bytes)


def clear_features() -> int:
    """Deletes all kept features; gives the number of bytes."""
    num_bytes = sum(kept.num_bytes for kept in kept_features())
    shutil.rmtree(cache_folder() / "features", ignore_errors=True)
    return num_bytes
