"""A clip as a small animation for pages."""

from __future__ import annotations

from io import BytesIO

import torch
from PIL import Image

from omnialign_video.clip import Clip

MAX_FRAMES = 24
MAX_SIDE = 128


def animated_webp(clip: Clip) -> bytes:
    """At most `MAX_FRAMES`, evenly chosen, that take as long as the clip does."""
    T = len(clip)
    chosen = torch.linspace(0, T - 1, min(T, MAX_FRAMES)).round().long()
    pictures = [Image.fromarray(f) for f in clip.frames[chosen].permute(0, 2, 3, 1).numpy()]
    for picture in pictures:
        picture.thumbnail((MAX_SIDE, MAX_SIDE))
    starts = clip.times_seconds[chosen]
    end = clip.times_seconds[:1] + max(clip.duration_seconds, 0.1)
    milliseconds = torch.cat([starts, end]).diff().mul(1000).round().int().clamp(min=20)
    file = BytesIO()
    pictures[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=milliseconds.tolist(),
        loop=0,
        quality=70,
    )
    return file.getvalue()
