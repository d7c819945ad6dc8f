"""What a step minimises: the weighted sum of the losses of all pairs.

Axes: n pairs of a batch on this process, D dim, w width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from accelerate.utils import send_to_device
from torch import Tensor, nn

from omnialign.data.loader import PairBatch, take
from omnialign.engine.diagnostics import geometry, in_batch_accuracy
from omnialign.losses import info_nce, sigmoid
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.tower import prefix

FIRST_BIAS = -10.0
"""Of the sigmoid loss, which begins by taking no entry for a pair (Zhai et al. 2023)."""

PairMetrics = dict[str, Tensor]
"""What a step says of one pair, by name: detached scalars."""
StepKey = tuple[int, int, int]
"""What a step's randomness follows from: seed, step, process."""
StepBatches = Sequence[Sequence[PairBatch]]
"""A step's micro-batches, by pair."""


class Place(NamedTuple):
    """One side, 0 or 1, of one micro-batch of a pair."""

    pair: int
    side: int
    micro_batch: int


def places(batches: StepBatches) -> list[Place]:
    """All sides of all micro-batches."""
    return [
        Place(i, side, k)
        for i, batch in enumerate(batches)
        for k in range(len(batch))
        for side in (0, 1)
    ]


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
        self._group = group
        self.biases = nn.ParameterDict(
            {
                str(i): nn.Parameter(torch.tensor(FIRST_BIAS))
                for i, pair in enumerate(self._pairs)
                if pair.loss == "sigmoid"
            }
        )
        for pair in self._pairs:
            if not pair.learn_temperature:
                space.log_scales.of(*pair.modalities).requires_grad_(False)
        self.frozen: dict[str, FrozenFeatures] = {}
        for modality in space.modalities:
            wanted = recipe.tower(modality)
            if wanted.frozen:
                space.tower(modality).encoder.requires_grad_(False)
                if not wanted.augmentations:
                    self.frozen[modality] = FrozenFeatures()
        self._always_eval = [m for m in space.modalities if recipe.tower(m).frozen]

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
        batch = batches[place.pair][place.micro_batch]
        modality = self._pairs[place.pair].modalities[place.side]
        tower = self.space.tower(modality)
        device = self.space.device
        value = send_to_device((batch.x, batch.y)[place.side], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            if modality not in self.frozen:
                return tower(value)
            ids, segments = (
                (batch.x_ids, batch.x_segments),
                (batch.y_ids, batch.y_segments),
            )[place.side]
            return tower.project(self.frozen[modality](tower.encoder, value, ids + segments))

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
            x, y = (
                torch.cat([vectors[Place(i, side, k)] for k in range(len(batch))])
                for side in (0, 1)
            )
            x_ids, y_ids = (
                torch.cat(ids).to(x.device)
                for ids in ([b.x_ids for b in batch], [b.y_ids for b in batch])
            )
            scale = self.space.logit_scale(*pair.modalities)
            options: dict[str, Any] = {
                "x_ids": x_ids,
                "y_ids": y_ids,
                "duplicates": pair.duplicates,
                "label_smoothing": pair.label_smoothing,
                "group": self._group,
            }
            losses: list[Tensor] = []
            for size in (*self.space.matryoshka, self.space.trained_dim):
                a, b = prefix(x, size), prefix(y, size)
                if pair.loss == "sigmoid":
                    losses.append(sigmoid(a, b, scale, self.biases[str(i)], **options))
                else:
                    losses.append(info_nce(a, b, scale, **options))
            loss = torch.stack(losses).mean()
            total = total + pair.weight * loss
            metrics.append({"loss": loss.detach()})
            if measure:
                x, y = x.detach(), y.detach()
                metrics[-1] |= {"accuracy": in_batch_accuracy(x, y, x_ids, y_ids), **geometry(x, y)}
        return total, metrics

    @torch.no_grad()
    def clamp_temperatures(self) -> None:
        """Keeps each learned temperature between its recipe's minimum and 1."""
        for pair in self._pairs:
            if pair.learn_temperature:
                scale = self.space.log_scales.of(*pair.modalities)
                scale.clamp_(0.0, -math.log(pair.min_temperature))


class FrozenFeatures:
    """Features of a frozen encoder whose inputs are not augmented, computed once an input.

    They travel in checkpoints: computed again beside other inputs, they could differ in the last
    bit, and a resumed run with them.
    """

    def __init__(self) -> None:
        self._known: dict[int, Tensor] = {}

    def state_dict(self) -> dict[str, Tensor]:
        features = torch.stack([*self._known.values()]) if self._known else torch.empty(0)
        return {"keys": torch.tensor([*self._known], dtype=torch.int64), "features": features}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._known = dict(zip(state["keys"].tolist(), state["features"], strict=True))

    @torch.no_grad()
    def __call__(self, encoder: nn.Module, batch: Any, keys: Tensor) -> Tensor:
        """A batch and a number `(n,)` for each different input to features `(n, w)`."""
        wanted: list[int] = keys.tolist()
        new = list({key: i for i, key in enumerate(wanted) if key not in self._known}.values())
        if new:
            chosen = torch.tensor(new, device=keys.device)
            features = encoder(take(batch, chosen))
            for i, row in zip(new, features, strict=True):
                self._known[wanted[i]] = row.clone()
        return torch.stack([self._known[key].to(keys.device) for key in wanted])
