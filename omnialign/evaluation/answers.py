"""Questions in words to the test items of a run, across all modalities.

Axes: n items, D dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from omnialign.data.rows import PairRows
from omnialign.errors import OmniAlignError
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace

MAX_ITEMS = 300
"""Of each modality; enough for a page."""


@dataclass(frozen=True)
class Shelf:
    """Test items of one modality: the items, the words that describe each, vectors `(n, D)`."""

    items: list[Any]
    captions: list[list[str]]
    vectors: Tensor


@dataclass(frozen=True)
class Found:
    """A hit: the modality, the item, its own words, its cosine, and whether they were asked for."""

    modality: str
    item: Any
    caption: str
    score: float
    right: bool


@dataclass(frozen=True)
class Answer:
    """A question and the best items of each modality, best first."""

    query: str
    found: dict[str, list[Found]]


def gather_shelves(space: SharedSpace, recipe: Recipe) -> dict[str, Shelf]:
    """The readable test items of every modality that the recipe pairs with words."""
    words = space.words
    shelves: dict[str, Shelf] = {}
    for pair in recipe.pairs:
        if pair.test is None or words not in pair.modalities:
            continue
        modality = next(m for m in pair.modalities if m != words)
        rows = PairRows(recipe, pair.test, pair.modalities)
        chosen = range(min(len(rows), MAX_ITEMS))
        items = [rows.items(i, modality)[0].value for i in chosen]
        captions = [[str(item.value) for item in rows.items(i, words)] for i in chosen]
        bad: dict[int, str] = {}
        vectors = space.embed_known(items, [modality] * len(items), unreadable=bad)
        keep = [i for i in chosen if i not in bad]
        shelves[modality] = Shelf(
            [items[i] for i in keep], [captions[i] for i in keep], vectors[keep]
        )
    if not shelves:
        raise OmniAlignError("the recipe has no test rows that pair a modality with words")
    return shelves


def ask(space: SharedSpace, shelves: dict[str, Shelf], queries: list[str], k: int) -> list[Answer]:
    """The best `k` items of each modality for each query."""
    wanted = space.embed(queries, space.words)
    answers: list[Answer] = []
    for query, vector in zip(queries, wanted, strict=True):
        found: dict[str, list[Found]] = {}
        for modality, shelf in shelves.items():
            scores = shelf.vectors @ vector
            best = torch.topk(scores, min(k, len(scores))).indices.tolist()
            found[modality] = [
                Found(
                    modality,
                    shelf.items[i],
                    shelf.captions[i][0],
                    float(scores[i]),
                    query in shelf.captions[i],
                )
                for i in best
            ]
        answers.append(Answer(query, found))
    return answers


def sample_queries(shelves: dict[str, Shelf], per_modality: int, seed: int = 0) -> list[str]:
    """Captions of test items, spread over the modalities; those that several share come first."""
    generator = torch.Generator().manual_seed(seed)
    described: dict[str, set[str]] = {}
    for modality, shelf in shelves.items():
        for captions in shelf.captions:
            described.setdefault(captions[0], set()).add(modality)
    chosen: list[str] = []
    for shelf in shelves.values():
        order = torch.randperm(len(shelf.items), generator=generator).tolist()
        own = list(dict.fromkeys(shelf.captions[i][0] for i in order))
        own.sort(key=lambda caption: -len(described[caption]))
        chosen += [caption for caption in own if caption not in chosen][:per_modality]
    return chosen
