"""One scene, any modality: the in-memory forms that OmniAlign's readers take.

Axes: T frames or times, H = W pixels, N points.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from omnialign import OmniAlignError
from omnialign_scenes import picture, solid, sound
from omnialign_scenes.draws import Draws
from omnialign_scenes.grammar import MODALITIES, Scene

_BOUNDS: dict[str, tuple[float, float]] = {
    "image_size": (32, 1024),
    "video_size": (32, 1024),
    "num_frames": (2, 256),
    "clip_seconds": (1, 30),
    "sample_rate_hz": (8000, 96000),
    "timeseries_rate_hz": (400, 10000),
    "num_points": (64, 65536),
}


@dataclass(frozen=True)
class Rendering:
    """How large and how fine scenes are rendered; `clip_seconds` is for all that has a clock.

    Raises `OmniAlignError` for a value at which a scene could not be told, or would be vast.
    """

    image_size: int = 64
    video_size: int = 64
    num_frames: int = 8
    clip_seconds: float = 1.5
    sample_rate_hz: int = 16000
    timeseries_rate_hz: float = 500.0
    num_points: int = 512

    def __post_init__(self) -> None:
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), _BOUNDS[field.name]
            if not low <= value <= high:
                raise OmniAlignError(f"{field.name} is from {low} to {high}, not {value}")


def render(
    scene: Scene, modality: str, seed: int | str = 0, rendering: Rendering | None = None
) -> Any:
    """Renders the scene: the same bytes for the same arguments, everywhere.

    `seed` draws all that the caption leaves open: places, shades, turns, loudness, viewpoint.

    Returns:
        image: uint8 `(H, W, 3)`.
        video: (uint8 `(T, H, W, 3)`, frames a second).
        audio: (float32 `(T,)` from -1 to 1, sample_rate_hz).
        pointcloud: float32 `(N, 6)`, x, y (up), z, and red, green, blue from 0 to 1.
        timeseries: (float32 `(T, 3)` in g, sample_rate_hz).

    Raises:
        OmniAlignError: a modality that does not exist.
    """
    r = rendering or Rendering()
    draws = Draws("render", modality, seed)
    match modality:
        case "image":
            return picture.image(scene, draws, r.image_size)
        case "video":
            frames = picture.video(scene, draws, r.video_size, r.num_frames)
            return frames, r.num_frames / r.clip_seconds
        case "audio":
            values = sound.audio(scene, draws, r.sample_rate_hz, r.clip_seconds)
            return values, r.sample_rate_hz
        case "pointcloud":
            return solid.pointcloud(scene, draws, r.num_points)
        case "timeseries":
            trace = sound.timeseries(scene, draws, r.timeseries_rate_hz, r.clip_seconds)
            return trace, r.timeseries_rate_hz
        case _:
            raise OmniAlignError(
                f"scenes have no modality '{modality}'; valid: {', '.join(MODALITIES)}"
            )
