"""Embeds files, however many and however long: readers in workers, one forward here.

Axes: n inputs of a batch, D dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from omnialign.contract import Segment
from omnialign.errors import OmniAlignError
from omnialign.index.reading import End, File, read_files
from omnialign.segments import EmbeddedSegment, check_batch_size, evaluating
from omnialign.space import SharedSpace
from omnialign.tower import prefix

POOL_BATCHES = 8
"""Batches of inputs of unequal length that are gathered and sorted before the first goes in."""
POOL_BYTES = 64 * 2**20
"""Beyond one batch, a pool holds no more than this."""


@dataclass(frozen=True)
class EmbeddedFile:
    """A file in the space, or why it is not."""

    key: Any
    segments: list[EmbeddedSegment] | None
    """In order; None where there is a problem."""
    problem: str | None = None
    """One line."""


def embed_files(
    space: SharedSpace,
    files: Iterable[tuple[Any, Any, str]],
    *,
    workers: int = 0,
    batch_size: int = 64,
    bf16: bool = False,
) -> Iterator[EmbeddedFile]:
    """Embeds files as `SharedSpace.embed_segments` does, as they become ready, in any order.

    Neighbours change a vector by no more than the rounding of float32. A file that cannot be read,
    whose reader crashes or hangs, or that the encoder fails on, comes with its problem and stops
    nothing. What is held at a
    time depends on `batch_size` and on the number of modalities, not on the number or length of
    files.

    Args:
        files: each a key of the caller's, the path and the modality. Taken as work goes on, so they
            may be a million.
        workers: processes that read; with 0 this one does. Each takes a core and some seconds to
            start.
        batch_size: encoder inputs in one forward, all of one modality.
        bf16: whether products of matrices are computed in 16 bits, which is faster where the
            processor has instructions for it, and moves vectors a little (a cosine of 0.99999 for a
            ViT-B/32).

    Raises:
        ModalityError: the model lacks a modality.
        OmniAlignError: a setting is wrong, or a worker cannot start.
    """
    check_batch_size(batch_size)
    if workers < 0:
        raise OmniAlignError(f"workers is {workers}; it is at least 0")
    return _embed(space, files, workers, batch_size, bf16)


def _embed(
    space: SharedSpace,
    files: Iterable[tuple[Any, Any, str]],
    workers: int,
    batch_size: int,
    bf16: bool,
) -> Iterator[EmbeddedFile]:
    opened: dict[int, _Opened] = {}

    def taken() -> Iterator[File]:
        for number, (key, path, modality) in enumerate(files):
            space.tower(modality)  # raises where there is none
            opened[number] = _Opened(key, modality)
            yield File(number, Path(path), modality)

    pipelines = {name: space.tower(name).pipeline for name in space.modalities}
    pools = {name: _Pool(batch_size) for name in space.modalities}
    for number, told in read_files(pipelines, taken(), workers, batch_size):
        file = opened[number]
        if isinstance(told, End):
            file.end = told
        else:
            pool = pools[file.modality]
            pool.add(_Input(number, len(file.segments), told))
            file.segments.append(None)
            if pool.is_full:
                yield from _forward(space, file.modality, pool.take(), opened, bf16)
        if file.is_done:
            yield opened.pop(number).embedded()
    for name, pool in pools.items():
        yield from _forward(space, name, pool.take(), opened, bf16)
    assert not opened


@dataclass
class _Opened:
    """A file of which something is still to come."""

    key: Any
    modality: str
    segments: list[EmbeddedSegment | None] = field(default_factory=list[EmbeddedSegment | None])
    num_embedded: int = 0
    end: End | None = None
    failure: str | None = None
    """Of the forward."""

    @property
    def is_done(self) -> bool:
        if self.end is None:
            return False
        return self.problem is not None or self.num_embedded == len(self.segments)

    @property
    def problem(self) -> str | None:
        return self.failure or (None if self.end is None else self.end.problem)

    def embedded(self) -> EmbeddedFile:
        segments = [segment for segment in self.segments if segment is not None]
        problem = self.problem
        if problem is None and not segments:
            problem = "it holds nothing to embed"
        if problem is None and not all(s.vector.isfinite().all() for s in segments):
            problem = "its embedding has values that are not finite"
        return EmbeddedFile(self.key, None if problem else segments, problem)


@dataclass(frozen=True)
class _Input:
    number: int
    """Of the file."""
    place: int
    """Among the file's segments."""
    segment: Segment[Any]


class _Pool:
    """Inputs of one modality that wait for a forward."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self._inputs: list[_Input] = []
        self._sizes: list[int] = []
        self._num_bytes = 0

    def add(self, given: _Input) -> None:
        tensors = list(_tensors(given.segment.sample))
        self._inputs.append(given)
        self._sizes.append(sum(t.numel() for t in tensors))
        self._num_bytes += sum(t.nbytes for t in tensors)

    @property
    def is_full(self) -> bool:
        held = len(self._inputs)
        if held < self._batch_size:
            return False
        are_equal = self._sizes[0] == self._sizes[-1] and len({*self._sizes}) == 1
        return are_equal or held >= POOL_BATCHES * self._batch_size or self._num_bytes >= POOL_BYTES

    def take(self) -> list[list[_Input]]:
        """All of it, in batches of inputs of about one length, the longest first."""
        order = sorted(range(len(self._inputs)), key=lambda i: -self._sizes[i])
        inputs = [self._inputs[i] for i in order]
        self._clear()
        return [inputs[i : i + self._batch_size] for i in range(0, len(inputs), self._batch_size)]


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _tensors(value)


def _forward(
    space: SharedSpace,
    modality: str,
    batches: list[list[_Input]],
    opened: dict[int, _Opened],
    bf16: bool,
) -> Iterator[EmbeddedFile]:
    """Embeds batches, and gives the files that are done with it.

    The inputs of a batch that fails are tried alone, so it costs no file but the one at fault.
    """
    while batches:
        batch = [one for one in batches.pop(0) if _is_wanted(opened.get(one.number))]
        if not batch:
            continue
        try:
            vectors = _embedded(space, modality, [one.segment.sample for one in batch], bf16)
        except Exception as error:
            if len(batch) > 1:
                batches[:0] = [[one] for one in batch]
                continue
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            opened[batch[0].number].failure = f"the {modality} encoder failed: {reason}"
            vectors = [None]
        for one, vector in zip(batch, vectors, strict=True):
            file, segment = opened[one.number], one.segment
            if vector is not None:
                file.segments[one.place] = EmbeddedSegment(
                    segment.start_seconds, segment.end_seconds, vector
                )
                file.num_embedded += 1
            if file.is_done:
                yield opened.pop(one.number).embedded()


def _is_wanted(file: _Opened | None) -> bool:
    return file is not None and file.problem is None


def _embedded(
    space: SharedSpace, modality: str, samples: Sequence[Any], bf16: bool
) -> Sequence[Tensor | None]:
    tower = space.tower(modality)
    with evaluating(tower), torch.autocast(space.device.type, torch.bfloat16, enabled=bf16):
        vectors = tower(tower.pipeline.collate(samples))
    return list(prefix(vectors, space.dim).float().cpu())
