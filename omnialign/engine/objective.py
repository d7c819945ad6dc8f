"""What a step minimises: the weighted sum of the losses of all pairs.

Axes: n pairs of a batch on this process, D dim, w width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnialign.data.loader import PairBatch
from omnialign.losses import info_nce
from omnialign.recipe import Pair, Recipe
from omnialign.space import SharedSpace, pair_key


@dataclass
class PairMetrics:
    """What a step says of one pair; detached scalars."""

    loss: Tensor
    accuracy: Tensor
    """Share of the pairs of this process that find their partner, of both directions."""


class Objective(nn.Module):
    """All trained parts in one module, so that DDP sees one forward a step."""

    def __init__(
        self, space: SharedSpace, recipe: Recipe, group: dist.ProcessGroup | None = None
    ) -> None:
        super().__init__()
        self.space = space
        self._pairs = list(recipe.pairs)
        self._group = group
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

    def forward(self, batches: Sequence[PairBatch]) -> tuple[Tensor, list[PairMetrics]]:
        """The loss, a scalar, and the metrics of each pair."""
        total = torch.zeros((), device=self.space.device)
        metrics: list[PairMetrics] = []
        for pair, batch in zip(self._pairs, batches, strict=True):
            x = self._embed(pair.modalities[0], batch.x, batch.x_ids + batch.x_segments)
            y = self._embed(pair.modalities[1], batch.y, batch.y_ids + batch.y_segments)
            with torch.autocast(x.device.type, enabled=False):
                loss = info_nce(
                    x,
                    y,
                    self.space.logit_scale(*pair.modalities),
                    x_ids=batch.x_ids,
                    y_ids=batch.y_ids,
                    group=self._group,
                )
            total = total + pair.weight * loss
            accuracy = in_batch_accuracy(x.detach(), y.detach(), batch.x_ids, batch.y_ids)
            metrics.append(PairMetrics(loss.detach(), accuracy))
        return total, metrics

    def _embed(self, modality: str, batch: Any, keys: Tensor) -> Tensor:
        tower = self.space.tower(modality)
        if modality not in self.frozen:
            return tower(batch)
        return tower.project(self.frozen[modality](tower.encoder, batch, keys))

    @torch.no_grad()
    def clamp_temperatures(self) -> None:
        """Keeps each learned temperature between its recipe's minimum and 1."""
        for pair in self._pairs:
            scale = self.space.log_scales[pair_key(*pair.modalities)]
            scale.clamp_(0.0, _log_inverse(pair))


def _log_inverse(pair: Pair) -> float:
    return -float(torch.tensor(pair.min_temperature).log())


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
            features = encoder(_take(batch, chosen))
            for i, row in zip(new, features, strict=True):
                self._known[wanted[i]] = row.clone()
        return torch.stack([self._known[key].to(keys.device) for key in wanted])


def _take(batch: Any, rows: Tensor) -> Any:
    if isinstance(batch, Mapping):
        return {name: tensor[rows] for name, tensor in batch.items()}
    return batch[rows]


@torch.no_grad()
def in_batch_accuracy(x: Tensor, y: Tensor, x_ids: Tensor, y_ids: Tensor) -> Tensor:
    """Share of rows and columns of `(n, n)` whose best entry is a partner or its equal."""
    scores = x @ y.T
    same = (x_ids[:, None] == x_ids[None, :]) | (y_ids[:, None] == y_ids[None, :])
    hits = [same.gather(1, s.argmax(1, keepdim=True)) for s in (scores, scores.T)]
    return torch.cat(hits).float().mean()
