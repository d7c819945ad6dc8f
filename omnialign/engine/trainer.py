"""The training loop.

Everything random is a function of (seed, step): the order of the rows, captions, augmentations,
dropout. So a checkpoint holds weights and optimizer state, and a resumed run repeats the rest.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from omnialign.data.buckets import Padding
from omnialign.data.loader import (
    PairBatch,
    PairDataset,
    Quarantine,
    StepSampler,
    loader,
)
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows, check_held_out
from omnialign.engine.checkpoint import restore, state_tensors
from omnialign.engine.diagnostics import StepReport, Watch, gradient_norms
from omnialign.engine.gradient_cache import average_gradients, in_parts
from omnialign.engine.micro_batches import MicroBatches
from omnialign.engine.objective import Objective, PairMetrics, StepBatches, StepKey
from omnialign.engine.optimizer import WeightAverage, build_optimizer, learning_rate
from omnialign.engine.run_folder import RunFolder, damaged
from omnialign.engine.sharding import clip_gradients, shard, whole
from omnialign.engine.turns import turns
from omnialign.errors import DataError, RecipeError, TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace, build, pair_key

MAX_SKIPPED = 5
"""Steps in a row without a finite gradient after which a run stops."""

Listener = Callable[[StepReport], None]


def train(
    recipe: Recipe, output: str | Path, *, resume: bool = False, listener: Listener | None = None
) -> SharedSpace:
    """Trains a recipe into a run folder and gives the trained space, in evaluation mode.

    Args:
        recipe: a checked recipe.
        output: the run folder.
        resume: go on with the run in `output` from its newest checkpoint.
        listener: called every `train.log_every` steps, on the main process.

    Raises:
        DataError: no usable rows, or too many unreadable ones.
        TrainingError: the folder holds another run, memory runs out, or gradients are no longer
            finite.
    """
    return _Run(recipe, Path(output), resume, listener)()


class _Run:
    def __init__(
        self, recipe: Recipe, output: Path, resume: bool, listener: Listener | None
    ) -> None:
        self.recipe = recipe
        self.listener = listener
        self.watch = Watch(recipe)
        self.skipped = self.skipped_in_a_row = 0
        self.folder = RunFolder(output)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else accelerate sees no other CPU process
            mixed_precision="no",  # accelerate fixes it once a process, a recipe once a run
            log_with=[*recipe.train.trackers] or None,
            project_dir=str(output),
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    find_unused_parameters=recipe.train.pair_sampling != "all"
                )
            ],
        )
        self.sharded = recipe.train.shard_weights and self.accelerator.num_processes > 1
        self.device = self.accelerator.device
        if self.accelerator.is_main_process:
            self.folder.start(recipe, resume)
        self.accelerator.wait_for_everyone()
        self.first_step = self.folder.last_step()

    def __call__(self) -> SharedSpace:
        train = self.recipe.train
        if self.first_step >= train.num_steps and (self.folder.path / "config.json").is_file():
            return load(self.folder.path, self.accelerator.device)
        self._prepare()
        quarantine = Quarantine(self.folder.quarantine, train.max_unreadable)
        self.started, self.quarantine = time.perf_counter(), quarantine
        for step, batches in enumerate(self._batches(), self.first_step + 1):
            reports = step % train.log_every == 0 or step == train.num_steps
            self._step(step, self._set_aside(step, batches, quarantine), reports)
            if step % train.checkpoint_every == 0 or step == train.num_steps:
                self._save_checkpoint(step)
        return self._finish()

    def _prepare(self) -> None:
        recipe, train = self.recipe, self.recipe.train
        check_held_out(recipe)
        torch.manual_seed(recipe.seed)
        space = build(recipe)
        group = dist.group.WORLD if self.accelerator.num_processes > 1 else None
        objective = Objective(space, recipe, group, _bf16(train.precision, self.device))
        datasets = self._datasets(space)
        self.turns = turns(train, [len(d.rows) for d in datasets], recipe.seed)
        self.space, self.objective = space, objective.to(self.device)
        if self.sharded:
            towers = [space.tower(m) for m in space.modalities if m not in objective.frozen]
            shard(towers, self.device, self.accelerator.num_processes)
        self.optimizer = build_optimizer(objective, train)
        self.micro_batches = MicroBatches(objective, datasets, train, self.folder, self.accelerator)
        self.whole_batch: nn.Module | None = None
        if self.micro_batches.size is None:
            self.whole_batch = objective if self.sharded else self.accelerator.prepare(objective)
        self.samplers, self.loaders = self._loaders(datasets)
        self.average = WeightAverage(space, train.weight_average) if train.weight_average else None
        if self.first_step:
            self._load_checkpoint()
        if train.trackers:
            self.accelerator.init_trackers("tracking")
        self.objective.train()

    def _load_checkpoint(self) -> None:
        tensors, counts = self.folder.load_checkpoint(self.first_step)
        try:
            restore(tensors, self.objective, self.optimizer, self.average)
            self.skipped = counts["skipped"]
            self.watch.said = set(counts["warned_of"])
            if self.average:
                self.average.num_steps = self.first_step - self.skipped
        except (KeyError, RuntimeError) as error:
            raise damaged(self.folder.checkpoint(self.first_step), error) from error

    def _save_checkpoint(self, step: int) -> None:
        tensors = state_tensors(self.objective, self.optimizer, self.average)
        failure: list[TrainingError | None] = [None]
        if self.accelerator.is_main_process:
            counts = {"skipped": self.skipped, "warned_of": sorted(self.watch.said)}
            try:
                self.folder.save_checkpoint(
                    step, self.recipe.train.keep_checkpoints, tensors, counts
                )
            except TrainingError as error:
                failure = [error]
        broadcast_object_list(failure)
        if failure[0]:
            raise failure[0]

    def _datasets(self, space: SharedSpace) -> list[PairDataset]:
        recipe = self.recipe
        found: list[PairDataset] = []
        for position, pair in enumerate(recipe.pairs):
            rows = PairRows(recipe, pair.train, pair.modalities)
            if len(rows) < max(2, self.accelerator.num_processes):
                raise DataError(
                    f"data '{rows.name}' has {len(rows)} rows; a contrastive batch wants at least "
                    f"{max(2, self.accelerator.num_processes)}"
                )
            seed = int(np.random.SeedSequence([recipe.seed, position]).generate_state(1)[0])
            x, y = (_training_pipeline(space, recipe, m) for m in pair.modalities)
            found.append(PairDataset(rows, x, y, seed, recipe.train.cache_mib))
        return found

    def _loaders(
        self, datasets: Sequence[PairDataset]
    ) -> tuple[list[StepSampler], Sequence[Iterator[PairBatch]]]:
        train = self.recipe.train
        samplers = [
            StepSampler(
                num_rows=len(dataset.rows),
                batch_size=min(train.batch_size, len(dataset.rows)),
                steps=range(bisect_left(own, self.first_step), len(own)),
                seed=dataset.seed,
                process=self.accelerator.process_index,
                num_processes=self.accelerator.num_processes,
                micro_batch_size=self.micro_batches.size,
                stream=dataset.rows if dataset.rows.source.shuffle_window else None,
            )
            for dataset, own in zip(datasets, self.turns, strict=True)
        ]
        pin = self.device.type == "cuda"
        loaders = [
            iter(loader(dataset, sampler, train.num_workers, pin))
            for dataset, sampler in zip(datasets, samplers, strict=True)
        ]
        return samplers, loaders

    def _batches(self) -> Iterator[StepBatches]:
        """The micro-batches of each step, by pair; none where it is not a pair's turn."""
        for step in range(self.first_step, self.recipe.train.num_steps):
            yield [
                list(islice(loaded, sampler.num_micro_batches)) if step in own else []
                for loaded, sampler, own in zip(
                    self.loaders, self.samplers, self.turns, strict=True
                )
            ]

    def _set_aside(self, step: int, batches: StepBatches, quarantine: Quarantine) -> StepBatches:
        """Notes what cannot be read; gives the micro-batches that hold something."""
        kept: list[list[PairBatch]] = []
        for pair, sampler, batch in zip(self.recipe.pairs, self.samplers, batches, strict=True):
            kept.append([micro for micro in batch if len(micro)])
            if not batch:
                continue
            unreadable = [u for micro in batch for u in micro.unreadable]
            found = [unreadable]
            if self.accelerator.num_processes > 1:
                found = [[] for _ in range(self.accelerator.num_processes)]
                dist.all_gather_object(found, unreadable)
            quarantine.add(
                step,
                pair.train.data,
                sampler.num_rows,
                [u for share in found for u in share],
                write=self.accelerator.is_main_process,
            )
            if not kept[-1]:
                raise DataError(
                    f"data '{pair.train.data}': no row of a batch can be read; see "
                    f"{self.folder.quarantine}"
                )
            if self.sharded:  # all processes gather the same weights equally often
                kept[-1] = in_parts(kept[-1], len(batch))
        return kept

    def _step(self, step: int, batches: StepBatches, reports: bool) -> None:
        recipe = self.recipe
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(recipe.train, step - 1)
        key = (recipe.seed, step - 1, self.accelerator.process_index)
        for modality in self.space.modalities:
            self.space.tower(modality).padding = Padding()
        loss, metrics = self._gradients(batches, key, reports)
        by_tower = (
            gradient_norms({m: self.space.tower(m) for m in self.space.modalities})
            if reports
            else {}
        )
        norm = clip_gradients(self.objective.parameters(), recipe.train.gradient_clip_norm)
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            self.optimizer.step()
            self.objective.clamp_temperatures()
            if self.average:
                self.average.update(self.space)
        else:
            self._skip(step, loss)
        if reports:
            self._report(step, loss, float(norm), metrics, by_tower)

    def _skip(self, step: int, loss: Tensor) -> None:
        """Leaves a step without a finite gradient out; of too many in a row makes an error."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row >= MAX_SKIPPED:
            raise TrainingError(
                f"no finite gradient in {MAX_SKIPPED} steps in a row, up to step {step} (loss "
                f"{loss.item()}); lower train.learning_rate and {self.folder.how_to_go_on()}"
            )

    def _gradients(
        self, batches: StepBatches, key: StepKey, measure: bool
    ) -> tuple[Tensor, list[PairMetrics]]:
        """Loss and metrics; leaves gradients."""
        self.optimizer.zero_grad()
        if self.whole_batch is None:
            return self.micro_batches(batches, key, measure)
        loss, metrics = self.whole_batch(batches, key, measure)
        loss.backward()
        if self.sharded:
            average_gradients(self.objective.parameters(), self.accelerator.num_processes)
        return loss.detach(), metrics

    def _report(
        self,
        step: int,
        loss: Tensor,
        norm: float,
        metrics: Sequence[PairMetrics],
        by_tower: dict[str, float],
    ) -> None:
        named = [(i, name, value) for i, m in enumerate(metrics) for name, value in m.items()]
        values = torch.stack([loss, *(value.float() for _, _, value in named)])
        values = self.accelerator.reduce(values, "mean").tolist()  # type: ignore[union-attr]
        if not self.accelerator.is_main_process:
            return
        train = self.recipe.train
        samples_a_step = sum(s.batch_size for s in self.samplers)
        done = step - self.first_step
        rate = done * samples_a_step / (time.perf_counter() - self.started)
        report = StepReport(
            step=step,
            num_steps=train.num_steps,
            loss=values[0],
            learning_rate=learning_rate(train, step - 1),
            gradient_norm=norm,
            samples_per_second=rate,
            seconds_left=(train.num_steps - step) * samples_a_step / rate,
            unreadable=len(self.quarantine),
            skipped=self.skipped,
            tower_gradient_norms=by_tower,
            tower_padding={
                modality: padding.ratio
                for modality in self.space.modalities
                if (padding := self.space.tower(modality).padding).real
            },
        )
        for i, pair in enumerate(self.recipe.pairs):
            name = "-".join(pair.modalities)
            scale = self.space.log_scales[pair_key(*pair.modalities)]
            report.pairs[name if name not in report.pairs else f"{name}-{i}"] = {
                "temperature": math.exp(-scale.item()),
                **{
                    key: value
                    for (k, key, _), value in zip(named, values[1:], strict=True)
                    if k == i
                },
            }
        report.warnings = self.watch.new_warnings(report)
        self.folder.append_metrics(asdict(report))
        self.accelerator.log(report.scalars(), step=step)
        if self.listener:
            self.listener(report)

    def _finish(self) -> SharedSpace:
        if self.average:
            self.average.copy_to(self.space)
        space = self._whole_space().eval()
        if self.accelerator.is_main_process:
            with self.folder.writing("the trained model"):
                space.save(self.folder.path)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return space

    def _whole_space(self) -> SharedSpace:
        if not self.sharded:
            return self.space
        weights = {name: whole(tensor).cpu() for name, tensor in self.space.state_dict().items()}
        space = build(self.recipe)
        space.load_state_dict(weights)
        return space


def _training_pipeline(space: SharedSpace, recipe: Recipe, modality: str) -> Pipeline:
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


def _bf16(precision: str, device: torch.device) -> bool:
    """Whether forward runs in bf16 autocast; the losses stay in float32.

    `auto` takes it where it was measured to pay: on a GPU or a CPU with instructions for it.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    return device.type == "cpu" and any(
        getattr(torch.cpu, name, lambda: False)()
        for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
