"""Any mode of Pillow to 8-bit sRGB.

Axes: H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from omnialign import ReadError

PHOTOMETRIC, SAMPLE_FORMAT = 262, 339
"""TIFF tags."""
SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
"""Bytes 16 to 19 of an ICC profile, to the mode that it describes."""
SAME = 2
"""Steps of 255: a profile that changes no colour by more is taken for sRGB and left alone."""


def to_rgb(source: Any, picture: Image.Image, tags: Mapping[int, Any]) -> Image.Image:
    """A decoded picture of any mode, with its TIFF tags, as sRGB over white.

    16-bit values keep their range. Signed and 32-bit ones and floats state no range, so they are
    stretched from their minimum to their maximum. A colour profile is applied where it fits the
    pixels. Raises `ReadError` for pixels that are not finite.
    """
    profile = picture.info.get("icc_profile")
    values = _wide(source, picture, tags)
    if values is not None:
        picture = Image.fromarray(values.round().astype(np.uint8))
    is_gray = picture.mode in ("1", "L", "LA")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if picture.mode not in ("RGB", "CMYK"):
        picture = picture.convert("RGB")
    if profile:
        picture = _managed(picture, profile, is_gray)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _wide(
    source: Any, picture: Image.Image, tags: Mapping[int, Any]
) -> np.ndarray[Any, Any] | None:
    """`(H, W)` 0 to 255 of modes with more than 8 bits, and of signed ones; None of all others."""
    signed = tags.get(SAMPLE_FORMAT) == (2,)
    if picture.mode.startswith("I;16"):
        raw = np.asarray(picture)
        values = raw / 257
        if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow minds up to 8 bits
            values = 255 - values
        values[raw == picture.info.get("transparency", -1)] = 255
        return values
    if picture.mode not in ("I", "F") and not (picture.mode == "L" and signed):
        return None
    values = np.asarray(picture)
    if picture.mode == "L":
        values = values.view(np.int8)
    elif picture.mode == "I" and tags.get(SAMPLE_FORMAT) == (1,):
        values = values.view(np.uint32)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ReadError(source, "its pixels are not all finite")
    low, high = values.min(), values.max()
    return (values - low) / max(high - low, 1e-12) * 255


def _managed(picture: Image.Image, profile: bytes, is_gray: bool) -> Image.Image:
    """From the colours of a profile to sRGB; as it is where the profile is broken or another's."""
    found = _transform(profile)
    if found is None:
        return picture
    mode, transform = found
    if mode != ("L" if is_gray else picture.mode):
        return picture
    return transform.apply(picture.convert(mode))


@lru_cache(maxsize=64)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The mode that a profile describes, and its way to sRGB; None where that changes nothing."""
    try:
        mode = SPACES[profile[16:20]]
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, KeyError):
        return None
    if mode == "RGB":
        grid = np.indices((6, 6, 6), np.uint8).reshape(3, 36, 6) * 51
        colours = Image.fromarray(np.ascontiguousarray(grid.transpose(1, 2, 0)))
        change = np.asarray(colours, np.int16) - np.asarray(transform.apply(colours), np.int16)
        if abs(change).max() <= SAME:
            return None
    return mode, transform
