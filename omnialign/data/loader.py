"""Batches of pairs, in an order that is a function of the seed and the step alone.

Nothing about the order, the drawn captions or the augmentations is state: a run that was killed
goes on with the same batches, whatever the number of workers.

Axes: n pairs of a batch.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows
from omnialign.data.sides import Example, ReadSide, SampleCache, Side, Unreadable
from omnialign.errors import DataError


@dataclass(frozen=True)
class Draw:
    """One use of a row: which, and in which pass over the data."""

    row: int
    epoch: int
    content: Mapping[str, Any] | None = None
    """Of a stream's row, which only the main process reads."""


@dataclass(frozen=True)
class PairExample:
    """What a row gives: an example of x, of y and, where the pair has them, of a hard negative.

    A row may have no hard negative, or one that cannot be read; that costs it nothing else.
    """

    sides: list[Example | Unreadable | None]
    weight: float


@dataclass
class SideBatch:
    """Collated inputs of one side, and identities `(n,)` that are equal for equal items."""

    inputs: Any
    ids: Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, wanted: slice) -> SideBatch:
        return SideBatch(take(self.inputs, wanted) if len(self) else None, self.ids[wanted])


@dataclass
class PairBatch:
    """The sides of n pairs: x, y and perhaps at most n hard negatives; what could not be read.

    `weights` `(n,)` are None where all pairs count the same.
    """

    sides: list[SideBatch]
    weights: Tensor | None
    unreadable: list[Unreadable]

    def __len__(self) -> int:
        return len(self.sides[0])

    def rows(self, wanted: slice) -> PairBatch:
        """Some of its pairs, collated as they are, and as many of its hard negatives."""
        weights = None if self.weights is None else self.weights[wanted]
        return PairBatch([side.rows(wanted) for side in self.sides], weights, self.unreadable)


def take(batch: Any, rows: Any) -> Any:
    """Rows of a collated batch."""
    if isinstance(batch, Mapping):
        return {name: tensor[rows] for name, tensor in batch.items()}
    return batch[rows]


def draws(
    num_rows: int, batch_size: int, step: int, seed: int, window: int | None = None
) -> list[Draw]:
    """The rows of step `step`: endless shuffled passes, cut into batches.

    With a `window`, each pass goes through stretches of so many rows, shuffled inside.
    """
    found: list[Draw] = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(position, num_rows)
        start, length, keys = 0, num_rows, [seed, epoch]
        if window:
            stretch = place // window
            start, length, keys = stretch * window, window, [*keys, stretch]
            length = min(length, num_rows - start)
        row = start + int(_shuffled(length, *keys)[place - start])
        found.append(Draw(row, epoch))
    return found


_shuffles: OrderedDict[tuple[int, ...], np.ndarray[Any, Any]] = OrderedDict()


def _shuffled(num_rows: int, *keys: int) -> np.ndarray[Any, Any]:
    key = (num_rows, *keys)
    if key not in _shuffles:
        _shuffles[key] = np.random.default_rng(keys).permutation(num_rows)
        while len(_shuffles) > 16:
            _shuffles.popitem(last=False)
    return _shuffles[key]


class StepSampler(Sampler[list[Draw]]):
    """This process's share of the batch of each of `steps`, in micro-batches."""

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        steps: range,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
        micro_batch_size: int | None = None,
        stream: PairRows | None = None,
    ) -> None:
        self.num_rows = num_rows
        self._stream = stream
        self.batch_size = batch_size
        self._steps = steps
        self._seed = seed
        self._share = range(process, batch_size, num_processes)
        self._micro_batch_size = micro_batch_size or batch_size
        largest_share = -(-batch_size // num_processes)
        self.num_micro_batches = -(-largest_share // self._micro_batch_size)
        """Of a step, the same on all processes."""

    def __len__(self) -> int:
        return len(self._steps) * self.num_micro_batches

    def __iter__(self) -> Iterator[list[Draw]]:
        for step in self._steps:
            window = self._stream.source.shuffle_window if self._stream else None
            batch = draws(self.num_rows, self.batch_size, step, self._seed, window)
            own = [batch[place] for place in self._share]
            if self._stream:
                own = [replace(draw, content=self._stream.row(draw.row)) for draw in own]
                for draw in own:  # here, where an error goes to the user as it is
                    self._stream.weight(draw.row, draw.content)
            yield from self._cut(own)

    def _cut(self, own: list[Draw]) -> Iterator[list[Draw]]:
        size, parts = self._micro_batch_size, self.num_micro_batches
        if len(own) > size * (parts - 1):
            edges = range(0, size * parts + 1, size)
        else:  # another process has one row more, and it takes a micro-batch of its own
            edges = [len(own) * k // parts for k in range(parts + 1)]
        for first, end in pairwise(edges):
            yield own[first:end]


class PairDataset(Dataset[Any]):
    """Examples of all sides of a drawn row.

    `negatives` is the column with hard negatives, items of y's modality. One that cannot be read is
    left out and told of with the unreadable rows; its row stays.
    """

    def __init__(
        self,
        rows: PairRows,
        x: Pipeline,
        y: Pipeline,
        seed: int,
        cache_mib: int,
        negatives: str | None = None,
    ) -> None:
        self.rows = rows
        self.seed = seed
        self._modalities = (x.modality.name, y.modality.name)
        cache = SampleCache(cache_mib * 2**20)
        self.sides: list[Side] = [ReadSide(rows, pipeline, cache) for pipeline in (x, y)]
        if negatives is not None:
            rows.check_columns([negatives])
            self.sides.append(ReadSide(rows, y, cache, negatives))

    def __getitem__(self, draw: Draw) -> PairExample | Unreadable:
        found: list[Example | Unreadable | None] = []
        for place, side in enumerate(self.sides):
            mixed = np.random.SeedSequence([self.seed, draw.epoch, draw.row, place])
            generator = torch.Generator().manual_seed(int(mixed.generate_state(1)[0]))
            example = side.example(draw.row, generator, draw.content)
            is_negative = place >= len(self._modalities)
            row = self.rows.number(draw.row)
            if example is None and not is_negative:
                example = Unreadable(row, f"row {row}", f"no {self._modalities[place]}")
            if isinstance(example, Unreadable):
                example = replace(example, row=row, is_negative=is_negative)
                if not is_negative:
                    return example
            found.append(example)
        return PairExample(found, self.rows.weight(draw.row, draw.content))

    def probe(self, num_rows: int) -> PairBatch:
        """A batch of the first readable rows, each as often as it takes."""
        examples: list[Any] = []
        for row in range(len(self.rows)):
            example = self[Draw(row, 0)]
            if not isinstance(example, Unreadable):
                examples.append(example)
            if len(examples) == num_rows:
                break
        if not examples:
            raise DataError(f"data '{self.rows.name}': no row can be read")
        return self.collate((examples * num_rows)[:num_rows])

    def collate(self, examples: Sequence[PairExample | Unreadable]) -> PairBatch:
        good = [e for e in examples if isinstance(e, PairExample)]
        told = [one for e in examples for one in (e.sides if isinstance(e, PairExample) else (e,))]
        sides: list[SideBatch] = []
        for place, side in enumerate(self.sides):
            found = [one for e in good if isinstance(one := e.sides[place], Example)]
            ids = torch.tensor([one.identity for one in found], dtype=torch.int64)
            inputs = side.collate([one.value for one in found]) if found else None
            sides.append(SideBatch(inputs, ids))
        return PairBatch(
            sides,
            torch.tensor([e.weight for e in good]) if self.rows.are_weighted else None,
            [one for one in told if isinstance(one, Unreadable)],
        )


def loader(
    dataset: PairDataset, sampler: StepSampler, num_workers: int, pin_memory: bool
) -> DataLoader[PairBatch]:
    """A torch loader that gives one `PairBatch` a step."""
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=dataset.collate,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        # without it torch draws the workers' base seed from the global generator
        generator=torch.Generator().manual_seed(0),
    )


class Quarantine:
    """Unreadable rows with reasons, in `quarantine.jsonl`; an error when they are too many."""

    def __init__(self, path: Path, max_share: float) -> None:
        self.path = path
        self._max_share = max_share
        self._rows: dict[tuple[str, str], int | None] = {}
        """The row that an unreadable source of a data table costs; None of a hard negative."""
        if path.is_file():
            lines = path.read_text(encoding="utf-8").split("\n")
            for line in filter(None, lines):
                told = json.loads(line)
                row = None if told.get("is_negative") else told["row"]
                self._rows[told["data"], told["source"]] = row

    def __len__(self) -> int:
        return len(self._rows)

    def add(
        self, step: int, data: str, num_rows: int, found: Sequence[Unreadable], write: bool = True
    ) -> None:
        """Notes rows of a data table that are new with a step; raises `DataError` above the limit.

        Of several processes, which all see the same rows, one writes.
        """
        new = [u for u in found if (data, u.source) not in self._rows]
        if not new:
            return
        self._rows |= {(data, u.source): None if u.is_negative else u.row for u in new}
        if write:
            with self.path.open("a", encoding="utf-8") as file:
                for entry in new:
                    line = {"step": step, "data": data, **vars(entry)}
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        lost = {row for (name, _), row in self._rows.items() if name == data}
        count = len(lost - {None})
        if count > self._max_share * num_rows:
            raise DataError(
                f"data '{data}': {count} of {num_rows} rows cannot be read, more than "
                f"train.max_unreadable = {self._max_share} allows; the last: {new[-1].source}: "
                f"{new[-1].reason}; all are listed in {self.path}"
            )
