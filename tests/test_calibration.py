"""Scores: they rise with the cosine, compare between modalities, and hold with little to go by."""

from typing import Any

import numpy as np
import pytest

from omnialign.calibration import PRIOR, Calibration

DIM = 32
Array = np.ndarray[Any, Any]


def units(vectors: Array) -> Array:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Three modalities of the same meanings, each in a cone of its own."""

    def __init__(self, number: int = 200, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.cones = {
            name: gap * units(np.random.default_rng(k).normal(size=DIM))
            for k, (name, gap) in enumerate({"words": 0.0, "near": 0.2, "far": 3.0}.items())
        }
        self.cones["words"] = self.cones["far"] / 3
        self.meanings = units(self.random.normal(size=(number, DIM)))

    def vectors(self, name: str, places: Any = slice(None)) -> Array:
        means = self.meanings[places]
        noise = 0.03 * self.random.normal(size=means.shape)
        return units(means + self.cones[name] + noise)

    def calibration(self, known: bool = True) -> Calibration:
        half = slice(0, len(self.meanings) // 2)
        places = np.stack([np.arange(len(self.meanings) // 2)] * 2, 1)
        partners = {("near", "words"): places, ("far", "words"): places} if known else {}
        return Calibration({name: self.vectors(name, half) for name in self.cones}, partners)


@pytest.fixture
def world() -> World:
    return World()


def found(world: World, score: Any) -> tuple[float, float]:
    """How many of the first two hits are right, and how often the first is `far`, of 100."""
    unseen = slice(len(world.meanings) // 2, None)
    queries = world.vectors("words", unseen)
    gallery = {name: world.vectors(name, unseen) for name in ("near", "far")}
    right = first_far = 0
    for place, query in enumerate(queries):
        scores = np.concatenate([score(query, name, own @ query) for name, own in gallery.items()])
        best = np.argsort(-scores)[:2]
        right += sum(hit % len(queries) == place for hit in best)
        first_far += best[0] >= len(queries)
    return right / (2 * len(queries)), first_far / len(queries)


def test_a_mixed_gallery_is_ranked_by_meaning(world: World) -> None:
    raw, far = found(world, lambda query, name, cosines: cosines)
    assert raw < 0.6
    assert far > 0.99
    calibration = world.calibration()
    with_scores, far = found(world, lambda q, name, c: calibration.scores(q, name, c, "words"))
    assert with_scores > 0.9
    assert far < 0.8


def test_a_query_of_several_modalities_takes_what_lies_between(world: World) -> None:
    calibration = world.calibration()
    query, cosines = world.vectors("words")[0], np.array([0.97])

    def odds(query_modality: str | None) -> float:
        score = float(calibration.scores(query, "far", cosines, query_modality)[0])
        return float(np.log(score / (1 - score)))

    own = [odds(name) for name in world.cones]
    assert min(own) < max(own)
    assert odds(None) == pytest.approx(np.mean(own), abs=0.05)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("query_modality", ["words", "near", "elsewhere", None])
@pytest.mark.parametrize("modality", ["near", "far", "words", "nowhere"])
def test_scores_rise_strictly_with_the_cosine(
    world: World, known: bool, query_modality: str | None, modality: str
) -> None:
    cosines = np.linspace(-1, 1, 4001)
    cosines = np.sort(np.concatenate([cosines, cosines[1:] - 6e-8]))  # what float32 tells apart
    query = world.vectors("words")[0]
    scores = world.calibration(known).scores(query, modality, cosines, query_modality)
    assert (np.diff(scores) > 0).all()
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert scores.shape == cosines.shape


def test_a_score_is_a_probability(world: World) -> None:
    """Of items of which one in a hundred belongs, as many as the scores say."""
    calibration = world.calibration()
    unseen = slice(100, None)
    for name in ("near", "far"):
        queries, items = world.vectors("words", unseen), world.vectors(name, unseen)
        scores = np.stack([calibration.scores(q, name, items @ q, "words") for q in queries])
        own = np.eye(len(queries), dtype=bool)
        assert len(queries) == 1 / PRIOR
        assert scores.sum() / len(queries) == pytest.approx(1, rel=0.2)
        assert scores[own].mean() > 0.5
        assert scores[~own].mean() < 0.01


def test_a_pair_without_known_matches_takes_what_the_others_share(world: World) -> None:
    calibration = world.calibration()
    unseen = slice(100, None)
    queries, items = world.vectors("near", unseen), world.vectors("far", unseen)
    scores = np.stack([calibration.scores(q, "far", items @ q, "near") for q in queries])
    own = np.eye(len(queries), dtype=bool)
    assert scores[own].mean() > 5 * scores[~own].mean()


def test_a_few_rows_do_not_hide_what_is_right(world: World) -> None:
    """Three rows that all match are not taken for chance."""
    library = {"near": world.vectors("near"), "far": np.repeat(world.vectors("far", [7]), 3, 0)}
    calibration = Calibration.from_vectors(library)
    query = world.vectors("words", [7])[0]
    scores = calibration.scores(query, "far", library["far"] @ query)
    assert scores.min() > 0.5
    unseen = calibration.scores(query, "sound", np.array([0.1, 0.9]))
    assert unseen[0] < 0.5 < unseen[1]


@pytest.mark.parametrize("vectors", [{}, {"near": np.zeros((0, DIM))}, {"near": np.eye(1, DIM)}])
def test_next_to_nothing_to_go_by(vectors: dict[str, Array]) -> None:
    query = units(np.ones(DIM))
    scores = Calibration.from_vectors(vectors).scores(query, "near", np.array([-0.1, 0.2, 0.8]))
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_one_caption_of_everything_says_nothing_of_chance(world: World) -> None:
    vectors = {"words": world.vectors("words", [0]), "near": world.vectors("near")}
    vectors["words"] = vectors["words"].repeat(len(vectors["near"]), 0)
    own = np.arange(len(vectors["near"]))
    everything = np.stack(np.meshgrid(own, own), -1).reshape(-1, 2)
    calibration = Calibration(vectors, {("near", "words"): everything})
    cosines = np.array([-0.1, 0.2, 0.8])
    scores = calibration.scores(vectors["words"][0], "near", cosines, "words")
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()
    assert ("near", "words") not in calibration.fitted().lines
