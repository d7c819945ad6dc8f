"""Embeds items segment by segment, however long they are: a batch is decoded, embedded, dropped.

Axes: n segments in a batch, D dim.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from omnialign.contract import Segment
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError, ReadError
from omnialign.tower import Tower

Placed = tuple[int, Any]
"""An item and its place in a list."""


class EmbeddedSegment(NamedTuple):
    """A stretch of an item in the space; start and end are None where there is no clock."""

    start_seconds: float | None
    end_seconds: float | None
    vector: Tensor
    """float32 `(D,)`, of length one, on the CPU."""


def embed_each(
    tower: Tower,
    items: Iterable[Placed],
    batch_size: int,
    unreadable: dict[int, str] | None = None,
) -> Iterator[tuple[int, EmbeddedSegment]]:
    """The segments of all items, in order, each with the place of its item.

    No more than `batch_size` encoder inputs are held. With `unreadable`, an item that cannot be
    read is noted there with the reason, and segments of it may have come before.

    Raises:
        ReadError: an item cannot be read, and `unreadable` is None.
    """
    pipeline = tower.pipeline
    inputs = _inputs(pipeline, items, unreadable)
    while batch := list(islice(inputs, batch_size)):
        vectors = tower(pipeline.collate([segment.sample for _, segment in batch])).float().cpu()
        for (place, segment), vector in zip(batch, vectors, strict=True):
            yield place, EmbeddedSegment(segment.start_seconds, segment.end_seconds, vector)


def embed_means(
    tower: Tower, items: Iterable[Placed], batch_size: int, unreadable: dict[int, str] | None
) -> dict[int, Tensor]:
    """One unit vector `(D,)` an item, by its place: the mean over its segments. As `embed_each`."""
    sums: dict[int, Tensor] = {}
    for place, segment in embed_each(tower, items, batch_size, unreadable):
        sums[place] = sums.get(place, 0) + segment.vector
    read = sums.keys() - (unreadable or {}).keys()
    return {place: nn.functional.normalize(sums[place], dim=0) for place in read}


def check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise OmniAlignError(f"batch_size is {batch_size}; it is at least 1")


def _inputs(
    pipeline: Pipeline, items: Iterable[Placed], unreadable: dict[int, str] | None
) -> Iterator[tuple[int, Segment[Any]]]:
    """Segments whose sample is an input of the encoder."""
    for place, item in items:
        try:
            for segment in pipeline.read_segments(item):
                yield place, replace(segment, sample=pipeline.preprocess(segment.sample))
        except ReadError as error:
            if unreadable is None:
                raise
            unreadable[place] = str(error)


@contextmanager
def evaluating(module: nn.Module) -> Generator[None]:
    """Evaluation mode and no gradients; afterwards the mode of before."""
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(was_training)
