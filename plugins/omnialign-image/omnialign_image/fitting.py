"""Brings pictures of any size to one square.

Axes: H height, W width, S side of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

Fit = Literal["pad", "squash", "crop"]
"""`pad` scales the longer side and fills the rest with white; `squash` scales both sides and loses
the aspect ratio; `crop` scales the shorter side and loses what lies outside the central square."""
WHITE = 255.0


@dataclass(frozen=True)
class FitSquare:
    """uint8 `(3, H, W)` to uint8 `(3, S, S)`, by antialiased bilinear scaling.

    Channels are red, green, blue, from 0 to 255. `pad` scales the longer side to S, the other to
    the nearest whole number of pixels, and fills the rest with white, 255, the picture in the
    middle and an odd pixel after it; `squash` scales both sides to S; `crop` first takes the
    central square.

    It stays uint8, a quarter of the memory between workers; the encoder makes it float.
    """

    image_size: int
    fit: Fit

    def __call__(self, sample: Tensor) -> Tensor:
        S = self.image_size
        if self.fit == "crop":
            sample = functional.center_crop(sample, [min(sample.shape[-2:])] * 2)
        H, W = sample.shape[-2:]
        scale = S / max(H, W)
        size = [S, S] if self.fit == "squash" else [max(1, round(n * scale)) for n in (H, W)]
        if size != [H, W]:
            sample = functional.resize(sample, size, antialias=True)
        top, left = ((S - n) // 2 for n in size)
        if size != [S, S]:
            border = [left, top, S - size[1] - left, S - size[0] - top]
            sample = functional.pad(sample, border, fill=WHITE)
        return sample


def to_float(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 to about -2..2, as the encoders that are trained from scratch take it."""
    return (pixels.to(dtype) - 127.5) / 64
