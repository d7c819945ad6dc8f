"""Videos through the models of `transformers`.

Axes: T frames of a clip, F frames taken, H height, V breadth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from transformers import AutoImageProcessor, AutoVideoProcessor

from omnialign import ModelError
from omnialign_pretrained.adapter import PretrainedEncoder, first, settings_hash, stack
from omnialign_pretrained.checkpoint import Origin
from omnialign_pretrained.families import MOVING, Pooling

USUAL_FRAMES = 16
"""Of a model that takes any number."""


class Footage(Protocol):
    """What is asked of a sample of video."""

    frames: Tensor
    """uint8 RGB `(T, 3, H, V)`."""
    times_seconds: Tensor
    """When each appears, `(T,)`, increasing."""


@dataclass(frozen=True, eq=False)
class ProcessFrames:
    """A clip to what the model's own processor makes of `num_frames` of its frames.

    They are those that stand at instants spread evenly from the first frame's to the last's, so a
    short clip repeats frames.
    """

    processor: Any = field(repr=False)
    num_frames: int
    settings: str
    """A hash that identifies the processor."""

    def __call__(self, sample: Footage) -> dict[str, Tensor]:
        times = sample.times_seconds
        instants = torch.linspace(float(times[0]), float(times[-1]), self.num_frames)
        standing = torch.searchsorted(times, instants + 1e-4, right=True) - 1
        frames = sample.frames[standing.clamp(min=0)]
        if hasattr(self.processor, "sample_frames"):
            options = {"do_sample_frames": False, "input_data_format": "channels_first"}
            return first(self.processor(videos=[frames], return_tensors="pt", **options))
        inputs = self.processor(
            images=list(frames), input_data_format="channels_first", return_tensors="pt"
        )
        pixels = inputs["pixel_values"]
        return {"pixel_values": pixels if pixels.ndim == 4 else pixels[0]}


class PretrainedVideo(PretrainedEncoder):
    """A video model of `transformers`, by hub name or folder.

    Args:
        model: a name on the hub, or a folder.
        revision: a branch, tag or commit on the hub.
        pooling: from tokens in space and time to one vector; by default what the family does, or
            the class token, or the mean.
        num_frames: that are taken of a clip; by default what the model was made for, or 16.
        clip_seconds: that are seen at once.
        trust_remote_code: whether code that comes with the model is run.

    Raises:
        ModelError: there is no such model, or it has no such part or pooling, or it takes another
            number of frames.
    """

    modality = "video"
    processors: ClassVar = (AutoVideoProcessor, AutoImageProcessor)
    preparation = "video processor"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        num_frames: int | None = None,
        clip_seconds: float = 10.0,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        origin = Origin(model, revision, trust_remote_code)
        self._load(origin, pooling, num_frames=num_frames, clip_seconds=clip_seconds)

    @classmethod
    def _processors(cls, config: Any) -> Sequence[Any]:
        """Models older than video processors were made with those of images."""
        return cls.processors[::-1] if config.model_type in MOVING else cls.processors

    def _prepare(self, settings: Any) -> None:
        clip_seconds, wanted = self.options["clip_seconds"], self.options["num_frames"]
        fixed = getattr(settings, "num_frames", None)
        usual = fixed or getattr(settings, "frames_per_clip", USUAL_FRAMES)
        tubelet = getattr(settings, "tubelet_size", 1)
        depth = tubelet if isinstance(tubelet, int) else tubelet[0]
        num_frames = wanted or usual
        if num_frames != (fixed or num_frames) or num_frames % depth or num_frames < 1:
            raise ModelError(
                f"video encoder 'transformers': num_frames is {fixed or f'a multiple of {depth}'} "
                f"for this {settings.model_type} model; got {wanted}"
            )
        if clip_seconds <= 0:
            raise ModelError(
                f"video encoder 'transformers': clip_seconds is above 0; got {clip_seconds}"
            )
        self.window = clip_seconds
        self.preprocess = ProcessFrames(self.processor, num_frames, settings_hash(self.processor))
        self.collate = stack
