"""Brings clips of any length and size to one shape.

Axes: T frames of a clip, F frames kept, H height, W width, S side of the square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from omnialign_video.clip import Clip

Fit = Literal["pad", "squash", "crop"]
"""`pad` scales the longer side and fills the rest with white; `squash` scales both sides and loses
the aspect ratio; `crop` scales the shorter side and loses what lies outside the central square."""
WHITE = 255.0


@dataclass(frozen=True)
class FitClip:
    """A clip to uint8 `(F, 3, S, S)`.

    The frames are those that stand at F instants, evenly from the first frame's to the last's: a
    clip is spread over its own length, and a short one repeats frames. Scaling is antialiased and
    bilinear. It stays uint8, a quarter of the memory between workers; the encoder makes it float.
    """

    num_frames: int
    image_size: int
    fit: Fit

    def __call__(self, sample: Clip) -> Tensor:
        S, times = self.image_size, sample.times_seconds
        instants = torch.linspace(float(times[0]), float(times[-1]), self.num_frames)
        standing = torch.searchsorted(times, instants + 1e-4, right=True) - 1
        frames = sample.frames[standing.clamp(min=0)]
        if self.fit == "crop":
            frames = functional.center_crop(frames, [min(frames.shape[-2:])] * 2)
        H, W = frames.shape[-2:]
        scale = S / max(H, W)
        size = [S, S] if self.fit == "squash" else [max(1, round(n * scale)) for n in (H, W)]
        if size != [H, W]:
            frames = functional.resize(frames, size, antialias=True)
        top, left = ((S - n) // 2 for n in size)
        if size != [S, S]:
            border = [left, top, S - size[1] - left, S - size[0] - top]
            frames = functional.pad(frames, border, fill=WHITE)
        return frames


def to_float(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 to about -2..2."""
    return (pixels.to(dtype) - 127.5) / 64
