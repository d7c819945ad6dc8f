"""The folder of a run: what is written when, so that a killed run can go on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import Tensor

from omnialign.engine.checkpoint import read, write
from omnialign.errors import TrainingError
from omnialign.model_folder import load_towers, save, save_towers
from omnialign.overrides import read_toml
from omnialign.recipe import Recipe, parse_recipe, to_toml
from omnialign.registry import registry
from omnialign.space import SharedSpace

FREE_TO_CHANGE = {
    "num_steps",
    "learning_rate",
    "gradient_clip_norm",
    "precision",
    "micro_batch_size",
    "checkpoint_every",
    "keep_checkpoints",
    "log_every",
    "num_workers",
    "shard_weights",
    "kept_graphs_mib",
    "cache_mib",
    "max_unreadable",
    "trackers",
}
"""Keys of `[train]` that a resumed run may change; among them what messages ask to change."""

VERSIONS_OF = (
    "omnialign",
    "torch",
    "torchvision",
    "torchaudio",
    "transformers",
    "accelerate",
    "safetensors",
    "numpy",
)


class RunFolder:
    """Paths and files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.quarantine = path / "quarantine.jsonl"
        self._towers = path / "towers"
        self._micro_batch = path / "micro_batch.json"

    def start(self, recipe: Recipe, resume: bool) -> int:
        """Creates or reopens the folder; gives the step to go on from, 0 for a new run.

        Raises `TrainingError` if another run is there, or the recipe of this one has changed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise TrainingError(f"--output {self.path} is a file; it wants a folder")
        recipe_file = self.path / "recipe.toml"
        step = self.last_step()
        if step or self.metrics.is_file():
            if not resume:
                raise TrainingError(
                    f"'{self.path}' already holds a run; go on with it (--resume) or choose "
                    "another --output"
                )
            self._refuse_changes(recipe, recipe_file)
            if step > recipe.train.num_steps:
                raise TrainingError(
                    f"the run in '{self.path}' has done {step} steps; train.num_steps = "
                    f"{recipe.train.num_steps} is behind that"
                )
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            if step == 0:
                self._micro_batch.unlink(missing_ok=True)
            _replace(recipe_file, to_toml(recipe))
            environment = json.dumps(environment_versions(), indent=2)
            _replace(self.path / "environment.json", environment + "\n")
            _keep_lines(self.metrics, lambda line: line["step"] <= step)
            _keep_lines(self.quarantine, lambda line: line["step"] <= step)
        except OSError as error:
            raise TrainingError(f"cannot write to --output {self.path}: {error}") from None
        return step

    def _refuse_changes(self, recipe: Recipe, recipe_file: Path) -> None:
        before = parse_recipe(read_toml(recipe_file), str(recipe_file))
        old, new = (_flat(r.model_dump(mode="json", exclude_none=True)) for r in (before, recipe))
        changed = [
            key
            for key in sorted(old.keys() | new.keys())
            if (key in old, old.get(key)) != (key in new, new.get(key))
            and not (key.startswith("train.") and key.split(".")[1] in FREE_TO_CHANGE)
            and not key.endswith(".licence")
        ]
        if changed:
            raise TrainingError(
                f"the recipe differs from that of the run in '{self.path}' in: "
                f"{', '.join(changed)}; resume with the same recipe or choose another --output"
            )

    def last_step(self) -> int:
        """The step of the newest complete checkpoint; 0 without one."""
        return max((int(path.name[5:]) for path in self._saved()), default=0)

    def _saved(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        found = self.checkpoints.glob("step-*")
        return sorted(path for path in found if path.name[5:].isdigit())

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08d}"

    def save_checkpoint(
        self, step: int, keep: int, tensors: Mapping[str, Tensor], counts: Mapping[str, Any]
    ) -> None:
        """Writes a checkpoint beside the others, renames it when it is whole, and keeps the newest.

        Raises `TrainingError` where it cannot be written; those before are as they were.
        """
        partial = self.checkpoints / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with self.writing(f"the checkpoint of step {step}"):
                write(partial, tensors, counts)
                os.replace(partial, self.checkpoint(step))
        except TrainingError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        for old in self._saved()[:-keep]:
            shutil.rmtree(old)

    def save_towers(self, space: SharedSpace) -> None:
        """What it takes to rebuild the towers of a resumed run, which has their weights."""
        with self.writing("what the towers are"):
            save_towers(space, self._towers)

    def load_towers(self, recipe: Recipe) -> SharedSpace:
        """The space of this run, with fresh weights; raises `ModelError`."""
        return load_towers(self._towers, trust_remote_code=trusts(recipe))

    def save_model(self, space: SharedSpace) -> None:
        with self.writing("the trained model"):
            save(space, self.path)

    @contextmanager
    def writing(self, what: str) -> Generator[None]:
        """Makes a full disk a `TrainingError` that names the checkpoint to go on from."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise TrainingError(
                f"{what} cannot be written to {self.path}: {error}; then {self.how_to_go_on()}"
            ) from error

    def how_to_go_on(self) -> str:
        """What to do after a run was stopped."""
        last = self.last_step()
        return f"go on from {self.checkpoint(last)} (--resume)" if last else "start again"

    def load_checkpoint(self, step: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and counts; raises `TrainingError` that names a damaged checkpoint."""
        try:
            return read(self.checkpoint(step))
        except (OSError, ValueError, SafetensorError) as error:
            raise damaged(self.checkpoint(step), error) from error

    def micro_batch_size(self) -> int | None:
        """What `auto` has found, so that a resumed run has the same sums; None if it has not."""
        if not self._micro_batch.is_file():
            return None
        try:
            return int(json.loads(self._micro_batch.read_text("utf-8"))["micro_batch_size"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{self._micro_batch} is damaged ({error}); delete it, and the size is found anew"
            ) from None

    def keep_micro_batch_size(self, size: int) -> None:
        _replace(self._micro_batch, json.dumps({"micro_batch_size": size}) + "\n")

    def append_metrics(self, record: dict[str, Any]) -> None:
        """One more line; all numbers are finite."""
        with self.writing("a line of metrics"), self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")


def damaged(checkpoint: Path, error: Exception) -> TrainingError:
    return TrainingError(
        f"checkpoint {checkpoint} is damaged ({type(error).__name__}: {error}); delete it to go on "
        "from the one before"
    )


def environment_versions() -> dict[str, str]:
    """Versions of everything that a run depends on."""
    found = {"python": sys.version.split()[0], "platform": platform.platform()}
    plugins = [p.distribution for p in registry().plugins if p.distribution]
    for name in dict.fromkeys((*VERSIONS_OF, *plugins)):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _keep_lines(file: Path, wanted: Callable[[Any], bool]) -> None:
    """Drops lines of what a resumed run does again, and the half line of a killed one."""
    if not file.is_file():
        return
    kept: list[str] = []
    for line in file.read_text("utf-8").split("\n"):
        try:
            if wanted(json.loads(line)):
                kept.append(f"{line}\n")
        except json.JSONDecodeError:
            break
    _replace(file, "".join(kept))


def _replace(file: Path, text: str) -> None:
    """Writes a file as a whole or not at all."""
    partial = file.with_suffix(".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, file)


def _flat(table: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(table, dict | list):
        entries = table.items() if isinstance(table, dict) else enumerate(table)
        return {
            key: value
            for name, entry in entries
            for key, value in _flat(entry, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): table}


def trusts(recipe: Recipe) -> bool:
    """Whether a tower of the recipe may run code that comes with a model."""
    encoders = [tower.encoder for tower in recipe.towers.values() if tower.encoder]
    return any(encoder.options.get("trust_remote_code") for encoder in encoders)
