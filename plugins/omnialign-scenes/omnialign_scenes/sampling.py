"""Which scenes there are: drawn by seed, and split by whole combinations of values.

The held-out combinations are a balanced design, not a lottery. Number the values of the combined
facts from 0; a scene is held out where the numbers of all its things add up to a multiple of
`m <= 4`. So the share is exactly 1/m of the combinations, each value is found in both splits, and
a pair of things is held out in every order and relation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

from omnialign import OmniAlignError
from omnialign_scenes.draws import Draws
from omnialign_scenes.grammar import (
    ATTRIBUTES,
    MIN_COUNT_WITH_RHYTHM,
    VALUES,
    Scene,
    Thing,
    check_attributes,
)
from omnialign_scenes.language import Description, describe

Split = Literal["train", "test"]

SHOWN_BY_ALL = ("kind", "size", "count")
"""Facts that every modality shows. Holding out their combinations holds out the captions of every
modality, and those that any two share, at once."""
OTHERWISE = ("kind", "color", "size", "count", "motion")
"""What is combined instead where fewer than two of `SHOWN_BY_ALL` vary."""
MAX_MODULUS = 4
PAIR_SHARE = 0.25
"""Of the scenes where `relation` varies."""
PATIENCE = 3000
"""Draws without a new description after which all are taken to be found."""


@cache
def _design(attributes: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """The combined facts, and the modulus: the largest that leaves no value out of a split."""
    for candidates in (SHOWN_BY_ALL, OTHERWISE):
        facts = tuple(name for name in candidates if name in attributes)
        if len(facts) >= 2:
            spans = [len(VALUES[name]) - 1 for name in facts]
            return facts, min(MAX_MODULUS, 1 + sum(spans) - max(spans))
    raise OmniAlignError(
        "a split by combinations needs at least two varying attributes among "
        f"{', '.join(OTHERWISE)}; found: {', '.join(attributes) or 'none'}"
    )


def held_out(scene: Scene, attributes: Sequence[str] = ATTRIBUTES) -> bool:
    """Whether the scene belongs to the test split. The same for every seed."""
    facts, modulus = _design(tuple(attributes))
    things = (scene.thing, scene.other) if scene.other else (scene.thing,)
    total = 0
    for name in facts:
        if hasattr(Thing, name):
            total += sum(VALUES[name].index(getattr(thing, name)) for thing in things)
        else:
            total += VALUES[name].index(getattr(scene, name))
    return total % modulus == 0


def sample_scene(
    seed: int = 0,
    index: int = 0,
    split: Split = "train",
    attributes: Sequence[str] = ATTRIBUTES,
) -> Scene:
    """Draws a scene of the split: a function of the arguments alone.

    `attributes` are the facts that vary; the others have the first of their values.

    Raises:
        OmniAlignError: unknown attributes, or too few to hold out combinations.
    """
    varied = tuple(attributes)
    check_attributes(varied)
    draws = Draws("scene", seed, split, index)
    while True:
        scene = _draw(draws, varied)
        if held_out(scene, varied) == (split == "test"):
            return scene


def distinct_scenes(
    num_scenes: int,
    seed: int,
    split: Split,
    modalities: Sequence[str],
    attributes: Sequence[str] = ATTRIBUTES,
) -> list[Scene]:
    """Up to `num_scenes` scenes whose descriptions differ in what all `modalities` show.

    Fewer where the world has no more. A shorter list is the beginning of a longer one.
    """
    found: dict[Description, Scene] = {}
    index = last = 0
    while len(found) < num_scenes and index - last < PATIENCE:
        scene = sample_scene(seed, index, split, attributes)
        description = describe(scene, *modalities, attributes=attributes)
        if description not in found:
            found[description] = scene
            last = index
        index += 1
    return list(found.values())


def _draw(draws: Draws, attributes: tuple[str, ...]) -> Scene:
    def pick(name: str, values: Sequence[Any] | None = None) -> Any:
        return draws.choice(values or VALUES[name]) if name in attributes else VALUES[name][0]

    def thing(kinds: Sequence[Any]) -> Thing:
        return Thing(pick("kind", kinds), pick("color"), pick("size"))

    first = thing(VALUES["kind"])
    if "relation" in attributes and draws.chance(PAIR_SHARE):
        second = thing([kind for kind in VALUES["kind"] if kind != first.kind])
        return Scene(first, relation=pick("relation"), other=second)
    count = pick("count")
    has_rhythm = count >= MIN_COUNT_WITH_RHYTHM
    rhythm = pick("rhythm") if has_rhythm else "even"
    return Scene(first, count, pick("motion"), rhythm)
