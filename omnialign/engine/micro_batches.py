"""How many pairs go through the towers at once, and what is done when they do not fit."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from omnialign.data.loader import PairDataset
from omnialign.engine.gradient_cache import GradientCache, average_gradients, split
from omnialign.engine.memory import free_bytes, is_out_of_memory
from omnialign.engine.objective import Objective, PairMetrics, StepBatches, StepKey, places
from omnialign.engine.run_folder import RunFolder
from omnialign.engine.sharding import shards
from omnialign.errors import TrainingError
from omnialign.recipe import Train

SHARE_OF_FREE = 0.5
"""What graphs may take of the memory that is free when training starts: a quarter of it for the
micro-batch at work, the rest for kept ones."""
PROBED_ROWS = 8
"""Pairs whose graphs are measured to find a size that fits."""


class MicroBatches:
    """Runs a step in micro-batches of `size` pairs; None where the whole batch goes at once."""

    def __init__(
        self,
        objective: Objective,
        datasets: Sequence[PairDataset],
        train: Train,
        folder: RunFolder,
        accelerator: Accelerator,
    ) -> None:
        self._objective = objective
        self._folder = folder
        self._accelerator = accelerator
        sharded = shards(train, accelerator.num_processes)
        self._may_halve = train.micro_batch_size == "auto" and not sharded
        device = accelerator.device
        sharing = accelerator.num_processes if device.type == "cpu" else 1
        budget = SHARE_OF_FREE * free_bytes(device) / sharing
        kept = train.kept_graphs_mib
        self.graph_bytes = int(budget * 3 / 4) if kept == "auto" else kept * 2**20
        if sharded:  # what is kept differs by process, and all gather the same weights
            self.graph_bytes = 0
        self._cache = GradientCache(objective, self.graph_bytes)
        wanted = train.micro_batch_size
        if wanted is None:
            self.size = None
            return
        probe = [[dataset.probe(PROBED_ROWS)] for dataset in datasets]
        sizes = [self._cache.bytes_of(place, probe, (0, 0, 0)) for place in places(probe)]
        held = max(
            sum(size for place, size in zip(places(probe), sizes, strict=True) if place.pair == i)
            for i in range(len(probe))
        )
        fits = int(budget / 4 * PROBED_ROWS / held) if held else train.batch_size
        self.size = self._agreed(min(fits, train.batch_size)) if wanted == "auto" else wanted

    def _agreed(self, fits: int) -> int:
        """The largest power of two that fits the main process, or what this run took before."""
        found = [self._folder.micro_batch_size() or 1 << (max(1, fits).bit_length() - 1)]
        broadcast_object_list(found)
        if self._accelerator.is_main_process:
            self._folder.keep_micro_batch_size(found[0])
        return found[0]

    def __call__(
        self, batches: StepBatches, key: StepKey, measure: bool
    ) -> tuple[Tensor, list[PairMetrics]]:
        """Loss and metrics of a step; adds gradients, averaged over the processes.

        Where memory runs out, `auto` halves the micro-batches and what is kept, and begins again.
        """
        while True:
            try:
                parts = batches if self.size is None else split(batches, self.size)
                loss, metrics = self._cache(parts, key, measure)
                break
            except (RuntimeError, MemoryError) as error:
                if self.size is None or not is_out_of_memory(error):
                    raise
                self._halve(error)
            # out of the handler, whose traceback holds the graphs of the failed attempt
            self._objective.zero_grad()
            gc.collect()
            if self._accelerator.device.type == "cuda":
                torch.cuda.empty_cache()
        if self._accelerator.num_processes > 1:
            average_gradients(self._objective.parameters(), self._accelerator.num_processes)
        return loss, metrics

    def forget(self) -> None:
        """Measures anew what graphs hold: other parameters are trained from here on."""
        self._cache = GradientCache(self._objective, self.graph_bytes)

    def _halve(self, error: Exception) -> None:
        assert self.size is not None
        if self.size == 1 or not self._may_halve:
            raise TrainingError(
                f"out of memory at train.micro_batch_size = {self.size}, with "
                f"{self.graph_bytes // 2**20} MiB for kept graphs: {error}; choose a smaller "
                "train.micro_batch_size or train.kept_graphs_mib, or smaller encoders, and start "
                "again"
            ) from error
        self.size //= 2
        self.graph_bytes //= 2
        self._cache.graph_bytes = self.graph_bytes
        if self._accelerator.is_main_process:
            self._folder.keep_micro_batch_size(self.size)
