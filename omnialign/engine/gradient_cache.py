"""A contrastive batch of any size, from micro-batches that fit into memory.

Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup"
(arXiv:2101.06983), for any number of pairs and towers, with as many graphs kept as memory allows.

Axes: n rows of a micro-batch, D dim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnialign.data.loader import PairBatch
from omnialign.engine.memory import all_or_none, saved_bytes
from omnialign.engine.objective import (
    Objective,
    PairMetrics,
    Place,
    StepBatches,
    StepKey,
    places,
    side_at,
)
from omnialign.engine.sharding import is_sharded
from omnialign.errors import DataError


class GradientCache:
    """Loss and gradients of a whole step, a micro-batch at a time.

    All micro-batches are embedded; the loss of all vectors gives their gradients; then each
    micro-batch takes its share back through its tower, over its kept graph or over one that is
    built again with the same dropout. Gradients are those of the whole batch at once.
    """

    def __init__(self, objective: Objective, graph_bytes: int) -> None:
        self._objective = objective
        self.graph_bytes = graph_bytes
        self._row_bytes: dict[tuple[int, int], float] = {}

    def __call__(
        self, batches: StepBatches, key: StepKey, measure: bool = True
    ) -> tuple[Tensor, list[PairMetrics]]:
        """The loss and each pair's metrics; gradients are added to the parameters."""
        objective = self._objective
        free = float(self.graph_bytes)
        graphs: dict[Place, Tensor] = {}
        leaves: dict[Place, Tensor] = {}
        with all_or_none(objective.group, objective.space.device):
            for place in places(batches):
                needed = self.bytes_of(place, batches, key)
                keeps = 0 < needed <= free
                with torch.set_grad_enabled(keeps):
                    vectors = objective.embed(batches, place, key)
                if keeps:
                    graphs[place] = vectors
                    free -= needed
                leaves[place] = vectors.detach().requires_grad_(needed > 0)
        loss, metrics = objective.loss(leaves, batches, measure)
        loss.backward()
        with all_or_none(objective.group, objective.space.device):
            for place in places(batches):  # one order, whatever is kept: sums stay the same bits
                gradient = leaves.pop(place).grad
                if gradient is not None:
                    vectors = graphs.pop(place, None)
                    if vectors is None:
                        vectors = objective.embed(batches, place, key)
                    vectors.backward(gradient)
        return loss.detach(), metrics

    def bytes_of(self, place: Place, batches: StepBatches, key: StepKey) -> float:
        """What the graph of a micro-batch's side holds; 0 if nothing in it is trained.

        A row counts as much as one of the first micro-batch that was seen, which is embedded once
        more for it.
        """
        side = (place.pair, place.side)
        if side not in self._row_bytes:
            with saved_bytes(self._objective) as saved:
                vectors = self._objective.embed(batches, place, key)
            per_row = saved.num_bytes / len(vectors)
            self._row_bytes[side] = per_row if vectors.requires_grad else 0.0
        return self._row_bytes[side] * len(side_at(batches, place))


def average_gradients(parameters: Iterable[nn.Parameter], num_processes: int) -> None:
    """The mean over all processes of every gradient, in one exchange a dtype.

    What has a gradient in no process is left without, as on one. Sharded weights are left out:
    their gradients come averaged.
    """
    shared = [p for p in parameters if p.requires_grad and not is_sharded(p)]
    used = torch.tensor([float(p.grad is not None) for p in shared], device=shared[0].device)
    dist.all_reduce(used)
    gradients: dict[torch.dtype, list[Tensor]] = {}
    for parameter, uses in zip(shared, used.tolist(), strict=True):
        if uses:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for some in gradients.values():
        flat = torch.cat([gradient.flatten() for gradient in some]).div_(num_processes)
        dist.all_reduce(flat)
        sizes = [gradient.numel() for gradient in some]
        for gradient, part in zip(some, flat.split(sizes), strict=True):
            gradient.copy_(part.view_as(gradient))


def split(batches: StepBatches, most: int) -> StepBatches:
    """Micro-batches of at most `most` rows."""
    return [
        [
            micro.rows(slice(start, start + most))
            for micro in batch
            for start in range(0, len(micro), most)
        ]
        for batch in batches
    ]


def in_parts(batch: Sequence[PairBatch], wanted: int) -> list[PairBatch]:
    """The same rows in `wanted` micro-batches, at least as many as there are: the largest halve.

    Raises `DataError` where there are fewer rows.
    """
    parts = list(batch)
    while len(parts) < wanted:
        largest = max(range(len(parts)), key=lambda k: len(parts[k]))
        half = -(-len(parts[largest]) // 2)
        first, rest = parts[largest].rows(slice(half)), parts[largest].rows(slice(half, None))
        if not len(rest):
            raise DataError(
                f"a process can read {len(parts)} rows of its share of a batch, and with "
                f"train.shard_weights it wants {wanted} micro-batches; choose a larger "
                "train.batch_size or train.micro_batch_size"
            )
        parts[largest : largest + 1] = [first, rest]
    return parts
