"""Pictures from files and from the forms people already hold.

Axes: H height, W width, C channels.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from omnialign import ReadError

MAX_PIXELS = 100_000_000
"""Of one picture, read from its header: 300 MB decoded."""
MAX_FILE_BYTES = 512 * 1024**2
"""Of bytes taken from an open file."""
SPARE = 1.5
"""Times the pixels that are wanted. Scaled down from there, a photo's embedding has a cosine above
0.998 to that of the photo scaled down from its full size; without it, above 0.98."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
WANTED = "PNG, JPEG, WebP, GIF, BMP or TIFF"


def read_image(source: Any, resolution: float | None = None) -> Tensor:
    """Any readable form to uint8 RGB `(3, H, W)`; raises `ReadError`.

    Of a JPEG no more is decoded than `resolution` pixels on the shorter side want, and `SPARE`: its
    cosine transform gives a half, a quarter or an eighth of the size at less cost.
    """
    if isinstance(source, Tensor):
        if source.ndim != 3:
            raise ReadError(source, "a tensor is (1, H, W), (3, H, W) or (4, H, W)")
        values = source.detach().cpu().movedim(0, -1)
        values = values.float() if values.is_floating_point() else values
        return _from_array(source, values.numpy())
    if isinstance(source, np.ndarray):
        return _from_array(source, source)
    if isinstance(source, Image.Image):
        with _pillow_errors(source):
            return _from_picture(source, source)
    with _pillow_errors(source), Image.open(_opened(source), formats=FORMATS) as picture:
        return _from_picture(source, picture, resolution)


def magic(source: bytes | Any) -> str | None:
    """The format that the first bytes announce; an open file keeps its position."""
    head = source[:16] if isinstance(source, bytes) else _head(source)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    starts = {
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"\xff\xd8\xff": "JPEG",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    return next((name for start, name in starts.items() if head.startswith(start)), None)


def is_animated(source: Any) -> bool:
    """Whether a GIF, WebP or PNG holds more than one frame; false where it cannot be opened."""
    file = BytesIO(source) if isinstance(source, bytes) else source
    position = file.tell() if hasattr(file, "tell") else None
    try:
        with (
            _pillow_errors(source),
            Image.open(file, formats=("PNG", "WEBP", "GIF")) as picture,
        ):
            return bool(getattr(picture, "is_animated", False))
    except ReadError:
        return False
    finally:
        if position is not None:
            file.seek(position)


def _head(file: Any) -> bytes:
    position = file.tell()
    head = file.read(16)
    file.seek(position)
    return head if isinstance(head, bytes) else b""


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
def _pillow_errors(source: Any) -> Generator[None]:
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
        except UnidentifiedImageError:
            raise ReadError(source, f"it is no picture; wanted {WANTED}") from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise ReadError(source, error.strerror or str(error)) from error
        except Exception as error:
            found = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ReadError(source, f"{found}; is it damaged or cut short?") from error


def _from_picture(source: Any, picture: Image.Image, resolution: float | None = None) -> Tensor:
    W, H = picture.size
    if W * H > MAX_PIXELS or W * H == 0:
        raise ReadError(
            source, f"it has {W} × {H} pixels; wanted 1 to {MAX_PIXELS}: scale it down first"
        )
    if resolution is not None:
        side = max(1, math.ceil(SPARE * resolution))
        picture.draft(picture.mode, (side, side))  # no larger than needed; does nothing but to JPEG
    picture.load()
    return _tensor(_rgb(source, _upright(picture)))


def _upright(picture: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; broken metadata beside sound pixels is ignored."""
    try:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:
        return picture


def _rgb(source: Any, picture: Image.Image) -> Image.Image:
    """Any Pillow mode to RGB.

    16-bit values keep their range. 32-bit integers and floats state no range, so they are
    stretched from their minimum to their maximum.
    """
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, np.float64)
        if not np.isfinite(values).all():
            raise ReadError(source, "its pixels are not all finite")
        low, high = values.min(), values.max()
        values = (values - low) / max(high - low, 1e-12) * 255
        return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _from_array(source: Any, values: np.ndarray[Any, Any]) -> Tensor:
    """`(H, W)` or `(H, W, 1|3|4)` to RGB."""
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.size == 0:
        raise ReadError(
            source, "an array is (H, W), (H, W, 3) or (H, W, 4), a tensor (3, H, W); none empty"
        )
    if values.dtype == np.uint16:
        values = values / 65535
    if values.dtype.kind == "f":
        if not (values.min() >= 0 and values.max() <= 1):
            raise ReadError(source, "floats must lie in 0..1; scale them, or give uint8")
        values = (values * 255).round()
    elif values.dtype == np.bool_:
        values = values * np.uint8(255)
    elif values.dtype != np.uint8:
        raise ReadError(source, f"its type is {values.dtype}; wanted uint8, or floats in 0..1")
    values = values.astype(np.uint8)
    if values.shape[2] == 1:
        values = values.repeat(3, axis=2)
    return _tensor(_rgb(source, Image.fromarray(np.ascontiguousarray(values))))


def _tensor(picture: Image.Image) -> Tensor:
    """`(3, H, W)`, its own memory, in which a pixel's channels lie together: so the decoder leaves
    them, and so scaling is fastest."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
