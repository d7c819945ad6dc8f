"""The files of a library, by id: only such as still are what was indexed."""

from __future__ import annotations

import mimetypes
import os
import stat
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from omnialign.data.features import content_key
from omnialign.registry import registry
from omnialign.serve.limits import RefusedError

CHUNK_BYTES = 2**18
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
"""Content-Security-Policy of what was indexed: should it be a page, it can do nothing."""
_MAX_KNOWN = 4096
_MAX_DIGITS = 19
_ABOVE_OFFICIAL = {".glb": "model/gltf-binary", ".opus": "audio/ogg", ".flac": "audio/flac"}
_SHOWN = ("image/", "audio/", "video/")


def mime_of(path: str) -> str:
    """What a file is, by its suffix."""
    suffix = Path(path).suffix.lower()
    return (
        _ABOVE_OFFICIAL.get(suffix)
        or mimetypes.guess_type(f"x{suffix}")[0]
        or ("application/octet-stream")
    )


class IndexedFiles:
    """Opens rows' files.

    A file that was exchanged since, be it by a link to something private, has another content than
    its row says, and is refused. Its content is read once, and then again when the file's own
    numbers (which nobody can set) have changed.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], None] = OrderedDict()

    def open(self, row: dict[str, Any]) -> int:
        """A descriptor; raises `RefusedError` (410) where it is not what was indexed."""
        path = row["path"]
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise RefusedError(410, f"its file cannot be opened: {error.strerror}") from None
        try:
            self._check(row, file)
        except BaseException:
            os.close(file)
            raise
        return file

    def check(self, row: dict[str, Any]) -> None:
        """Raises as `open` does."""
        os.close(self.open(row))

    def _check(self, row: dict[str, Any], file: int) -> None:
        before = _identity(os.fstat(file))
        key = (row["path"], row["content"], *before)
        if key in self._known:
            self._known.move_to_end(key)
            return
        changed = RefusedError(410, "its file has changed since it was indexed; index it again")
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise changed
            content = content_key(registry().modality(row["modality"]), Path(row["path"]))
            is_same = before == _identity(os.fstat(file)) == _identity(os.stat(row["path"]))
        except OSError:
            raise changed from None
        if content is None or row["content"] != f"{row['modality']}:{content.hex()}" or not is_same:
            raise changed
        self._known[key] = None
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def file_response(file: int, row: dict[str, Any], headers: Headers) -> Response:
    """The content of a descriptor, or the range that is asked for.

    The descriptor is closed at the end, also where that is `RefusedError` (416).
    """
    try:
        response = _file_response(file, row, headers)
    except BaseException:
        os.close(file)
        raise
    if not isinstance(response, _FileResponse):
        os.close(file)
    return response


class _FileResponse(StreamingResponse):
    """Closes the descriptor, also where the client has left before the first byte."""

    def __init__(self, file: int, start: int, end: int, *args: Any) -> None:
        super().__init__(_chunks(file, start, end), *args)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            os.close(self._file)


def _file_response(file: int, row: dict[str, Any], headers: Headers) -> Response:
    size = os.fstat(file).st_size
    mime = mime_of(row["path"])
    about = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-security-policy": POLICY,
        "etag": f'"{row["content"].rpartition(":")[2]}"',
        "content-disposition": "inline" if mime.startswith(_SHOWN) else "attachment",
    }
    if headers.get("if-none-match") == about["etag"]:
        return Response(status_code=304, headers=about)
    stated = headers.get("range") if headers.get("if-range") in (None, about["etag"]) else None
    status, start, end = 200, 0, size
    if stated is not None:
        wanted = byte_range(stated, size)
        if wanted is None:
            raise RefusedError(
                416,
                f"the range '{stated[:80]}' is not in 0-{size - 1}",
                Content_Range=f"bytes */{size}",
            )
        status, (start, end) = 206, wanted
        about["content-range"] = f"bytes {start}-{end - 1}/{size}"
    about["content-length"] = str(end - start)
    return _FileResponse(file, start, end, status, about, mime)


def byte_range(stated: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of `bytes=…`; of several ranges the first; None if there is none.

    Follows RFC 9110, section 14.
    """
    unit, _, ranges = stated.partition("=")
    first, dash, last = ranges.partition(",")[0].strip().partition("-")
    numbers = [part for part in (first, last) if part]
    if unit.strip() != "bytes" or not dash or not numbers or not all(map(_is_number, numbers)):
        return None
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    return (start, end) if start < end else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


async def _chunks(file: int, start: int, end: int) -> AsyncIterator[bytes]:
    while start < end:
        size = min(CHUNK_BYTES, end - start)
        chunk = await anyio.to_thread.run_sync(os.pread, file, size, start)
        if not chunk:
            return
        start += len(chunk)
        yield chunk
