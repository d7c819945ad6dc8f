"""Sounds through the models of `transformers`.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import AutoFeatureExtractor

from omnialign import ModelError
from omnialign_pretrained.adapter import PretrainedEncoder, first, settings_hash, stack
from omnialign_pretrained.checkpoint import Origin
from omnialign_pretrained.families import Pooling

USUAL_SECONDS = 10.0
"""Of a window, for a model that takes any length."""
LEAST_SECONDS = 0.1
"""That a model is given: a shorter sound is followed by silence."""


class Sound(Protocol):
    """What is asked of a sample of audio."""

    values: Tensor
    """`(C, T)` float32."""
    sample_rate_hz: int


@dataclass(frozen=True, eq=False)
class ExtractFeatures:
    """A sound to what the model's own feature extractor makes of it.

    Channels are averaged, the rate is made the model's, and what lies beyond `clip_seconds` is left
    out, so that an extractor never cuts at random.
    """

    extractor: Any = field(repr=False)
    clip_seconds: float
    settings: str
    """A hash that identifies the extractor."""

    def __call__(self, sample: Sound) -> dict[str, Tensor]:
        from torchaudio.functional import resample

        rate: int = self.extractor.sampling_rate
        mono = sample.values.mean(0)
        if sample.sample_rate_hz != rate:
            ratio = Fraction(sample.sample_rate_hz, rate).limit_denominator(1000)
            mono = resample(mono, max(1, ratio.numerator), ratio.denominator)
        mono = mono[: round(self.clip_seconds * rate)]
        mono = nn.functional.pad(mono, (0, max(0, round(LEAST_SECONDS * rate) - len(mono))))
        inputs = first(self.extractor(mono.numpy(), sampling_rate=rate, return_tensors="pt"))
        if "is_longer" in inputs:
            inputs["is_longer"] = torch.zeros_like(inputs["is_longer"])
        return inputs


class PretrainedAudio(PretrainedEncoder):
    """An audio model of `transformers`, by hub name or folder.

    Of a model with several towers, or with a decoder, it is the audio encoder. Sounds go in as its
    processor prepares each alone: padded to a fixed length where it does that (Whisper, AST, CLAP),
    and else at their own length, those of equal length together, so that padding changes nothing.

    Args:
        model: a name on the hub, or a folder.
        revision: a branch, tag or commit on the hub.
        pooling: from tokens in time to one vector; by default what the family does, or the class
            token, or the mean.
        clip_seconds: that are seen at once; by default, and at most, what the processor is made
            for, or 10 where it takes any length.
        trust_remote_code: whether code that comes with the model is run.

    Raises:
        ModelError: there is no such model, or it has no such part or pooling.
    """

    modality = "audio"
    processors: ClassVar = (AutoFeatureExtractor,)
    preparation = "feature extractor"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        clip_seconds: float | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self._load(Origin(model, revision, trust_remote_code), pooling, clip_seconds=clip_seconds)

    def _prepare(self, settings: Any) -> None:
        longest, wanted = fixed_seconds(self.processor), self.options["clip_seconds"]
        clip_seconds = wanted or longest or USUAL_SECONDS
        if not LEAST_SECONDS <= clip_seconds <= (longest or 1e9):
            raise ModelError(
                f"audio encoder 'transformers': clip_seconds is {LEAST_SECONDS} to "
                f"{longest or 'any'} for this {settings.model_type} model; got {wanted}"
            )
        self.window = clip_seconds
        extractor = self.processor
        self.preprocess = ExtractFeatures(extractor, clip_seconds, settings_hash(extractor))
        self.collate = stack


def fixed_seconds(extractor: Any) -> float | None:
    """The length that a feature extractor pads sounds to; None where it takes any."""
    samples = getattr(extractor, "nb_max_samples", None) or getattr(extractor, "n_samples", None)
    if samples:
        return samples / extractor.sampling_rate
    frames = getattr(extractor, "max_length", None)
    return frames * FRAME_SECONDS if frames and hasattr(extractor, "num_mel_bins") else None


FRAME_SECONDS = 0.01
"""Between the frames of an extractor that counts its length in them (AST)."""
