"""From an item to the inputs of an encoder: read, augment, cut, preprocess. Runs in workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from omnialign.contract import Augmentation, Blob, LongInput, Modality, Segment
from omnialign.errors import OmniAlignError, ReadError


@dataclass(frozen=True)
class Pipeline:
    """What stands before one encoder; picklable, and without the encoder's weights."""

    modality: Modality[Any]
    preprocess: Callable[[Any], Any]
    collate: Callable[[Sequence[Any]], Any]
    window: float | None
    long_input: LongInput
    augmentations: tuple[Augmentation[Any], ...] = ()

    def read(self, item: Any) -> Any:
        """The canonical sample; a reader that fails in an unforeseen way counts as unreadable."""
        try:
            if isinstance(item, Blob):
                return self._read_blob(item)
            return self.modality.read(item)
        except OmniAlignError:
            raise
        except Exception as error:
            reason = f"the {self.modality.name} reader failed: {type(error).__name__}: {error}"
            raise ReadError(item, reason) from error

    def _read_blob(self, blob: Blob) -> Any:
        data = blob.read()
        try:
            return self.modality.read(data)
        except ReadError as error:
            raise ReadError(blob, error.reason) from error

    def segments(self, sample: Any) -> list[Segment[Any]]:
        """The stretches that are encoded, under the long-input policy."""
        if self.window is None or self.long_input == "native":
            return [Segment(sample)]
        segments = self.modality.segments(sample, self.window)
        return segments[:1] if self.long_input == "truncate" else segments

    def inputs(self, sample: Any) -> list[Any]:
        """The encoder inputs of a sample, one a segment: a function of the sample alone."""
        return [self.preprocess(segment.sample) for segment in self.segments(sample)]

    def training_input(self, sample: Any, generator: torch.Generator) -> tuple[Any, int]:
        """One augmented encoder input; of several segments, one is drawn, whose place follows."""
        for augment in self.augmentations:
            sample = augment(sample, generator)
        segments = self.segments(sample)
        drawn = 0
        if len(segments) > 1:
            drawn = int(torch.randint(len(segments), (), generator=generator))
        return self.preprocess(segments[drawn].sample), drawn
