"""From an item to the inputs of an encoder: read, augment, cut, preprocess. Runs in workers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch

from omnialign.contract import Augmentation, Blob, LongInput, Modality, Segment, Unread
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
    resolution: float | None = None
    """Training need not decode a sample finer than this."""

    def read(self, item: Any) -> Any:
        """The canonical sample; a reader that fails in an unforeseen way counts as unreadable."""
        with self._readable(item) as source:
            return self.modality.read(source)

    def read_segments(self, item: Any) -> Iterator[Segment[Any]]:
        """The `segments` of what `read` gives; of a long file decoded one after the other."""
        with self._readable(item) as source:
            if self.window is None or self.long_input == "native":
                yield Segment(self.modality.read(source))
            else:
                found = self.modality.read_segments(source, self.window)
                yield from islice(found, 1 if self.long_input == "truncate" else None)

    def open(self, item: Any) -> Any:
        """What `training_input` takes: the sample, or an `Unread` where a stretch will do."""
        with self._readable(item) as source:
            opened = self.modality.open(source, self.resolution)
        if self.augmentations:
            takes_a_stretch = cuts(self.augmentations[0])
        else:
            takes_a_stretch = self.window is not None and self.long_input != "native"
        return opened if takes_a_stretch else self._decoded(opened)

    def _decoded(self, sample: Any) -> Any:
        if isinstance(sample, Unread):
            with self._readable(sample):
                return sample.read()
        return sample

    @contextmanager
    def _readable(self, item: Any) -> Generator[Any]:
        """What the reader is given of an item, and how its failures are told."""
        try:
            yield item.read() if isinstance(item, Blob) else item
        except ReadError as error:
            if isinstance(item, Blob):
                raise ReadError(item, error.reason) from error
            raise
        except OmniAlignError:
            raise
        except Exception as error:
            reason = f"the {self.modality.name} reader failed: {type(error).__name__}: {error}"
            raise ReadError(item, reason) from error

    def segments(self, sample: Any) -> list[Segment[Any]]:
        """The stretches that are encoded, under the long-input policy."""
        if self.window is None or self.long_input == "native":
            return [Segment(sample)]
        if isinstance(sample, Unread):
            segments = [*sample.segments(self.window)]
        else:
            segments = self.modality.segments(sample, self.window)
        return segments[:1] if self.long_input == "truncate" else segments

    def inputs(self, sample: Any) -> list[Any]:
        """The encoder inputs of a sample, one a segment: a function of the sample alone."""
        return [self.preprocess(segment.sample) for segment in self.segments(sample)]

    def training_input(self, sample: Any, generator: torch.Generator) -> tuple[Any, int]:
        """One augmented encoder input of what `open` gave.

        Of several segments, one is drawn, whose place follows.
        """
        for augment in self.augmentations:
            sample = augment(sample if cuts(augment) else self._decoded(sample), generator)
        segments = self.segments(sample)
        drawn = 0
        if len(segments) > 1:
            drawn = int(torch.randint(len(segments), (), generator=generator))
        return self.preprocess(self._decoded(segments[drawn].sample)), drawn


def cuts(augmentation: Augmentation[Any]) -> bool:
    """Whether it only takes a stretch, decoded or not."""
    return getattr(augmentation, "cuts", False)
