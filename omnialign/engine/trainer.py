"""The training loop.

Everything random is a function of (seed, step): the order of the rows, captions, augmentations,
dropout. So a checkpoint holds weights and optimizer state, and a resumed run repeats the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from omnialign.data.loader import (
    PairBatch,
    PairDataset,
    Quarantine,
    StepSampler,
    loader,
)
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows, check_held_out
from omnialign.engine.diagnostics import StepReport, Watch, gradient_norms
from omnialign.engine.micro_batches import MicroBatches
from omnialign.engine.objective import Objective, PairMetrics, StepBatches, StepKey
from omnialign.engine.optimizer import WeightAverage, build_optimizer, learning_rate
from omnialign.engine.run_folder import RunFolder
from omnialign.errors import DataError, TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace, build

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
        )
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
            self._step(step, self._set_aside(batches, quarantine), reports)
            if step % train.checkpoint_every == 0 or step == train.num_steps:
                self.folder.save_checkpoint(self.accelerator, step, train.keep_checkpoints)
        return self._finish()

    def _prepare(self) -> None:
        recipe, train = self.recipe, self.recipe.train
        check_held_out(recipe)
        torch.manual_seed(recipe.seed)
        space = build(recipe)
        group = dist.group.WORLD if self.accelerator.num_processes > 1 else None
        objective = Objective(space, recipe, group, _bf16(train.precision, self.device))
        optimizer = build_optimizer(objective, train)
        datasets = self._datasets(space)
        self.space = space
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
        self.micro_batches = MicroBatches(objective, datasets, train, self.folder, self.accelerator)
        self.samplers, self.loaders = self._loaders(datasets)
        self.average = WeightAverage(space, train.weight_average) if train.weight_average else None
        saved_too = [*([self.average] if self.average else []), *objective.frozen.values()]
        self.accelerator.register_for_checkpointing(*saved_too)
        if self.first_step:
            self._load(self.folder.checkpoint(self.first_step))
        if train.trackers:
            self.accelerator.init_trackers("tracking")
        self.objective.train()

    def _load(self, checkpoint: Path) -> None:
        try:
            self.accelerator.load_state(str(checkpoint))
        except Exception as error:
            raise TrainingError(
                f"checkpoint {checkpoint} is damaged ({type(error).__name__}: {error}); delete it "
                "to go on from the one before"
            ) from error

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
                steps=range(self.first_step, train.num_steps),
                seed=dataset.seed,
                process=self.accelerator.process_index,
                num_processes=self.accelerator.num_processes,
                micro_batch_size=self.micro_batches.size,
            )
            for dataset in datasets
        ]
        pin = self.device.type == "cuda"
        loaders = [
            iter(loader(dataset, sampler, train.num_workers, pin))
            for dataset, sampler in zip(datasets, samplers, strict=True)
        ]
        return samplers, loaders

    def _batches(self) -> Iterator[StepBatches]:
        """The micro-batches of each step, by pair."""
        for _ in range(self.first_step, self.recipe.train.num_steps):
            yield [
                list(islice(loaded, sampler.num_micro_batches))
                for loaded, sampler in zip(self.loaders, self.samplers, strict=True)
            ]

    def _set_aside(self, batches: StepBatches, quarantine: Quarantine) -> StepBatches:
        """Notes what cannot be read; gives the micro-batches that hold something."""
        kept: list[list[PairBatch]] = []
        for sampler, batch in zip(self.samplers, batches, strict=True):
            unreadable = [u for micro in batch for u in micro.unreadable]
            found = [unreadable]
            if self.accelerator.num_processes > 1:
                found = [[] for _ in range(self.accelerator.num_processes)]
                dist.all_gather_object(found, unreadable)
            name = self.recipe.pairs[len(kept)].train.data
            quarantine.add(
                name,
                sampler.num_rows,
                [u for share in found for u in share],
                write=self.accelerator.is_main_process,
            )
            kept.append([micro for micro in batch if len(micro)])
            if not kept[-1]:
                raise DataError(
                    f"data '{name}': no row of a batch can be read; see {self.folder.quarantine}"
                )
        return kept

    def _step(self, step: int, batches: StepBatches, reports: bool) -> None:
        recipe = self.recipe
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(recipe.train, step - 1)
        key = (recipe.seed, step - 1, self.accelerator.process_index)
        loss, metrics = self._gradients(batches, key, reports)
        by_tower = (
            gradient_norms({m: self.space.tower(m) for m in self.space.modalities})
            if reports
            else {}
        )
        norm = self.accelerator.clip_grad_norm_(
            self.objective.parameters(), recipe.train.gradient_clip_norm
        )
        assert norm is not None
        if torch.isfinite(norm):
            self.skipped_in_a_row = 0
            self.optimizer.step()
            self.accelerator.unwrap_model(self.objective).clamp_temperatures()
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
            last = self.folder.last_step()
            raise TrainingError(
                f"no finite gradient in {MAX_SKIPPED} steps in a row, up to step {step} (loss "
                f"{loss.item()}); lower train.learning_rate and "
                + (
                    f"go on from {self.folder.checkpoint(last)} (--resume)"
                    if last
                    else "start again"
                )
            )

    def _gradients(
        self, batches: StepBatches, key: StepKey, measure: bool
    ) -> tuple[Tensor, list[PairMetrics]]:
        """Loss and metrics; leaves gradients."""
        self.optimizer.zero_grad()
        if self.micro_batches.size is not None:
            return self.micro_batches(batches, key, measure)
        loss, metrics = self.objective(batches, key, measure)
        self.accelerator.backward(loss)
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
        )
        for i, pair in enumerate(self.recipe.pairs):
            name = "-".join(pair.modalities)
            scale = self.space.log_scales.of(*pair.modalities)
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
        self.space.eval()
        if self.accelerator.is_main_process:
            self.space.save(self.folder.path)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return self.space


def _training_pipeline(space: SharedSpace, recipe: Recipe, modality: str) -> Pipeline:
    plain = space.tower(modality).pipeline
    augmentations = tuple(
        registry().augmentation(modality, choice.name)(**choice.options)
        for choice in recipe.tower(modality).augmentations
    )
    return replace(plain, augmentations=augmentations)


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
