"""Scenes are drawn by seed, and the split holds out whole combinations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pytest
from omnialign_scenes import Scene, Thing, describe, distinct_scenes, held_out, sample_scene
from omnialign_scenes.grammar import ATTRIBUTES, MODALITIES, VALUES

from omnialign import OmniAlignError

ATTRIBUTE_SETS = [
    ATTRIBUTES,
    ("kind", "color", "size", "count", "motion", "rhythm"),
    ("kind", "count"),
    ("size", "count"),
    ("kind", "color", "relation"),
    ("color", "motion"),
]


def scenes(split: str, attributes: Sequence[str], num: int = 1500) -> list[Scene]:
    return [sample_scene(0, i, split, attributes) for i in range(num)]  # type: ignore[arg-type]


def values(found: list[Scene]) -> set[tuple[str, object]]:
    facts = {(f, getattr(s, f)) for s in found for f in ("count", "motion", "rhythm", "relation")}
    things = [thing for s in found for thing in s.things]
    return facts | {(f, getattr(t, f)) for t in things for f in ("kind", "color", "size")}


def test_a_scene_is_a_function_of_seed_split_and_index() -> None:
    assert [sample_scene(3, i) for i in range(50)] == [sample_scene(3, i) for i in range(50)]
    assert [sample_scene(3, i) for i in range(50)] != [sample_scene(4, i) for i in range(50)]


@pytest.mark.parametrize("attributes", ATTRIBUTE_SETS)
def test_every_value_occurs_in_both_splits(attributes: tuple[str, ...]) -> None:
    train, test = scenes("train", attributes), scenes("test", attributes)
    assert values(train) == values(test)
    for name in attributes:
        assert {value for fact, value in values(train) if fact == name} >= set(VALUES[name])


@pytest.mark.parametrize("attributes", ATTRIBUTE_SETS[:4])
@pytest.mark.parametrize("together", [1, 2, 5])
def test_no_held_out_description_of_any_modalities_is_in_train(
    attributes: tuple[str, ...], together: int
) -> None:
    train, test = scenes("train", attributes), scenes("test", attributes)
    for modalities in combinations(MODALITIES, together):
        seen = {describe(scene, *modalities, attributes=attributes) for scene in train}
        held = {describe(scene, *modalities, attributes=attributes) for scene in test}
        assert not seen & held


@pytest.mark.parametrize("attributes", ATTRIBUTE_SETS[4:])
def test_facts_that_only_some_modalities_show_are_held_out_where_shown(
    attributes: tuple[str, ...],
) -> None:
    train, test = scenes("train", attributes), scenes("test", attributes)
    seen = {describe(scene, "video", attributes=attributes) for scene in train}
    assert not seen & {describe(scene, "video", attributes=attributes) for scene in test}


def test_a_quarter_of_the_combinations_is_held_out() -> None:
    groups = [
        Scene(Thing(kind, "red", size), count)  # type: ignore[arg-type]
        for kind in VALUES["kind"]
        for size in VALUES["size"]
        for count in VALUES["count"]
    ]
    assert sum(held_out(scene) for scene in groups) == 16 == len(groups) / 4


def test_a_pair_is_held_out_in_every_order() -> None:
    one, other = Thing("star", "red", "small"), Thing("moon", "blue", "large")
    turned = [
        Scene(a, relation=relation, other=b)
        for a, b in ((one, other), (other, one))
        for relation in ("left of", "above")
    ]
    assert len({held_out(scene) for scene in turned}) == 1


def test_attributes_that_do_not_vary_keep_their_first_value() -> None:
    found = scenes("train", ("color", "count"), 200)
    assert {scene.thing.kind for scene in found} == {"circle"}
    assert {scene.motion for scene in found} == {"still"}


def test_distinct_scenes_are_distinct_and_a_prefix() -> None:
    found = distinct_scenes(100, 0, "test", ["audio"])
    said = [describe(scene, "audio") for scene in found]
    assert len(set(said)) == len(said) == 100
    assert distinct_scenes(40, 0, "test", ["audio"]) == found[:40]
    assert len(distinct_scenes(1000, 0, "test", ["image", "audio"])) == 44


def test_impossible_wishes_are_refused() -> None:
    with pytest.raises(OmniAlignError, match="at least two varying attributes"):
        sample_scene(attributes=["kind"])
    with pytest.raises(OmniAlignError, match="no attribute 'colour'; valid: kind, color"):
        sample_scene(attributes=["kind", "colour"])
    with pytest.raises(OmniAlignError, match="'rhythm' needs 'count'"):
        sample_scene(attributes=["kind", "size", "rhythm"])
    with pytest.raises(OmniAlignError, match="no kind 'blob'; valid: circle"):
        Thing("blob")  # type: ignore[arg-type]
    with pytest.raises(OmniAlignError, match="needs a count of 3"):
        Scene(count=2, rhythm="slowing")
    with pytest.raises(OmniAlignError, match="come together"):
        Scene(relation="above")
    with pytest.raises(OmniAlignError, match="differ in kind"):
        Scene(relation="above", other=Thing())
    with pytest.raises(OmniAlignError, match="count of 1 and motion 'still'"):
        Scene(count=2, relation="above", other=Thing("moon"))
