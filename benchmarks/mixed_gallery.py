"""Recall in a gallery of several modalities, by cosine and by calibrated score.

    python benchmarks/mixed_gallery.py runs/any-to-text runs/mixed

A run of several modalities bound to words is asked in the captions of those test rows that its
calibration has not seen; right are the items that have the caption. A run on scenes is asked, too,
for new scenes that every modality shows: right are all that show the same.

Axes: Q queries, G gallery, n items, D dim.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omnialign_scenes import Scenes
from omnialign_scenes.grammar import Modality

import omnialign as oa
from omnialign.calibration import Array, Calibration
from omnialign.data.rows import PairRows
from omnialign.engine.holding_out import kept_rows
from omnialign.evaluation.evaluate import run_recipe
from omnialign.evaluation.metrics import Estimate, estimate
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace

SEEDS = range(1, 5)
"""Of scenes; those of the recipe have seed 0."""
MODALITIES: tuple[Modality, ...] = ("image", "audio", "video", "pointcloud", "timeseries")
AT = (1, 10)
NUM_EXAMPLES = 64
Scores = Callable[[Array, str, Array], Array]


@dataclass(frozen=True)
class Question:
    """Queries `(Q, D)` of one modality to a gallery: by modality, vectors `(n, D)` and meanings."""

    name: str
    modality: str
    queries: Array
    meanings: Sequence[str]
    gallery: Mapping[str, tuple[Array, Sequence[str]]]


def captioned(space: SharedSpace, recipe: Recipe) -> Question:
    """The captions of test rows that were not kept, to the items of these rows."""
    words = space.words
    gallery: dict[str, tuple[Array, Sequence[str]]] = {}
    for pair in recipe.pairs:
        if pair.test is None or words not in pair.modalities:
            continue
        modality = next(m for m in pair.modalities if m != words)
        rows = PairRows(recipe, pair.test, pair.modalities)
        unseen = sorted({*range(len(rows))} - {*kept_rows(rows)})
        items = [rows.items(i, modality)[0].value for i in unseen]
        captions = [str(rows.items(i, words)[0].value) for i in unseen]
        gallery[modality] = (space.embed(items, modality).numpy(), captions)
    asked = sorted({caption for _, captions in gallery.values() for caption in captions})
    return Question("own captions", words, space.embed(asked, words).numpy(), asked, gallery)


def of_scenes(space: SharedSpace) -> Iterator[Question]:
    """What shows the same, asked in words, and by each modality for the others."""
    sources = [Scenes(MODALITIES, split="test", num_scenes=500, seed=seed) for seed in SEEDS]
    rows = [source[i] for source in sources for i in range(len(source))]
    meanings = [str(row["text"][0]) for row in rows]
    gallery = {m: (space.embed([row[m] for row in rows], m).numpy(), meanings) for m in MODALITIES}
    for name in ("text", *(f"text_{modality}" for modality in MODALITIES)):
        asked = [row[name][i % 3] for i, row in enumerate(rows)]
        title = "words: what all show" if name == "text" else f"words: {name[5:]}"
        yield Question(title, space.words, space.embed(asked).numpy(), meanings, gallery)
    for modality, (queries, _) in gallery.items():
        others = {m: found for m, found in gallery.items() if m != modality}
        yield Question(f"{modality} → others", modality, queries, meanings, others)


@dataclass(frozen=True)
class Found:
    """Of each query, whether a right one is among the first k, and the share of right ones among as
    many as there are; the modalities of the first hits."""

    values: dict[str, torch.Tensor]
    first: Counter[str]

    def entropy(self, modalities: int) -> float:
        """Of the first hit's modality: 0 where it is always the same, 1 where each is as often."""
        shares = [number / self.first.total() for number in self.first.values()]
        return -sum(share * math.log(share, modalities) for share in shares)


def search(question: Question, scores: Scores) -> Found:
    modalities = [m for m, (own, _) in question.gallery.items() for _ in range(len(own))]
    meanings = np.array([each for _, own in question.gallery.values() for each in own])
    values: dict[str, list[float]] = {f"recall@{k}": [] for k in AT} | {"R-precision": []}
    first: Counter[str] = Counter()
    for query, meaning in zip(question.queries, question.meanings, strict=True):
        found = [scores(query, m, own @ query) for m, (own, _) in question.gallery.items()]
        order = np.argsort(-np.concatenate(found), kind="stable")
        right = meanings[order] == meaning
        for k in AT:
            values[f"recall@{k}"].append(float(right[:k].any()))
        values["R-precision"].append(float(right[: right.sum()].mean()))
        first[modalities[order[0]]] += 1
    return Found({name: torch.tensor(found) for name, found in values.items()}, first)


def report(question: Question, ways: dict[str, Scores]) -> None:
    sizes = ", ".join(f"{len(own)} {m}" for m, (own, _) in question.gallery.items())
    print(f"\n**{question.name}**: {len(question.queries)} queries; {sizes}\n")
    names = [f"recall@{k}" for k in AT] + ["R-precision"]
    print(f"| ranked by | {' | '.join(names)} | first hit's modality | entropy |")
    print("|---" * (len(names) + 3) + "|")
    found = {way: search(question, scores) for way, scores in ways.items()}
    for way, each in found.items():
        cells: list[str] = []
        for name in names:
            values = each.values[name]
            cell = told(estimate(values, 0.0))
            if way != "cosine":
                gain = estimate(values - found["cosine"].values[name], 0.0)
                cell += f"; {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
            cells.append(cell)
        total = each.first.total()
        shares = ", ".join(f"{m} {each.first[m] / total:.0%}" for m in question.gallery)
        entropy = each.entropy(len(question.gallery))
        print(f"| {way} | {' | '.join(cells)} | {shares} | {entropy:.2f} |", flush=True)


def told(value: Estimate) -> str:
    return f"**{value.mean:.3f}** ({value.low:.3f}–{value.high:.3f})"


def ways_of(space: SharedSpace, question: Question) -> dict[str, Scores]:
    """By cosine; calibrated with what the run kept; calibrated with nothing but a library.

    A library speaks with half of the gallery and of the items that ask; for words, which it need
    not have, examples of their plugin do.
    """
    assert space.held_out is not None, "the run has kept no sample: its pairs have no test rows"
    asked = question.modality
    library = {m: found[::2] for m, (found, _) in question.gallery.items()}
    if asked == space.words:
        examples = space.tower(asked).modality.example_samples(NUM_EXAMPLES)
        library[asked] = space.embed(list(examples), asked).numpy()
    else:
        library[asked] = question.queries[::2]
    kept = Calibration.from_held_out(space.held_out, space.dim)
    own = Calibration.from_vectors(library)
    return {
        "cosine": lambda query, modality, cosines: cosines,
        "score": lambda query, modality, cosines: kept.scores(query, modality, cosines, asked),
        "score of a library": lambda query, modality, cosines: own.scores(
            query, modality, cosines, asked
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall in mixed galleries.")
    parser.add_argument("runs", nargs="+", type=Path, help="folders of finished runs")
    for run in parser.parse_args().runs:
        space, recipe = oa.load(run), run_recipe(run)
        print(f"\n### {recipe.description}")
        questions = [captioned(space, recipe)]
        if all(data.source.name == "scenes" for data in recipe.data.values()):
            questions += of_scenes(space)
        for question in questions:
            report(question, ways_of(space, question))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
