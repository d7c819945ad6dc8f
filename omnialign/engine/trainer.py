"""The training loop.

Everything random is a function of (seed, step): the order of the rows, captions, augmentations,
dropout. So a checkpoint holds weights and optimizer state, and a resumed run repeats the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from omnialign.data.loader import (
    PairBatch,
    PairDataset,
    Quarantine,
    StepSampler,
    loader,
)
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows
from omnialign.engine.objective import Objective, PairMetrics
from omnialign.engine.optimizer import WeightAverage, build_optimizer, learning_rate
from omnialign.engine.run_folder import RunFolder
from omnialign.errors import DataError, TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace, build, pair_key


@dataclass
class StepReport:
    """What is said of a step, on screen, in `metrics.jsonl` and to trackers."""

    step: int
    num_steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    samples_per_second: float
    seconds_left: float
    unreadable: int
    pairs: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Loss, in-batch accuracy and temperature by pair."""

    def scalars(self) -> dict[str, float]:
        """Flat names for trackers."""
        plain = {k: v for k, v in asdict(self).items() if k not in ("step", "num_steps", "pairs")}
        return plain | {
            f"{p}/{k}": v for p, values in self.pairs.items() for k, v in values.items()
        }


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
        TrainingError: the folder holds another run, or the loss is no longer finite.
    """
    return _Run(recipe, Path(output), resume, listener)()


class _Run:
    def __init__(
        self, recipe: Recipe, output: Path, resume: bool, listener: Listener | None
    ) -> None:
        self.recipe = recipe
        self.listener = listener
        self.folder = RunFolder(output)
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else accelerate sees no other CPU process
            mixed_precision="no",  # accelerate fixes it once a process, a recipe once a run
            log_with=[*recipe.train.trackers] or None,
            project_dir=str(output),
        )
        if self.accelerator.is_main_process:
            self.first_step = self.folder.start(recipe, resume)
        self.accelerator.wait_for_everyone()
        self.first_step = self.folder.last_step()

    def __call__(self) -> SharedSpace:
        train = self.recipe.train
        if self.first_step >= train.num_steps and (self.folder.path / "config.json").is_file():
            return load(self.folder.path, self.accelerator.device)
        self._prepare()
        quarantine = Quarantine(self.folder.quarantine, train.max_unreadable)
        started, samples = time.perf_counter(), 0
        for step, batches in enumerate(self._batches(), self.first_step + 1):
            self._set_aside(batches, quarantine)
            loss, norm, metrics = self._step(step - 1, batches)
            samples += sum(r.batch_size for r in self.samplers)
            if step % train.log_every == 0 or step == train.num_steps:
                rate = samples / (time.perf_counter() - started)
                self._report(step, loss, norm, metrics, rate, len(quarantine))
            if step % train.checkpoint_every == 0 or step == train.num_steps:
                self.folder.save_checkpoint(self.accelerator, step, train.keep_checkpoints)
        return self._finish()

    def _prepare(self) -> None:
        recipe, train = self.recipe, self.recipe.train
        torch.manual_seed(recipe.seed)
        space = build(recipe)
        group = dist.group.WORLD if self.accelerator.num_processes > 1 else None
        objective = Objective(space, recipe, group)
        optimizer = build_optimizer(objective, train)
        self.samplers, self.names, self.loaders = self._loaders(space)
        self.space = space
        self.objective, self.optimizer = self.accelerator.prepare(objective, optimizer)
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

    def _loaders(
        self, space: SharedSpace
    ) -> tuple[list[StepSampler], list[tuple[str, int]], list[Iterator[PairBatch]]]:
        recipe, train = self.recipe, self.recipe.train
        samplers: list[StepSampler] = []
        names: list[tuple[str, int]] = []
        loaders: list[Iterator[PairBatch]] = []
        for position, pair in enumerate(recipe.pairs):
            rows = PairRows(recipe, pair.train, pair.modalities)
            seed = int(np.random.SeedSequence([recipe.seed, position]).generate_state(1)[0])
            x, y = (_training_pipeline(space, recipe, m) for m in pair.modalities)
            dataset = PairDataset(rows, x, y, seed, train.cache_mib)
            sampler = StepSampler(
                num_rows=len(rows),
                batch_size=min(train.batch_size, len(rows)),
                steps=range(self.first_step, train.num_steps),
                seed=seed,
                process=self.accelerator.process_index,
                num_processes=self.accelerator.num_processes,
            )
            if sampler.batch_size < max(2, self.accelerator.num_processes):
                raise DataError(
                    f"data '{rows.name}' has {len(rows)} rows; a contrastive batch wants at least "
                    f"{max(2, self.accelerator.num_processes)}"
                )
            samplers.append(sampler)
            names.append((rows.name, len(rows)))
            pin = self.accelerator.device.type == "cuda"
            loaders.append(iter(loader(dataset, sampler, train.num_workers, pin)))
        return samplers, names, loaders

    def _batches(self) -> Iterator[tuple[PairBatch, ...]]:
        return zip(*self.loaders, strict=True)

    def _set_aside(self, batches: Sequence[PairBatch], quarantine: Quarantine) -> None:
        for (name, num_rows), batch in zip(self.names, batches, strict=True):
            found = [batch.unreadable]
            if self.accelerator.num_processes > 1:
                found = [[] for _ in range(self.accelerator.num_processes)]
                dist.all_gather_object(found, batch.unreadable)
            quarantine.add(
                name,
                num_rows,
                [u for share in found for u in share],
                write=self.accelerator.is_main_process,
            )
            if batch.x is None:
                raise DataError(
                    f"data '{name}': no row of a batch can be read; see {self.folder.quarantine}"
                )

    def _step(
        self, step: int, batches: Sequence[PairBatch]
    ) -> tuple[Tensor, Tensor, list[PairMetrics]]:
        recipe = self.recipe
        state = np.random.SeedSequence([recipe.seed, step, self.accelerator.process_index])
        torch.manual_seed(int(state.generate_state(1)[0]))
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate(recipe.train, step)
        device = self.accelerator.device
        moved = [_to_device(batch, device) for batch in batches]
        with torch.autocast(
            device.type, torch.bfloat16, enabled=_bf16(recipe.train.precision, device)
        ):
            loss, metrics = self.objective(moved)
        self._refuse_non_finite("loss", loss, step)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(
            self.objective.parameters(), recipe.train.gradient_clip_norm
        )
        assert norm is not None
        self._refuse_non_finite("gradient norm", norm, step)
        self.optimizer.step()
        self.accelerator.unwrap_model(self.objective).clamp_temperatures()
        if self.average:
            self.average.update(self.space)
        return loss.detach(), norm, metrics

    def _refuse_non_finite(self, what: str, value: Tensor, step: int) -> None:
        if not torch.isfinite(value):
            last = self.folder.last_step()
            raise TrainingError(
                f"the {what} is {value.item()} at step {step + 1}; lower train.learning_rate and "
                + (f"resume from step {last} (--resume)" if last else "start again")
            )

    def _report(
        self,
        step: int,
        loss: Tensor,
        norm: Tensor,
        metrics: Sequence[PairMetrics],
        rate: float,
        unreadable: int,
    ) -> None:
        values = torch.stack([loss, *(v for m in metrics for v in (m.loss, m.accuracy))])
        values = self.accelerator.reduce(values, "mean").tolist()  # type: ignore[union-attr]
        if not self.accelerator.is_main_process:
            return
        train = self.recipe.train
        samples_a_step = sum(s.batch_size for s in self.samplers)
        report = StepReport(
            step=step,
            num_steps=train.num_steps,
            loss=values[0],
            learning_rate=learning_rate(train, step - 1),
            gradient_norm=float(norm),
            samples_per_second=rate,
            seconds_left=(train.num_steps - step) * samples_a_step / rate,
            unreadable=unreadable,
        )
        for i, pair in enumerate(self.recipe.pairs):
            name = "-".join(pair.modalities)
            report.pairs[name if name not in report.pairs else f"{name}-{i}"] = {
                "loss": values[1 + 2 * i],
                "accuracy": values[2 + 2 * i],
                "temperature": math.exp(-self.space.log_scales[pair_key(*pair.modalities)].item()),
            }
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


def _to_device(batch: PairBatch, device: torch.device) -> PairBatch:
    return PairBatch(**{name: send_to_device(value, device) for name, value in vars(batch).items()})


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
