"""The members of a tar, by their headers alone.

The format is POSIX ustar with its pax extensions, and GNU tar's long names. Python's `tarfile`
takes a damaged header for the end of the archive, and takes several times as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from omnialign.errors import DataError

BLOCK = 512
MAX_EXTENSION_BYTES = 2**20
"""Of a long name or of pax records, which are read into memory."""


@dataclass(frozen=True)
class Member:
    """A regular file: its name and where its bytes lie."""

    name: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """All regular files of a tar, in order; folders are passed over.

    Raises `DataError` that names the tar, and the member where there is one, for anything but a
    whole, uncompressed tar of files.
    """
    try:
        with path.open("rb") as file:
            yield from _Walk(path, file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


class _Walk:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._num_bytes = path.stat().st_size

    def __iter__(self) -> Iterator[Member]:
        offset = 0
        stated: dict[str, str] = {}  # by the extension headers before a member
        last = ""
        while any(header := self._header(offset, last)):
            kind, name, size = header[156:157], _name(header), self._size(header, offset)
            if kind in b"0\0":
                name = stated.get("path", name)
                size = self._number(stated["size"], name) if "size" in stated else size
            offset += BLOCK
            if offset + size > self._num_bytes:
                raise self._fault(name, f"is cut off: it wants {size} bytes, as its header says")
            if kind in b"xL":
                stated |= self._extension(kind, name, size)
            elif kind in b"0\0" and (name[-1:] != "/" or size):
                if any(key.startswith("GNU.sparse") for key in stated):
                    raise self._fault(name, "is sparse; write the tar without --sparse")
                yield Member(name, offset, size)
            elif kind not in b"05\0g":
                raise self._fault(
                    name,
                    f"is no regular file but of type {kind!r}; write the tar with "
                    "--dereference, of files and folders alone",
                )
            if kind not in b"xL":
                stated, last = {}, name
            offset += -(-size // BLOCK) * BLOCK

    def _header(self, offset: int, last: str) -> bytes:
        self._file.seek(offset)
        header = self._file.read(BLOCK)
        if len(header) == BLOCK and (not any(header) or _is_sound(header)):
            return header
        if header[:2] == b"\x1f\x8b" and offset == 0:
            raise DataError(f"{self._path}: is compressed, and has no random access; gunzip it")
        if offset == 0:
            raise DataError(f"{self._path}: is no tar file")
        what = "has a damaged header" if len(header) == BLOCK else "is cut off: it has no end mark"
        raise DataError(f"{self._path}: {what} after member '{last}'; write it again")

    def _size(self, header: bytes, offset: int) -> int:
        field = header[124:136]
        if field[0] == 0x80:  # GNU's form of numbers from 8 GiB on
            return int.from_bytes(field[1:], "big")
        text = field.strip(b" \0").decode("ascii", "replace")
        if not re.fullmatch("[0-7]*", text):
            raise self._fault(_name(header), f"has no size but '{text}'")
        return int(text or "0", 8)

    def _extension(self, kind: bytes, name: str, size: int) -> dict[str, str]:
        """What a GNU long name or pax records say of the next member."""
        if size > MAX_EXTENSION_BYTES:
            raise self._fault(name, f"has an extension header of {size} bytes")
        data = self._file.read(size)
        if kind == b"L":
            return {"path": data.rstrip(b"\0").decode("utf-8", "replace")}
        found: dict[str, str] = {}
        while data:
            length = self._number(data.partition(b" ")[0].decode("ascii", "replace"), name)
            if not 0 < length <= len(data):
                raise self._fault(name, "has damaged pax records")
            record, data = data[:length], data[length:]
            key, _, value = record.partition(b" ")[2].rstrip(b"\n").partition(b"=")
            found[key.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        return found

    def _number(self, text: str, name: str) -> int:
        if not re.fullmatch("[0-9]{1,18}", text):
            raise self._fault(name, f"has '{text}' in its pax records, where a number is wanted")
        return int(text)

    def _fault(self, name: str, what: str) -> DataError:
        return DataError(f"{self._path}: member '{name}' {what}")


def _is_sound(header: bytes) -> bool:
    """Whether the header's checksum is that of its bytes."""
    stated = header[148:156].strip(b" \0")
    seen = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    return re.fullmatch(b"[0-7]+", stated) is not None and int(stated, 8) == seen


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "replace")
