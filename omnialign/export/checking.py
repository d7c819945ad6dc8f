"""Whether a file gives what the live tower gives, and what is lost where it may not.

Axes: n encoder inputs, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnialign.errors import OmniAlignError
from omnialign.evaluation.evaluate import evaluate
from omnialign.export.formats import Runtime
from omnialign.export.samples import Samples, tested_pair
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.tower import Tower, prefix

LEAST_COSINE = 0.9999
"""Of a float32 file with the live tower."""
BATCH_SIZES = (1, 8)
LENGTH_TOLERANCE = 1e-3
RECALLS = ("recall@1", "recall@5")


@dataclass(frozen=True)
class Agreement:
    """How near the vectors of a file lie to the live tower's."""

    samples: str
    num_samples: int
    num_inputs: int
    batch_sizes: Sequence[int]
    minimum_cosine: float
    mean_cosine: float
    worst_sample: str


def live_vectors(tower: Tower, dim: int, inputs: Sequence[Any], batch_size: int) -> Tensor:
    """What the model itself gives, `(n, D)`."""
    return _in_batches(lambda batch: prefix(tower(batch), dim), tower, inputs, batch_size)


def compare(tower: Tower, dim: int, run: Runtime, samples: Samples) -> Agreement:
    """Runs a file on samples alone and in batches, as ragged as they come.

    Raises `OmniAlignError` where it does not run, or gives other than unit vectors `(n, D)`.
    """
    live = live_vectors(tower, dim, samples.inputs, max(BATCH_SIZES)).double()
    cosines = torch.ones(len(live), dtype=torch.float64)
    for batch_size in BATCH_SIZES:
        try:
            found = _in_batches(run, tower, samples.inputs, batch_size).double()
        except Exception as error:  # each runtime has errors of its own
            raise OmniAlignError(
                f"the written file does not run on batches of {batch_size}: {error}"
            ) from error
        if found.shape != live.shape:
            raise OmniAlignError(
                f"the written file gives {tuple(found.shape)} in the place of {tuple(live.shape)}"
            )
        lengths = found.norm(dim=-1)
        cosine = (found * live).sum(-1) / lengths
        wrong = ~((lengths - 1).abs() < LENGTH_TOLERANCE)
        cosines = torch.minimum(cosines, cosine.masked_fill(wrong, -1.0).nan_to_num(-1.0))
    worst = int(cosines.argmin())
    return Agreement(
        samples=samples.origin,
        num_samples=samples.num_samples,
        num_inputs=len(live),
        batch_sizes=BATCH_SIZES,
        minimum_cosine=float(cosines[worst]),
        mean_cosine=float(cosines.mean()),
        worst_sample=samples.names[worst],
    )


@torch.no_grad()
def _in_batches(run: Runtime, tower: Tower, inputs: Sequence[Any], batch_size: int) -> Tensor:
    collate = tower.pipeline.collate
    starts = range(0, len(inputs), batch_size)
    return torch.cat([run(collate(inputs[start : start + batch_size])) for start in starts])


class ServedTower(Tower):
    """A tower whose vectors come from a file."""

    def __init__(self, tower: Tower, dim: int, run: Runtime) -> None:
        encoder = dict(tower.config["encoder"])
        super().__init__(
            tower.modality,
            tower.encoder,
            name=encoder.pop("name"),
            options=encoder,
            dim=dim,
            projection="linear",
            long_input=tower.config["long_input"],
        )
        self.run = run

    def forward(self, batch: Any) -> Tensor:
        return self.run(batch)


def retrieval_loss(
    space: SharedSpace, modality: str, run: Runtime, recipe: Recipe
) -> dict[str, Any]:
    """Recall on the test rows of the recipe's pair with this tower, live and from the file.

    Gives `data`, `num_pairs`, by direction and recall `live`, `exported` and `loss`, and the
    largest of these as `largest_loss`. Raises `OmniAlignError` where the rows are not here.
    """
    pair = tested_pair(recipe, modality)
    if pair is None or pair.test is None:
        raise OmniAlignError(f"no pair of the recipe tests {modality}")
    alone = recipe.model_copy(update={"pairs": [pair], "evaluations": []})
    towers = {name: space.tower(name) for name in pair.modalities}
    live = SharedSpace(towers, space.trained_dim, {}, matryoshka=space.matryoshka)
    served = {**towers, modality: ServedTower(towers[modality], space.dim, run)}
    exported = SharedSpace(served, space.trained_dim, {}, matryoshka=space.matryoshka)
    for one in (live, exported):
        one.truncate(space.dim)
    (before,), (after,) = (evaluate(one, alone)["tasks"] for one in (live, exported))
    directions: dict[str, Any] = {}
    for direction in (f"{a}_to_{b}" for a, b in (pair.modalities, pair.modalities[::-1])):
        recalls = {k: [task[direction][k]["mean"] for task in (before, after)] for k in RECALLS}
        directions[direction] = {
            name: {"live": old, "exported": new, "loss": old - new}
            for name, (old, new) in recalls.items()
        }
    losses = [recall["loss"] for found in directions.values() for recall in found.values()]
    return {
        "data": pair.test.data,
        "num_pairs": before["num_pairs"],
        "directions": directions,
        "largest_loss": max(losses),
    }
