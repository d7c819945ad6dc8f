"""What a step minimises: the weighted sum of the losses of all pairs.

Axes: n pairs of a batch on this process, m hard negatives, D dim, w width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnialign.data.loader import PairBatch, SideBatch
from omnialign.engine.diagnostics import geometry, in_batch_accuracy
from omnialign.losses import info_nce, sigmoid
from omnialign.losses.processes import Processes
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.temperature import pair_key
from omnialign.tower import prefix

PairMetrics = dict[str, Tensor]
"""What a step says of one pair, by name: detached scalars."""
StepKey = tuple[int, int, int]
"""What a step's randomness follows from: seed, step, process."""
StepBatches = Sequence[Sequence[PairBatch]]
"""A step's micro-batches, by pair."""


class Place(NamedTuple):
    """One side of one micro-batch of a pair: 0 is x, 1 is y, 2 are hard negatives."""

    pair: int
    side: int
    micro_batch: int


def places(batches: StepBatches) -> list[Place]:
    """All sides of all micro-batches that hold something."""
    return [
        Place(i, side, k)
        for i, batch in enumerate(batches)
        for k, micro in enumerate(batch)
        for side, given in enumerate(micro.sides)
        if len(given)
    ]


def side_at(batches: StepBatches, place: Place) -> SideBatch:
    return batches[place.pair][place.micro_batch].sides[place.side]


def joined(vectors: Mapping[Place, Tensor], pair: int, batch: Sequence[PairBatch]) -> list[Tensor]:
    """All vectors of each side of a pair: `(n, D)` of x and of y, and `(m, D)` hard negatives.

    Hard negatives take a gradient where y does, even where there are none: what the processes
    exchange follows from what is trained, and has to be the same on all.
    """
    x, y, *others = (
        [vectors[at] for k in range(len(batch)) if (at := Place(pair, side, k)) in vectors]
        for side in range(len(batch[0].sides))
    )
    partners = torch.cat(y)
    return [torch.cat(x), partners, *(torch.cat([partners[:0], *some]) for some in others)]


class Objective(nn.Module):
    """All trained parts in one module, so that DDP sees one forward a step."""

    def __init__(
        self,
        space: SharedSpace,
        recipe: Recipe,
        group: dist.ProcessGroup | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.space = space
        self._bf16 = bf16
        self._pairs = list(recipe.pairs)
        self.group = group
        for pair in self._pairs:
            if not pair.learn_temperature:
                space.log_scales.of(*pair.modalities).requires_grad_(False)
        trained = {pair_key(*pair.modalities) for pair in self._pairs}
        for key in {pair_key(*pair) for pair in space.pairs} - trained:  # as they were before
            for scalars in (space.log_scales, space.logit_biases):
                if key in scalars:
                    scalars[key].requires_grad_(False)
        self.given_features: frozenset[str] = frozenset()
        """Modalities whose batches hold features in the place of inputs."""
        self._always_eval = {m for m in space.modalities if recipe.tower(m).frozen}
        for modality in self._always_eval:
            tower = space.tower(modality)
            kept = tower if recipe.tower(modality).frozen == "tower" else tower.encoder
            kept.requires_grad_(False)
        self._unfrozen_at = {
            m: recipe.tower(m).frozen_steps
            for m in space.modalities
            if recipe.tower(m).frozen_steps
        }
        self._unfrozen = {
            m: [p for p in space.tower(m).encoder.parameters() if p.requires_grad]
            for m in self._unfrozen_at
        }

    @property
    def unfreezes(self) -> bool:
        """Whether an encoder begins to train in the middle of the run."""
        return bool(self._unfrozen_at)

    def begin(self, step: int) -> bool:
        """Freezes and unfreezes encoders for `step`, from 0; gives whether any has changed.

        All are trainable at first, so that the optimizer and DDP know them.
        """
        changed = False
        for modality, first in self._unfrozen_at.items():
            waits = step < first
            changed |= waits != (modality in self._always_eval)
            (self._always_eval.add if waits else self._always_eval.discard)(modality)
            for parameter in self._unfrozen[modality]:
                parameter.requires_grad_(not waits)
        if changed:
            self.train(self.training)
        return changed

    def train(self, mode: bool = True) -> Objective:
        """Frozen encoders stay in evaluation mode: no dropout, no running statistics."""
        super().train(mode)
        for modality in self._always_eval:
            self.space.tower(modality).encoder.eval()
        return self

    def forward(
        self, batches: StepBatches, key: StepKey, measure: bool = True
    ) -> tuple[Tensor, list[PairMetrics]]:
        """The loss, a scalar, and the metrics of each pair."""
        vectors = {place: self.embed(batches, place, key) for place in places(batches)}
        return self.loss(vectors, batches, measure)

    def embed(self, batches: StepBatches, place: Place, key: StepKey) -> Tensor:
        """Unit vectors `(n, D)` of one side of one micro-batch.

        Dropout and all else that is random follows from `key` and `place`: a second call gives the
        same vectors.
        """
        torch.manual_seed(int(np.random.SeedSequence([*key, *place]).generate_state(1)[0]))
        x, y = self._pairs[place.pair].modalities
        modality = (x, y, y)[place.side]
        tower = self.space.tower(modality)
        value = side_at(batches, place).inputs
        with torch.autocast(self.space.device.type, torch.bfloat16, enabled=self._bf16):
            if modality in self.given_features:
                return tower.project(value.to(self.space.device))
            return tower(value)

    def loss(
        self, vectors: Mapping[Place, Tensor], batches: StepBatches, measure: bool = True
    ) -> tuple[Tensor, list[PairMetrics]]:
        """The weighted sum of all pairs' losses, and the metrics of each pair.

        A pair's loss is the mean over the sizes that the space is trained for (Kusupati et al.
        2022, arXiv:2205.13147).

        `measure`: besides each loss, in-batch accuracy and geometry.
        """
        total = torch.zeros((), device=self.space.device)
        metrics: list[PairMetrics] = []
        for i, (pair, batch) in enumerate(zip(self._pairs, batches, strict=True)):
            metrics.append({})
            if not batch:  # not its turn
                continue
            sides = joined(vectors, i, batch)
            ids = [
                torch.cat([micro.sides[side].ids for micro in batch]).to(self.space.device)
                for side in range(len(sides))
            ]
            weights = [micro.weights for micro in batch if micro.weights is not None]
            options: dict[str, Any] = {
                **dict(zip(("x_ids", "y_ids", "negative_ids"), ids, strict=False)),
                "weights": torch.cat(weights).to(self.space.device) if weights else None,
                "duplicates": pair.duplicates,
                "label_smoothing": pair.label_smoothing,
                "group": self.group,
            }
            scale = self.space.logit_scale(*pair.modalities)
            bias = self.space.logit_bias(*pair.modalities)
            losses: list[Tensor] = []
            for size in (*self.space.matryoshka, self.space.trained_dim):
                x, y, *negatives = (prefix(side, size) for side in sides)
                options["negatives"] = negatives[0] if negatives else None
                if pair.loss == "sigmoid":
                    assert bias is not None
                    losses.append(sigmoid(x, y, scale, bias, **options))
                else:
                    losses.append(info_nce(x, y, scale, **options))
            loss = torch.stack(losses).mean()
            total = total + pair.weight * loss
            metrics[-1]["loss"] = loss.detach()
            if measure:
                metrics[-1] |= self._measured(*sides[:2], *ids[:2])
        return total, metrics

    @torch.no_grad()
    def _measured(self, *own: Tensor) -> dict[str, Tensor]:
        """Accuracy and geometry of the pairs of all processes: vectors, then ids of x and y."""
        processes = Processes(self.group)
        counts = processes.counts(len(own[0]), own[0].device)
        x, y, x_ids, y_ids = (processes.gather(each, counts) for each in own)
        return {"accuracy": in_batch_accuracy(x, y, x_ids, y_ids), **geometry(x, y)}

    @torch.no_grad()
    def clamp_temperatures(self) -> None:
        """Keeps each learned temperature between its recipe's minimum and 1."""
        for pair in self._pairs:
            if pair.learn_temperature:
                scale = self.space.log_scales.of(*pair.modalities)
                scale.clamp_(0.0, -math.log(pair.min_temperature))
