"""Real samples to check a file on: those that are given, a run's test rows, or a plugin's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnialign.data.rows import PairRows
from omnialign.errors import OmniAlignError, ReadError, describe
from omnialign.gallery import Gallery
from omnialign.recipe import Pair, Recipe
from omnialign.tower import Tower

MOST = 64
"""Samples that a file is checked on."""
MOST_SEGMENTS = 8
"""Of each of them, from its start."""
NUM_EXAMPLES = 16


@dataclass(frozen=True)
class Samples:
    """Encoder inputs, the sample that each comes from, and where these come from."""

    origin: str
    inputs: list[Any] = field(default_factory=list[Any])
    names: list[str] = field(default_factory=list[str])

    @property
    def num_samples(self) -> int:
        return len(set(self.names))

    def add(self, tower: Tower, name: str, sample: Any) -> None:
        """The first segments of a canonical sample."""
        segments = tower.pipeline.segments(sample)[:MOST_SEGMENTS]
        inputs = [tower.pipeline.preprocess(segment.sample) for segment in segments]
        self.inputs.extend(inputs)
        self.names.extend([name] * len(inputs))


def gather_samples(
    tower: Tower, recipe: Recipe | None, given: Sequence[Any] | None = None
) -> Samples:
    """Those that are given, else the recipe's test rows, else the modality's example samples.

    Raises `ReadError` where a given one cannot be read, and `OmniAlignError` where none is left.
    """
    if given is not None:
        return _given(tower, given)
    if recipe is None:
        return _examples(tower, "there is no recipe beside the model")
    pair = tested_pair(recipe, tower.modality.name)
    if pair is None:
        return _examples(tower, f"no pair of the recipe tests {tower.modality.name}")
    try:
        return _of_recipe(tower, recipe, pair)
    except (OmniAlignError, OSError) as error:
        return _examples(tower, f"the recipe's test rows cannot be read: {error}")


def tested_pair(recipe: Recipe, modality: str) -> Pair | None:
    """The first pair that has test rows of a modality."""
    found = (p for p in recipe.pairs if p.test is not None and modality in p.modalities)
    return next(found, None)


def _given(tower: Tower, given: Sequence[Any]) -> Samples:
    found = Samples("given samples")
    for source in given:
        items = [source]
        if isinstance(source, str | Path) and os.path.isdir(source):
            name = tower.modality.name
            items = Gallery.gather(Path(source), [name], name).items[:MOST]
        for item in items:
            found.add(tower, _name(item), tower.pipeline.read(item))
    if not found.inputs:
        raise OmniAlignError(
            f"--samples {' '.join(map(str, given))} holds no file of {tower.modality.name}; give "
            "files, or a folder of them"
        )
    return found


def _of_recipe(tower: Tower, recipe: Recipe, pair: Pair) -> Samples:
    """Evenly over the test rows, without those that cannot be read."""
    assert pair.test is not None
    name = tower.modality.name
    rows = PairRows(recipe, pair.test, pair.modalities)
    found = Samples(f"test rows of data '{pair.test.data}' in the run's recipe")
    first_problem: ReadError | None = None
    for place in range(min(MOST, len(rows))):
        for item in rows.items(place * len(rows) // min(MOST, len(rows)), name)[:1]:
            try:
                found.add(tower, item.name or _name(item.value), tower.pipeline.read(item.value))
            except ReadError as error:
                first_problem = first_problem or error
    if not found.inputs:
        raise first_problem or OmniAlignError(f"no test row has an item of {name}")
    return found


def _examples(tower: Tower, reason: str) -> Samples:
    found = Samples(f"example samples of the plugin, because {reason}")
    for i, sample in enumerate(tower.modality.example_samples(NUM_EXAMPLES)):
        found.add(tower, f"example_samples({NUM_EXAMPLES})[{i}]", sample)
    return found


def _name(item: Any) -> str:
    return (
        item if isinstance(item, str) else str(item) if isinstance(item, Path) else describe(item)
    )
