"""The training loop.

Everything random is a function of (seed, step): the order of the rows, captions, augmentations,
dropout. So a checkpoint holds weights and optimizer state, and a resumed run repeats the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from omnialign.building import build
from omnialign.data.buckets import Padding
from omnialign.data.queries import check_held_out
from omnialign.engine.batches import Batches, training_data
from omnialign.engine.checkpoint import restore, state_tensors
from omnialign.engine.diagnostics import StepReport, Watch, gradient_norms, pair_names
from omnialign.engine.frozen import FeatureListener, frozen_modalities, store_frozen_features
from omnialign.engine.gradient_cache import average_gradients
from omnialign.engine.holding_out import hold_out
from omnialign.engine.lora import Adapters
from omnialign.engine.memory import freed_memory_kept, is_out_of_memory
from omnialign.engine.micro_batches import MicroBatches
from omnialign.engine.objective import Objective, PairMetrics, StepBatches, StepKey
from omnialign.engine.optimizer import WeightAverage, build_optimizer, learning_rate, rate_scales
from omnialign.engine.run_folder import RunFolder, damaged, trusts
from omnialign.engine.sharding import clip_gradients, shard, shards, whole
from omnialign.errors import ModelError, OmniAlignError, RecipeError, TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.weights import take_weights

MAX_SKIPPED = 5
"""Steps in a row without a finite gradient after which a run stops."""

Listener = Callable[[StepReport], None]


def train(
    recipe: Recipe,
    output: str | Path,
    *,
    resume: bool = False,
    listener: Listener | None = None,
    feature_listener: FeatureListener | None = None,
) -> SharedSpace:
    """Trains a recipe into a run folder and gives the trained space, in evaluation mode.

    Args:
        recipe: a checked recipe.
        output: the run folder.
        resume: go on with the run in `output` from its newest checkpoint.
        listener: called every `train.log_every` steps, on the main process.
        feature_listener: called while the features of frozen towers are looked up and computed.

    Raises:
        DataError: no usable rows, or too many unreadable ones.
        ModelError: there is no model at `start_from`, or it is another than the recipe's.
        TrainingError: the folder holds another run, memory runs out, or gradients are no longer
            finite.
    """
    with freed_memory_kept():
        return _Run(recipe, Path(output), resume, listener, feature_listener)()


class _Run:
    def __init__(
        self,
        recipe: Recipe,
        output: Path,
        resume: bool,
        listener: Listener | None,
        feature_listener: FeatureListener | None,
    ) -> None:
        self.recipe = recipe
        self.listener = listener
        self.feature_listener = feature_listener
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
        self.watch = Watch(recipe, self.accelerator.num_processes)
        self.sharded = shards(recipe.train, self.accelerator.num_processes)
        self.device = self.accelerator.device
        self.start = None if self.folder.last_step() else _start(recipe)
        self._on_main(lambda: self.folder.start(recipe, resume))
        self.first_step = self.folder.last_step()

    def __call__(self) -> SharedSpace:
        train = self.recipe.train
        if self.first_step >= train.num_steps and (self.folder.path / "config.json").is_file():
            trusted = trusts(self.recipe)
            return load(self.folder.path, self.accelerator.device, trust_remote_code=trusted)
        self._prepare()
        self.started = time.perf_counter()
        due = False
        for step, batches in enumerate(self.batches, self.first_step + 1):
            reports = step % train.log_every == 0 or step == train.num_steps
            self._step(step, batches, reports)
            due |= step % train.checkpoint_every == 0
            # weights whose gradients are not finite would take the place of good ones
            if (due and not self.skipped_in_a_row) or step == train.num_steps:
                self._save_checkpoint(step)
                due = False
        return self._finish()

    def _prepare(self) -> None:
        recipe, train, accelerator = self.recipe, self.recipe.train, self.accelerator
        check_held_out(recipe)
        torch.manual_seed(recipe.seed)
        self.space = space = self.folder.load_towers(recipe) if self.first_step else self._build()
        self.adapters = Adapters(space, recipe)
        group = dist.group.WORLD if accelerator.num_processes > 1 else None
        bf16 = _bf16(train.precision, self.device)
        self.objective = objective = Objective(space, recipe, group, bf16).to(self.device)
        stored = frozen_modalities(recipe)
        if self.sharded:
            _check_sharded(recipe)
            towers = [space.tower(m) for m in space.modalities if m not in stored]
            shard(towers, self.device, accelerator.num_processes)
        self.optimizer = build_optimizer(objective, train, rate_scales(space, recipe))
        self.average = WeightAverage(space, train.weight_average) if train.weight_average else None
        if self.first_step:
            self._load_checkpoint()
        datasets = training_data(recipe, space, accelerator.num_processes)
        store_frozen_features(space, recipe, datasets, accelerator, bf16, self.feature_listener)
        objective.given_features = frozenset(stored)
        self.micro_batches = MicroBatches(objective, datasets, train, self.folder, accelerator)
        self.whole_batch = self._at_once()
        self.batches = Batches(
            recipe,
            datasets,
            accelerator,
            self.first_step,
            self.micro_batches.size,
            self.folder.quarantine,
        )
        if train.trackers:
            accelerator.init_trackers("tracking")
        objective.train()

    def _build(self) -> SharedSpace:
        """The space before the first step, of which the folder keeps the towers' form."""
        recipe = self.recipe
        space = build(recipe, self.start)
        if self.start is not None and recipe.start_from is not None:
            fixed = [p.modalities for p in recipe.pairs if not p.learn_temperature]
            take_weights(space, self.start, recipe.start_from, fixed)
        self.start = None
        self._on_main(lambda: self.folder.save_towers(space))
        return space

    def _at_once(self) -> nn.Module | None:
        """What takes a whole batch; None where the step goes in micro-batches.

        DDP wants the same parameters to have gradients in every step.
        """
        unfreezes = self.objective.unfreezes and self.accelerator.num_processes > 1
        if self.micro_batches.size is not None or unfreezes:
            return None
        return self.objective if self.sharded else self.accelerator.prepare(self.objective)

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
        tensors = dict[str, Tensor]()
        if self.accelerator.is_main_process or self.sharded:  # whose parts all have to give
            tensors = state_tensors(self.objective, self.optimizer, self.average)
        counts = {"skipped": self.skipped, "warned_of": sorted(self.watch.said)}
        keep = self.recipe.train.keep_checkpoints
        self._on_main(lambda: self.folder.save_checkpoint(step, keep, tensors, counts))

    def _on_main(self, work: Callable[[], object]) -> None:
        """Runs on the main process while the others wait; what it cannot do is an error of all."""
        failure: list[OmniAlignError | None] = [None]
        if self.accelerator.is_main_process:
            try:
                work()
            except OmniAlignError as error:
                failure = [error]
        broadcast_object_list(failure)
        if failure[0]:
            raise failure[0]

    def _step(self, step: int, batches: StepBatches, reports: bool) -> None:
        recipe = self.recipe
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = parameters["scale"] * learning_rate(recipe.train, step - 1)
        if self.objective.begin(step - 1):
            self.micro_batches.forget()
        key = (recipe.seed, step - 1, self.accelerator.process_index)
        for modality in self.space.modalities:
            self.space.tower(modality).padding = Padding()
        loss, metrics = self._gradients(batches, key, reports)
        by_tower = (
            gradient_norms({m: self.space.tower(m) for m in self._at_work(batches)})
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

    def _at_work(self, batches: StepBatches) -> list[str]:
        """Modalities of the pairs whose turn it is."""
        pairs = [p for p, batch in zip(self.recipe.pairs, batches, strict=True) if batch]
        return list(dict.fromkeys(m for pair in pairs for m in pair.modalities))

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
        try:
            if self.whole_batch is None:
                return self.micro_batches(batches, key, measure)
            loss, metrics = self.whole_batch(batches, key, measure)
            loss.backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory with the whole batch at once: {error}; set "
                'train.micro_batch_size = "auto", which changes no gradient'
            ) from error
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
        values = torch.stack([loss, *(value.float() for m in metrics for value in m.values())])
        values = self.accelerator.reduce(values, "mean").tolist()  # type: ignore[union-attr]
        if not self.accelerator.is_main_process:
            return
        train = self.recipe.train
        seconds = time.perf_counter() - self.started
        report = StepReport(
            step=step,
            num_steps=train.num_steps,
            loss=values.pop(0),
            learning_rate=learning_rate(train, step - 1),
            gradient_norm=norm,
            samples_per_second=self.batches.num_samples / seconds,
            seconds_left=(train.num_steps - step) * seconds / (step - self.first_step),
            unreadable=len(self.batches.quarantine),
            skipped=self.skipped,
            tower_gradient_norms=by_tower,
            tower_padding={
                modality: padding.ratio
                for modality in self.space.modalities
                if (padding := self.space.tower(modality).padding).real
            },
        )
        told = zip(pair_names(self.recipe), self.recipe.pairs, metrics, strict=True)
        for name, pair, measured in told:
            if measured:  # else it was not its turn
                scale = self.space.log_scales.of(*pair.modalities).item()
                means = {key: values.pop(0) for key in measured}
                report.pairs[name] = {"temperature": math.exp(-scale), **means}
        report.warnings = self.watch.new_warnings(report)
        self.folder.append_metrics(report.record())
        self.accelerator.log(report.scalars(), step=step)
        if self.listener:
            self.listener(report)

    def _finish(self) -> SharedSpace:
        if self.average:
            self.average.copy_to(self.space)
        space = self._whole_space().eval()
        self._on_main(lambda: self._save(space))
        self.accelerator.end_training()
        return space

    def _save(self, space: SharedSpace) -> None:
        space.held_out = hold_out(space, self.recipe)
        self.folder.save_model(space)

    def _whole_space(self) -> SharedSpace:
        """The trained space, with nothing sharded and no adapters beside the weights."""
        if not self.sharded:
            self.adapters.merge()
            return self.space
        weights = {name: whole(tensor).cpu() for name, tensor in self.space.state_dict().items()}
        space = self.folder.load_towers(self.recipe)
        adapters = Adapters(space, self.recipe)
        space.load_state_dict(weights)
        adapters.merge()
        return space


def _check_sharded(recipe: Recipe) -> None:
    """Refuses what sharded weights cannot do: processes gather the same weights equally often."""
    taken = [f"towers.{m}.frozen_steps" for m, tower in recipe.towers.items() if tower.frozen_steps]
    taken += [f"pairs.{i}.negatives" for i, pair in enumerate(recipe.pairs) if pair.negatives]
    if taken:
        raise RecipeError(
            f"{taken[0]} and train.shard_weights exclude each other on several processes; leave "
            "one of them out"
        )


def _start(recipe: Recipe) -> SharedSpace | None:
    """The model that a new run begins from; raises `ModelError` where it cannot be loaded."""
    try:
        return load(recipe.start_from, "cpu") if recipe.start_from is not None else None
    except ModelError as error:
        raise ModelError(f"start_from: {error}") from None


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
