"""Runs the evaluations of a recipe on a space.

Axes: n items, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnialign.data.queries import read_queries
from omnialign.data.rows import Item, PairRows
from omnialign.errors import DataError, ModelError, OmniAlignError
from omnialign.evaluation.metrics import Estimate, correct, estimate, retrieval
from omnialign.model_folder import load
from omnialign.overrides import read_toml
from omnialign.recipe import Queries, Recipe, Retrieval, ZeroShot, parse_recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.temperature import pair_key

Progress = Callable[[str, int, int], None]


def run_recipe(run: str | Path) -> Recipe:
    """The resolved recipe of a run."""
    file = Path(run) / "recipe.toml"
    if not file.is_file():
        raise ModelError(f"'{run}' is no run folder: recipe.toml is missing")
    return parse_recipe(read_toml(file), str(file))


def evaluate_run(
    run: str | Path, progress: Progress | None = None, *, dim: int | None = None
) -> dict[str, Any]:
    """Evaluates a finished run on its recipe's test rows and writes `results.json` into it.

    With embeddings cut to `dim`, the file is called after that, as in `results-64.json`.
    """
    results = evaluate(load(run, dim=dim), run_recipe(run), progress)
    text = json.dumps(results, indent=2, ensure_ascii=False)
    file = Path(run) / ("results.json" if dim is None else f"results-{dim}.json")
    try:
        file.write_text(text + "\n", "utf-8")
    except OSError as error:
        raise OmniAlignError(f"cannot write {file}: {error}") from None
    return results


def evaluate(
    space: SharedSpace, recipe: Recipe, progress: Progress | None = None
) -> dict[str, Any]:
    """Retrieval for the test rows of every pair, then the recipe's own evaluations.

    Every metric has a 95 % bootstrap interval and chance beside it. Pairs of modalities that were
    never trained together are marked `emergent`.
    """
    tests = [
        Retrieval(modalities=pair.modalities, rows=pair.test) for pair in recipe.pairs if pair.test
    ]
    tasks = [*tests, *recipe.evaluations]
    if not tasks:
        raise OmniAlignError(
            "this recipe names nothing to evaluate; give its pairs test rows, as in "
            'test = { data = "...", where = { split = "test" } }'
        )
    embedder = _Embedder(space, recipe, progress)
    results = [
        embedder.retrieval(task)
        if isinstance(task, Retrieval)
        else embedder.zero_shot(task)
        if isinstance(task, ZeroShot)
        else embedder.queries(task)
        for task in tasks
    ]
    return {"fingerprint": space.fingerprint(), "dim": space.dim, "tasks": results}


class _Embedder:
    """Embeds the items of an evaluation once each."""

    def __init__(self, space: SharedSpace, recipe: Recipe, progress: Progress | None) -> None:
        self._space = space
        self._recipe = recipe
        self._progress = progress
        self._trained = {pair_key(*pair) for pair in space.pairs}

    def retrieval(self, task: Retrieval) -> dict[str, Any]:
        x, y = task.modalities
        rows = PairRows(self._recipe, task.rows, task.modalities)
        pairs = [
            (a, b) for i in range(len(rows)) for a in rows.items(i, x) for b in rows.items(i, y)
        ]
        unreadable: dict[str, str] = {}
        xs = self._embed(task.name, x, [a for a, _ in pairs], unreadable)
        ys = self._embed(task.name, y, [b for _, b in pairs], unreadable)
        pairs = [(a, b) for a, b in pairs if a.identity in xs and b.identity in ys]
        xs = {a.identity: xs[a.identity] for a, _ in pairs}
        ys = {b.identity: ys[b.identity] for _, b in pairs}
        if not pairs:
            raise DataError(f"evaluation '{task.name}': no readable pair; {unreadable}")
        return {
            "task": "retrieval",
            "name": task.name,
            "data": task.rows.data,
            "modalities": [x, y],
            "emergent": pair_key(x, y) not in self._trained,
            "num_pairs": len(pairs),
            "unreadable": unreadable,
            f"{x}_to_{y}": _direction(xs, ys, [(a.identity, b.identity) for a, b in pairs]),
            f"{y}_to_{x}": _direction(ys, xs, [(b.identity, a.identity) for a, b in pairs]),
        }

    def zero_shot(self, task: ZeroShot) -> dict[str, Any]:
        rows = PairRows(self._recipe, task.rows, [task.modality])
        labelled = [
            (item, str(rows.value(i, task.label)))
            for i in range(len(rows))
            for item in rows.items(i, task.modality)
        ]
        unreadable: dict[str, str] = {}
        vectors = self._embed(task.name, task.modality, [a for a, _ in labelled], unreadable)
        labelled = [(item, label) for item, label in labelled if item.identity in vectors]
        classes = sorted({label for _, label in labelled})
        if len(classes) < 2:
            raise DataError(
                f"evaluation '{task.name}': column '{task.label}' has the one value {classes}; "
                "zero-shot classification wants at least two classes"
            )
        items = torch.stack([vectors[item.identity] for item, _ in labelled])
        labels = torch.tensor([classes.index(label) for _, label in labelled])
        words = [task.classes.get(name, name) for name in classes]
        templates = task.templates or list(registry().modality(task.modality).templates)
        prompts = torch.stack([self._space.embed_prompts(words, [t]) for t in templates])
        ensemble = nn.functional.normalize(prompts.mean(0), dim=-1)
        chance = 1 / len(classes)
        hits = correct(items, ensemble, labels)
        return {
            "task": "zero_shot",
            "name": task.name,
            "data": task.rows.data,
            "modality": task.modality,
            "emergent": pair_key(task.modality, self._space.words) not in self._trained,
            "num_items": len(labelled),
            "num_classes": len(classes),
            "unreadable": unreadable,
            "accuracy": asdict(estimate(hits, chance)),
            "accuracy_by_template": {
                template: asdict(estimate(correct(items, prompts[i], labels), chance))
                for i, template in enumerate(templates)
            },
            "accuracy_by_class": {
                name: float(hits[labels == i].mean()) for i, name in enumerate(classes)
            },
        }

    def queries(self, task: Queries) -> dict[str, Any]:
        rows = PairRows(self._recipe, task.rows, [task.modality])
        asked = read_queries(Path(task.path))
        answers = {query.words: query.answers(rows) for query in asked}
        items = [rows.items(i, task.modality) for i in range(len(rows))]
        unreadable: dict[str, str] = {}
        everything = [item for own in items for item in own]
        vectors = self._embed(task.name, task.modality, everything, unreadable)
        questions = self._space.embed(list(answers), self._space.words)
        pairs = [
            (query, item.identity)
            for query, right in answers.items()
            for i in right
            for item in items[i]
            if item.identity in vectors
        ]
        words = self._space.words
        return {
            "task": "queries",
            "name": task.name,
            "data": task.rows.data,
            "modalities": [words, task.modality],
            "emergent": pair_key(task.modality, words) not in self._trained,
            "unreadable": unreadable,
            f"{words}_to_{task.modality}": _direction(
                dict(zip(answers, questions, strict=True)), vectors, pairs
            ),
        }

    def _embed(
        self, task: str, modality: str, items: Sequence[Item], unreadable: dict[str, str]
    ) -> dict[str, Tensor]:
        """Vectors by identity; what cannot be read is noted and left out."""
        unique = {item.identity: item.value for item in items}
        names = list(unique)
        bad: dict[int, str] = {}
        vectors = self._space.embed_known(
            list(unique.values()),
            [modality] * len(names),
            progress=partial(self._progress, f"{task}: {modality}") if self._progress else None,
            unreadable=bad,
        )
        unreadable.update({names[i]: reason for i, reason in bad.items()})
        return {name: vectors[i] for i, name in enumerate(names) if i not in bad}


def _direction(
    queries: dict[str, Tensor], gallery: dict[str, Tensor], pairs: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    """Metrics of one direction; every partner of a query counts as found.

    A query without a partner is not asked.
    """
    asked = list(dict.fromkeys(a for a, _ in pairs))
    searched = list(gallery)
    place = {name: i for i, name in enumerate(searched)}
    partners: dict[str, set[int]] = {name: set() for name in asked}
    for a, b in pairs:
        partners[a].add(place[b])
    metrics = retrieval(
        torch.stack([queries[name] for name in asked]),
        torch.stack([gallery[name] for name in searched]),
        [sorted(partners[name]) for name in asked],
    )
    return {k: asdict(v) if isinstance(v, Estimate) else v for k, v in metrics.items()}
