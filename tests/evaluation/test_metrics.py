"""Metrics against loops and exact counts that are too slow to ship but plain to read."""

from math import comb

import pytest
import torch
from torch import Tensor, nn

from omnialign.evaluation import metrics
from omnialign.evaluation.metrics import (
    Estimate,
    best_ranks,
    chance_recall,
    correct,
    estimate,
    retrieval,
)


def signs(n: int, seed: int) -> Tensor:
    """Unit vectors `(n, 4)` of +-1/2: cosines are exact and often tie."""
    return torch.randint(0, 2, (n, 4), generator=torch.Generator().manual_seed(seed)) - 0.5


def some_positives(num_queries: int, num_gallery: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randperm(num_gallery, generator=generator)[: 1 + i % 3].tolist()
        for i in range(num_queries)
    ]


def slow_ranks(queries: Tensor, gallery: Tensor, positives: list[list[int]]) -> list[int]:
    """A partner's rank is one more than the strangers that are at least as near."""
    ranks: list[int] = []
    for query, places in zip(queries, positives, strict=True):
        scores = [float(query @ item) for item in gallery]
        strangers = [score for i, score in enumerate(scores) if i not in places]
        ranks.append(min(1 + sum(s >= scores[i] for s in strangers) for i in places))
    return ranks


@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_a_loop(seed: int) -> None:
    queries, gallery = signs(23, seed), signs(17, seed + 100)
    positives = some_positives(23, 17, seed)
    expected = slow_ranks(queries, gallery, positives)
    assert len(set(expected)) > 3
    assert best_ranks(queries, gallery, positives).tolist() == expected


@pytest.mark.parametrize("chunk", [1, 5, 22, 23, 24])
def test_chunks_change_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, gallery, positives = signs(23, 1), signs(17, 2), some_positives(23, 17, 3)
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    expected = slow_ranks(queries, gallery, positives)
    assert best_ranks(queries, gallery, positives).tolist() == expected


def test_a_collapsed_space_has_every_partner_last() -> None:
    point = signs(1, 0).expand(6, 4)
    assert best_ranks(point, point, [[i] for i in range(6)]).tolist() == [6] * 6
    assert best_ranks(point, point, [[0, 1, 2]] * 6).tolist() == [4] * 6


def test_vectors_that_are_not_numbers_find_nothing() -> None:
    nothing = torch.full((3, 4), torch.nan)
    assert best_ranks(nothing, nothing, [[0], [1], [2]]).tolist() == [3, 3, 3]


def test_partners_do_not_compete() -> None:
    gallery = torch.eye(3)
    query = nn.functional.normalize(torch.tensor([[0.5, 0.9, 0.7]]), dim=-1)
    assert best_ranks(query, gallery, [[0]]).tolist() == [3]
    assert best_ranks(query, gallery, [[0, 2]]).tolist() == [2]
    assert best_ranks(query, gallery, [[0, 1, 2]]).tolist() == [1]


@pytest.mark.parametrize("gallery", [1, 2, 7, 30])
def test_chance_recall_is_exact(gallery: int) -> None:
    for partners in range(1, gallery + 1):
        for k in (1, 2, 5, 10, 40):
            drawn = min(k, gallery)
            expected = 1 - comb(gallery - partners, drawn) / comb(gallery, drawn)
            found = chance_recall(k, gallery, [list(range(partners))])
            assert found == pytest.approx(expected, abs=1e-6)


def test_chance_recall_is_what_random_vectors_get() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(2, 4000, 64, generator=generator)
    gallery = gallery[:40]
    positives = some_positives(4000, 40, 1)
    ranks = best_ranks(queries, gallery, positives)
    for k in (1, 5, 10):
        found = float((ranks <= k).double().mean())
        assert found == pytest.approx(chance_recall(k, 40, positives), abs=0.025)


def test_an_interval_holds_its_mean_and_repeats() -> None:
    values = (torch.arange(200) % 4 == 0).double()
    found = estimate(values, 0.1)
    assert (found.mean, found.chance) == (0.25, 0.1)
    assert found.low < 0.25 < found.high
    normal = 1.96 * (0.25 * 0.75 / 200) ** 0.5
    assert found.high - found.low == pytest.approx(2 * normal, rel=0.15)
    assert estimate(values, 0.1) == found
    assert estimate(values, 0.1, seed=1) != found


@pytest.mark.parametrize("values", [[1.0] * 9, [0.0] * 9, [1.0]])
def test_an_interval_without_spread_is_a_point(values: list[float]) -> None:
    value = values[0]
    assert estimate(torch.tensor(values), 0.5) == Estimate(value, value, value, 0.5)


def test_retrieval_says_everything_once() -> None:
    vectors = torch.eye(12)
    found = retrieval(vectors, vectors, [[i] for i in range(12)], at=(1, 3))
    assert list(found) == ["recall@1", "recall@3", "median_rank", "num_queries", "num_gallery"]
    assert found["recall@1"] == Estimate(1, 1, 1, pytest.approx(1 / 12))
    assert found["recall@3"] == Estimate(1, 1, 1, pytest.approx(3 / 12))
    assert (found["median_rank"], found["num_queries"], found["num_gallery"]) == (1, 12, 12)
    assert {"recall@1", "recall@5", "recall@10"} < retrieval(vectors, vectors, [[0]] * 12).keys()


def test_a_tie_between_classes_is_wrong() -> None:
    prompts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [1.0, 0.0]])
    assert correct(vectors, prompts, torch.tensor([0, 1, 2, 2])).tolist() == [1, 0, 0, 0]
    point = torch.ones(4, 2)
    assert correct(point, torch.ones(3, 2), torch.tensor([0, 1, 2, 0])).tolist() == [0] * 4
