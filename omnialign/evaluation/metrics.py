"""What is measured, on embeddings alone.

Axes: Q queries, G gallery, D dim, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, lgamma

import torch
from torch import Tensor

CHUNK = 1024
"""Queries that are scored at once, so that memory is `CHUNK * G` whatever Q is."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval, beside what guessing gives."""

    mean: float
    low: float
    high: float
    chance: float


def estimate(values: Tensor, chance: float, seed: int = 0, resamples: int = 1000) -> Estimate:
    """The mean of `(Q,)` with a percentile bootstrap over queries (Efron 1979)."""
    values = values.double()
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    means = torch.stack(
        [values[torch.randint(n, (n,), generator=generator)].mean() for _ in range(resamples)]
    )
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(values.mean()), low, high, chance)


def best_ranks(queries: Tensor, gallery: Tensor, positives: Sequence[Sequence[int]]) -> Tensor:
    """The rank, from 1, of each query's best-placed partner: `(Q,)`.

    Args:
        queries: unit vectors `(Q, D)`.
        gallery: unit vectors `(G, D)`.
        positives: places in the gallery of each query's partners, at least one.

    Partners do not compete with each other, and a tie counts against us, as does a score that is
    no number: a space that has collapsed to one point has every partner last, not first.
    """
    ranks: list[Tensor] = []
    for start in range(0, len(queries), CHUNK):
        scores = queries[start : start + CHUNK] @ gallery.T
        partner = torch.zeros_like(scores, dtype=torch.bool)
        for row, places in enumerate(positives[start : start + CHUNK]):
            partner[row, list(places)] = True
        best = scores.masked_fill(~partner, -torch.inf).amax(1, keepdim=True)
        ranks.append(1 + (~(scores < best) & ~partner).sum(1))
    return torch.cat(ranks)


def chance_recall(k: int, gallery: int, positives: Sequence[Sequence[int]]) -> float:
    """Expected recall@k of a random order: one minus the chance to miss all partners, averaged."""
    return sum(1 - _miss(k, gallery, len(p)) for p in positives) / len(positives)


def _miss(k: int, gallery: int, partners: int) -> float:
    others = gallery - partners
    if k > others:
        return 0.0
    ways_to_miss = lgamma(others + 1) - lgamma(others - k + 1)
    ways = lgamma(gallery + 1) - lgamma(gallery - k + 1)
    return exp(ways_to_miss - ways)


def retrieval(
    queries: Tensor,
    gallery: Tensor,
    positives: Sequence[Sequence[int]],
    at: Sequence[int] = (1, 5, 10),
) -> dict[str, Estimate | float | int]:
    """recall@k for each k, and the median rank, as for `best_ranks`."""
    ranks = best_ranks(queries, gallery, positives)
    found: dict[str, Estimate | float | int] = {
        f"recall@{k}": estimate(
            (ranks <= k).double(), chance_recall(k, len(gallery), positives), seed=k
        )
        for k in at
    }
    found["median_rank"] = float(ranks.double().quantile(0.5))
    found["num_queries"] = len(queries)
    found["num_gallery"] = len(gallery)
    return found


def correct(vectors: Tensor, prompts: Tensor, labels: Tensor) -> Tensor:
    """Whether each vector `(Q, D)` is nearest to the prompt `(C, D)` of its label `(Q,)`.

    A tie counts against us.
    """
    scores = vectors @ prompts.T
    own = scores.gather(1, labels[:, None])
    return ((scores >= own).sum(1) == 1).double()
