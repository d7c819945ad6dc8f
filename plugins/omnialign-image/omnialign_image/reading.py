"""Pictures from files and from the forms people already hold.

Axes: H height, W width, C channels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from omnialign import ReadError
from omnialign_image.colours import to_rgb
from omnialign_image.formats import MAX_PIXELS, open_picture, pillow_errors

SPARE = 1.5
"""Times the pixels that are wanted. Scaled down from there, a photo's embedding has a cosine above
0.998 to that of the photo scaled down from its full size; without it, above 0.98."""


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
        with pillow_errors(source):
            return _from_picture(source, source)
    with pillow_errors(source), open_picture(source) as picture:
        return _from_picture(source, picture, resolution)


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
    return _tensor(to_rgb(source, _upright(picture), getattr(picture, "tag_v2", {})))


def _upright(picture: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; broken metadata beside sound pixels is ignored."""
    try:
        turned = picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except Exception:
        return picture


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
    return _tensor(to_rgb(source, Image.fromarray(np.ascontiguousarray(values)), {}))


def _tensor(picture: Image.Image) -> Tensor:
    """`(3, H, W)`, its own memory, in which a pixel's channels lie together: so the decoder leaves
    them, and so scaling is fastest."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
