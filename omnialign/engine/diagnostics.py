"""How a run is doing: what is said of a step, and warnings with their remedies.

Axes: n pairs of a batch, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omnialign.engine.sharding import total_norm
from omnialign.recipe import Recipe

MAX_MEASURED = 1024
"""Rows of a batch that speak for all."""
LEAST_RANK = 2.0
"""Effective rank below which embeddings count as collapsed."""


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
    skipped: int
    """Steps so far that were left out because a gradient was not finite."""
    pairs: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """By pair whose turn it was: loss, in-batch accuracy, temperature, and its geometry."""
    tower_gradient_norms: dict[str, float] = field(default_factory=dict[str, float])
    tower_padding: dict[str, float] = field(default_factory=dict[str, float])
    """Of the towers whose batches are padded: places processed to those that held data."""
    warnings: list[str] = field(default_factory=list[str])
    """Those that are new with this step."""

    def record(self) -> dict[str, Any]:
        """As JSON has it: null for a number that is not finite."""
        return _finite(asdict(self))

    def scalars(self) -> dict[str, float]:
        """Flat names for trackers."""
        told = asdict(self)
        for name in ("step", "num_steps", "warnings"):
            told.pop(name)
        named = {f"{p}/{k}": v for p, some in told.pop("pairs").items() for k, v in some.items()}
        for kind in ("gradient_norms", "padding"):
            by_tower = told.pop(f"tower_{kind}")
            named |= {f"{kind.removesuffix('s')}/{name}": v for name, v in by_tower.items()}
        return told | named


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inside) for key, inside in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@torch.no_grad()
def in_batch_accuracy(x: Tensor, y: Tensor, x_ids: Tensor, y_ids: Tensor) -> Tensor:
    """Share of rows and columns of `(n, n)` whose best entry is a partner or its equal."""
    asked = slice(0, MAX_MEASURED)
    same = (x_ids[asked, None] == x_ids) | (y_ids[asked, None] == y_ids)
    hits = [same.gather(1, (a[asked] @ b.T).argmax(1, keepdim=True)) for a, b in ((x, y), (y, x))]
    return torch.cat(hits).float().mean()


@torch.no_grad()
def geometry(x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """How the unit vectors `(n, D)` of pairs lie on the sphere.

    `alignment` is the mean squared distance of partners, and `uniformity` the logarithm of the mean
    over items of one side of `exp(-2 d²)` (Wang & Isola 2020, arXiv:2005.10242); both are better
    when they are smaller. `effective_rank` is the exponential of the entropy of the normalised
    singular values (Roy & Vetterli 2007): in how many directions the items of one side spread. Of
    the last two, the worse side is given. `modality_gap` is the distance between the means of both
    sides (Liang et al. 2022, arXiv:2203.02053).
    """
    x, y = x[:MAX_MEASURED].float(), y[:MAX_MEASURED].float()
    return {
        "alignment": (x - y).square().sum(1).mean(),
        "uniformity": torch.maximum(_uniformity(x), _uniformity(y)),
        "effective_rank": torch.minimum(_effective_rank(x), _effective_rank(y)),
        "modality_gap": (x.mean(0) - y.mean(0)).norm(),
    }


def _uniformity(vectors: Tensor) -> Tensor:
    n = len(vectors)
    if n < 2:
        return vectors.new_zeros(())
    closeness = (4 * (vectors @ vectors.T - 1)).exp()  # exp(-2 d²), since d² = 2 - 2 cosine
    return ((closeness.sum() - n).clamp(min=0) / (n * (n - 1))).log()


def _effective_rank(vectors: Tensor) -> Tensor:
    if not vectors.isfinite().all():
        return vectors.new_full((), torch.nan)
    shares = torch.linalg.svdvals(vectors)
    shares = shares / shares.sum()
    return torch.special.entr(shares).sum().exp()


@torch.no_grad()
def gradient_norms(towers: Mapping[str, nn.Module]) -> dict[str, float]:
    """The norm of the gradient of each tower that has something to train."""
    found: dict[str, float] = {}
    for name, tower in towers.items():
        if any(p.requires_grad for p in tower.parameters()):
            gradients = [p.grad for p in tower.parameters() if p.grad is not None]
            found[name] = float(total_norm(gradients))
    return found


def pair_names(recipe: Recipe) -> list[str]:
    """What each pair is called in reports: its modalities, and its place where that is taken."""
    found: list[str] = []
    for i, pair in enumerate(recipe.pairs):
        name = "-".join(pair.modalities)
        found.append(name if name not in found else f"{name}-{i}")
    return found


class Watch:
    """Warns once of each thing that goes wrong, or does nothing."""

    def __init__(self, recipe: Recipe, num_processes: int) -> None:
        self._recipe = recipe
        self._num_processes = num_processes
        self.said: set[str] = set()

    def new_warnings(self, report: StepReport) -> list[str]:
        """What has to be said of a step and was not said before."""
        found = [text for text in self._all(report) if text.partition(":")[0] not in self.said]
        self.said.update(text.partition(":")[0] for text in found)
        return found

    def _all(self, report: StepReport) -> Iterable[str]:
        train = self._recipe.train
        if train.shard_weights and self._num_processes == 1:
            yield (
                "train.shard_weights: one process has nothing to spread its weights over; launch "
                "several (accelerate launch), or leave it out"
            )
        for modality, tower in self._recipe.towers.items():
            if tower.frozen_steps >= train.num_steps:
                yield (
                    f"towers.{modality}.frozen_steps: the encoder would train after step "
                    f"{tower.frozen_steps}, and the run ends at {train.num_steps}; say frozen = "
                    "true if that is meant, else lower it"
                )
        for pair, name in zip(self._recipe.pairs, pair_names(self._recipe), strict=True):
            if name not in report.pairs:  # it was not its turn
                continue
            values = report.pairs[name]
            if report.step > max(100, train.warmup_steps) and values["effective_rank"] < LEAST_RANK:
                yield (
                    f"collapse of {name}: all embeddings of a side lie along "
                    f"{values['effective_rank']:.1f} directions; lower train.learning_rate or "
                    "raise train.batch_size, and look whether the items really differ"
                )
            if pair.learn_temperature and values["temperature"] <= 1.001 * pair.min_temperature:
                yield (
                    f"temperature of {name}: at its clamp {pair.min_temperature:g}; the batch is "
                    "told apart with ease: more augmentation, more data or a larger "
                    "train.batch_size will teach more"
                )
            if pair.learn_temperature and values["temperature"] >= 0.999:
                yield (
                    f"temperature of {name}: at its upper clamp 1; nothing is told apart: lower "
                    "train.learning_rate, and look whether the pairs really belong together"
                )
        for name, norm in report.tower_gradient_norms.items():
            if norm == 0:
                yield (
                    f"no gradient for the tower {name}: it learns nothing; say frozen = true if "
                    "that is meant, else look for a detach or a saturated layer in its encoder"
                )
        if report.skipped:
            yield (
                f"non-finite gradients: {report.skipped} steps were left out; lower "
                "train.learning_rate or train with precision = 'float32'"
            )
