"""Video for OmniAlign.

Axes: T frames, H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omnialign import Claim, Modality, Preview, Segment, Unread, hookimpl
from omnialign_video.clip import Clip

if TYPE_CHECKING:
    import torch

__all__ = ["Clip", "VideoModality", "omnialign_modalities"]


class VideoModality(Modality[Clip]):
    """Moving pictures as a `Clip`: uint8 RGB frames `(T, 3, H, W)` and the second each appears.

    At most 8 frames a second, 960 frames and 256 pixels a side are kept, so that any file fits in
    memory. Rotation marks are applied; a variable frame rate is followed by its time stamps.
    """

    name = "video"
    suffixes = frozenset({".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".webp", ".apng"})
    long_input = "windows"
    templates = (
        "a video of a {}",
        "a clip of a {}",
        "a video of the {}",
        "an animation of a {}",
        "footage of {}",
        "{}",
    )
    augmentations: ClassVar = {
        "crop": "omnialign_video.augmentations:Crop",
        "flip": "omnialign_video.augmentations:Flip",
        "rotation": "omnialign_video.augmentations:Rotation",
        "color_jitter": "omnialign_video.augmentations:ColorJitter",
        "erasing": "omnialign_video.augmentations:Erasing",
        "temporal_jitter": "omnialign_video.augmentations:TemporalJitter",
    }
    encoders: ClassVar = {
        "frames": "omnialign_video.frames:FramesEncoder",
        "spacetime": "omnialign_video.spacetime:SpaceTimeEncoder",
    }
    default_encoder = "frames"

    def read(self, source: Any) -> Clip:
        """A clip from a path, bytes, an open binary file, a `Clip`, or `(frames, fps)`.

        `frames` is a list of PIL images, or an array or tensor `(T, H, W, 3)` of uint8. Raises
        `ReadError` for anything else, for a file without a picture and for one of no length.
        """
        from omnialign_video.reading import read_clip

        return read_clip(source)

    def open(self, source: Any, resolution: float | None = None) -> Clip | Unread[Clip]:
        """A container of more than a quarter of a minute comes undecoded."""
        from omnialign_video.footage import footage

        return footage(source) or self.read(source)

    def claim(self, source: Any) -> Claim:
        """Owns clips, video containers and animations; a still GIF or WebP it could read."""
        from omnialign_video.sniffing import claim_content, claim_pictures

        if isinstance(source, Clip):
            return Claim.OWNS
        if isinstance(source, bytes) or hasattr(source, "read"):
            return claim_content(source)
        suffix = Path(source).suffix.lower() if hasattr(source, "__fspath__") else ""
        if suffix in {".gif", ".webp", ".png"}:
            return claim_content(source)
        return max(super().claim(source), claim_pictures(source))

    def segments(self, sample: Clip, window: float) -> list[Segment[Clip]]:
        """Cuts evenly into as few stretches of at most `window` seconds as cover the clip.

        A stretch in which no frame appears belongs to the one before it.
        """
        return sample.split(window)

    def preview(self, sample: Clip) -> Preview:
        """An animated WebP: at most 24 frames and 128 pixels a side, at the clip's own speed."""
        from omnialign_video.preview import animated_webp

        return Preview("image/webp", animated_webp(sample))

    def example_samples(self, n: int) -> list[Clip]:
        """Squares of random colour that move at random before a plain ground, at 8 frames a
        second for 0.5 to 1.5 seconds."""
        import torch

        return [_moving_square(torch.Generator().manual_seed(index)) for index in range(n)]


def _moving_square(random: torch.Generator) -> Clip:
    import torch

    T = int(torch.randint(4, 13, (), generator=random))
    ground, colour = torch.randint(0, 256, (2, 3, 1, 1), generator=random, dtype=torch.uint8)
    frames = ground.expand(T, 3, 36, 48).clone()
    start_y, start_x, end_y, end_x = (torch.rand(4, generator=random) * 24).tolist()
    for t in range(T):
        y = round(start_y + (end_y - start_y) * t / T)
        x = round(start_x + (end_x - start_x) * t / T)
        frames[t, :, y : y + 12, x : x + 12] = colour
    return Clip(frames, torch.arange(T) / 8)


@hookimpl
def omnialign_modalities() -> list[VideoModality]:
    return [VideoModality()]
