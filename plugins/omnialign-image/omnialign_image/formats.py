"""Picture files: what they are by their first bytes, and what opens them."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from omnialign import ReadError

MAX_PIXELS = 100_000_000
"""Of one picture, read from its header: 300 MB decoded."""
MAX_FILE_BYTES = 512 * 1024**2
"""Of bytes taken from an open file."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""Pillow's own; HEIC is read by pillow-heif, where it is installed."""
WANTED = "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC"
INSTALL_HEIF = 'pip install "omnialign-image[heif]"'
HEAD_BYTES = 64
STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
}
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC"}
"""Of the `ftyp` box that opens the files of the HEIF family."""


def magic(source: bytes | Any) -> str | None:
    """The format that the first bytes announce; an open file keeps its position."""
    head = source[:HEAD_BYTES] if isinstance(source, bytes) else _head(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        if head[8:12] == b"mif1":  # any of the family; those that it is compatible with follow
            return "AVIF" if b"avif" in head[16:] else "HEIC"
        return BRANDS.get(head[8:12])
    return next((name for start, name in STARTS.items() if head.startswith(start)), None)


def _head(file: Any) -> bytes:
    position = file.tell()
    head = file.read(HEAD_BYTES)
    file.seek(position)
    return head if isinstance(head, bytes) else b""


def is_animated(source: Any) -> bool:
    """Whether a GIF, WebP or PNG holds more than one frame; false where it cannot be opened."""
    file = BytesIO(source) if isinstance(source, bytes) else source
    position = file.tell() if hasattr(file, "tell") else None
    try:
        with (
            pillow_errors(source),
            Image.open(file, formats=("PNG", "WEBP", "GIF")) as picture,
        ):
            return bool(getattr(picture, "is_animated", False))
    except ReadError:
        return False
    finally:
        if position is not None:
            file.seek(position)


def open_picture(source: Any) -> Image.Image:
    """A path, bytes or an open binary file as a picture whose pixels are not yet decoded.

    Raises `ReadError`, and inside of `pillow_errors` nothing else.
    """
    file = _opened(source)
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        pass
    if isinstance(file, BytesIO):
        head = file.getvalue()[:HEAD_BYTES]
    else:
        with Path(file).open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    found = magic(head)
    if found == "HEIC":
        return _heic(source, file)
    if not head:
        raise ReadError(source, "it is empty: 0 bytes")
    if found is None:
        raise ReadError(source, f"it is no picture; wanted {WANTED}")
    raise ReadError(
        source,
        f"it begins as {found}, and is damaged, cut short, or of a kind that Pillow does not read; "
        "save it as PNG with 8 or 16 bits a channel",
    )


def _heic(source: Any, file: Any) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ReadError(source, f"it is HEIC, which wants pillow-heif: {INSTALL_HEIF}") from None
    return HeifImageFile(file)


def _opened(source: Any) -> Any:
    """What Pillow opens: a path, or the bytes as a file."""
    if isinstance(source, str | PathLike):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        return BytesIO(source)
    if not hasattr(source, "read"):
        raise ReadError(
            source,
            "an image is a path, bytes, an open binary file, a PIL image, an array (H, W[, C]) "
            "or a tensor (3, H, W)",
        )
    data = source.read(MAX_FILE_BYTES + 1)
    if not isinstance(data, bytes):
        raise ReadError(source, "the file is open as text; open it in binary mode ('rb')")
    if len(data) > MAX_FILE_BYTES:
        raise ReadError(source, f"the file is larger than {MAX_FILE_BYTES} bytes")
    return BytesIO(data)


@contextmanager
def pillow_errors(source: Any) -> Generator[None]:
    """Turns whatever a decoder raises into `ReadError`, and keeps its warnings quiet.

    Pillow's decoders raise many types on hostile input (OSError, SyntaxError, struct.error,
    zlib.error, IndexError …), so all are taken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ReadError:
            raise
        except Image.DecompressionBombError:
            raise ReadError(
                source, f"it has more than {MAX_PIXELS} pixels; scale it down first"
            ) from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise ReadError(source, error.strerror or str(error)) from error
        except Exception as error:
            found = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ReadError(source, f"{found}; is it damaged or cut short?") from error
