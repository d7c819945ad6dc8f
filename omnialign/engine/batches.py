"""The micro-batches of every step: which rows, from where, and what of them cannot be read."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch.distributed as dist
from accelerate import Accelerator

from omnialign.data.loader import PairBatch, PairDataset, Quarantine, StepSampler, loader
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows
from omnialign.engine.gradient_cache import in_parts
from omnialign.engine.objective import StepBatches
from omnialign.engine.sharding import shards
from omnialign.engine.turns import turns
from omnialign.errors import DataError, RecipeError
from omnialign.recipe import Recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace


def training_data(recipe: Recipe, space: SharedSpace, num_processes: int) -> list[PairDataset]:
    """The rows of each pair, read and augmented for its towers.

    Raises `DataError` where there are too few.
    """
    found: list[PairDataset] = []
    for position, pair in enumerate(recipe.pairs):
        rows = PairRows(recipe, pair.train, pair.modalities, weights=pair.weights)
        if len(rows) < max(2, num_processes):
            raise DataError(
                f"data '{rows.name}' has {len(rows)} rows; a contrastive batch wants at least "
                f"{max(2, num_processes)}"
            )
        seed = int(np.random.SeedSequence([recipe.seed, position]).generate_state(1)[0])
        x, y = (_pipeline(space, recipe, m) for m in pair.modalities)
        found.append(PairDataset(rows, x, y, seed, recipe.train.cache_mib, pair.negatives))
    return found


class Batches:
    """This process's share of each step from `first_step` on, by pair, in micro-batches."""

    def __init__(
        self,
        recipe: Recipe,
        datasets: list[PairDataset],
        accelerator: Accelerator,
        first_step: int,
        micro_batch_size: int | None,
        quarantine: Path,
    ) -> None:
        train = recipe.train
        self._recipe = recipe
        self._accelerator = accelerator
        self._first_step = first_step
        self._turns = turns(train, [len(d.rows) for d in datasets], recipe.seed)
        self._samplers = [
            StepSampler(
                num_rows=len(dataset.rows),
                batch_size=min(train.batch_size, len(dataset.rows)),
                steps=range(bisect_left(own, first_step), len(own)),
                seed=dataset.seed,
                process=accelerator.process_index,
                num_processes=accelerator.num_processes,
                micro_batch_size=micro_batch_size,
                stream=dataset.rows if dataset.rows.source.shuffle_window else None,
            )
            for dataset, own in zip(datasets, self._turns, strict=True)
        ]
        pin = accelerator.device.type == "cuda"
        self._loaders: list[Iterator[PairBatch]] = [
            iter(loader(dataset, sampler, train.num_workers, pin))
            for dataset, sampler in zip(datasets, self._samplers, strict=True)
        ]
        self.quarantine = Quarantine(quarantine, train.max_unreadable)
        self.num_samples = 0
        """Pairs of all steps so far, over all processes."""

    def __iter__(self) -> Iterator[StepBatches]:
        """Those that hold something; none of a pair whose turn it is not.

        Raises `DataError` where too much is unreadable.
        """
        for step in range(self._first_step, self._recipe.train.num_steps):
            yield [
                self._readable(step, i) if _holds(own, step) else []
                for i, own in enumerate(self._turns)
            ]

    def _readable(self, step: int, i: int) -> list[PairBatch]:
        sampler, name = self._samplers[i], self._recipe.pairs[i].train.data
        batch = list(islice(self._loaders[i], sampler.num_micro_batches))
        unreadable = [u for micro in batch for u in micro.unreadable]
        kept = [micro for micro in batch if len(micro)]
        shares = [(unreadable, len(kept))]
        processes = self._accelerator.num_processes
        if processes > 1:
            shares = [([], 0)] * processes
            dist.all_gather_object(shares, (unreadable, len(kept)))
        self.quarantine.add(
            step + 1,
            name,
            sampler.num_rows,
            [u for share, _ in shares for u in share],
            write=self._accelerator.is_main_process,
        )
        if not all(number for _, number in shares):
            raise DataError(
                f"data '{name}': no row of a process's share of a batch can be read; see "
                f"{self.quarantine.path}"
            )
        self.num_samples += sampler.batch_size
        if shards(self._recipe.train, processes):
            return in_parts(kept, len(batch))  # all gather the same weights equally often
        return kept


def _holds(steps: range | list[int], step: int) -> bool:
    place = bisect_left(steps, step)
    return place < len(steps) and steps[place] == step


def _pipeline(space: SharedSpace, recipe: Recipe, modality: str) -> Pipeline:
    wanted, tower = recipe.tower(modality), space.tower(modality)
    augmentations = tuple(
        registry().augmentation(modality, choice.name)(**choice.options)
        for choice in wanted.augmentations
    )
    resolution: float | None = None
    if wanted.decode == "scaled":
        if tower.encoder.resolution is None:
            raise RecipeError(
                f"towers.{modality}.decode = 'scaled' wants an encoder that states how fine a "
                f"sample it sees; '{tower.config['encoder']['name']}' does not: leave decode out"
            )
        zooms = [getattr(augmentation, "zoom", 1.0) for augmentation in augmentations]
        resolution = tower.encoder.resolution * math.prod(zooms)
    return replace(tower.pipeline, augmentations=augmentations, resolution=resolution)
