"""Captions say what a modality shows, no more, and can be read back."""

from __future__ import annotations

from itertools import combinations

import pytest
from omnialign_scenes import (
    Description,
    Scene,
    Thing,
    caption,
    captions,
    describe,
    parse,
    sample_scene,
)
from omnialign_scenes.grammar import ATTRIBUTES, MODALITIES, SHOWS, VALUES
from omnialign_scenes.language import Noun

from omnialign import OmniAlignError

GROUP = Scene(Thing("circle", "red", "small"), 3, "rising", "quickening")
PAIR = Scene(Thing("star", "red", "small"), relation="left of", other=Thing("moon", "blue"))


@pytest.mark.parametrize("together", [1, 2, 3])
def test_captions_read_back_as_what_they_describe(together: int) -> None:
    for modalities in combinations(MODALITIES, together):
        for index in range(150):
            scene = sample_scene(7, index)
            said = captions(scene, *modalities)
            assert len(set(said)) == len(said) == (4 if together == 1 else 3)
            assert {parse(text) for text in said} == {describe(scene, *modalities)}


def test_scenes_with_one_description_have_one_wording() -> None:
    wordings: dict[Description, list[str]] = {}
    for index in range(2000):
        scene = sample_scene(8, index)
        said = captions(scene, "audio")
        assert wordings.setdefault(describe(scene, "audio"), said) == said


def test_each_modality_says_what_it_shows() -> None:
    assert caption(GROUP, "image") == "three small red circles"
    assert caption(GROUP, "pointcloud") == "three small red circles"
    assert caption(GROUP, "video") == "three small red circles, rising"
    assert caption(GROUP, "audio") == "three small circles, rising and quickening"
    assert caption(GROUP, "timeseries") == "three small circles, rising and quickening"
    assert captions(GROUP, "image")[1:] == [
        "3 tiny circles in red",
        "there are three circles: small and red",
        "a picture of three small red circles",
    ]


def test_relations_are_said_as_far_as_they_show() -> None:
    assert caption(PAIR, "image") == "a small red star left of a small blue moon"
    assert captions(PAIR, "video")[2] == "there is a small blue moon right of a small red star"
    assert caption(PAIR, "pointcloud") == "a small blue moon beside a small red star"
    assert caption(PAIR, "audio") == "a small star, then a small moon"
    assert caption(PAIR, "image", "audio") == "a small moon and a small star"
    above = Scene(PAIR.thing, relation="above", other=PAIR.other)
    assert caption(above, "pointcloud", "image") == "a small red star above a small blue moon"


def test_motions_are_said_as_far_as_they_show() -> None:
    left = Scene(GROUP.thing, 1, "left")
    assert caption(left, "video") == "one small red circle, moving left"
    assert caption(left, "audio") == "one small circle, steady"
    assert caption(left, "audio", "video") == "one small circle"
    assert caption(GROUP, "audio", "video") == "three small circles, rising"


def test_only_facts_that_vary_are_said() -> None:
    plain = ("kind", "color", "count", "relation")
    orange = Scene(Thing("moon", "orange"))
    assert captions(orange, "image", attributes=plain)[3] == "a picture of an orange moon"
    assert caption(GROUP, "video", attributes=plain) == "three red circles"
    assert caption(GROUP, "audio", attributes=("kind", "count")) == "three circles"
    assert captions(Scene(), "audio", attributes=plain)[2] == "there is one circle"


def test_colors_are_said_only_where_they_show() -> None:
    for modality in MODALITIES:
        for index in range(100):
            words = " ".join(captions(sample_scene(9, index), modality)).split()
            assert any(color in words for color in VALUES["color"]) == ("color" in SHOWS[modality])


def test_short_queries_are_read() -> None:
    assert parse("two red stars") == Description((Noun("star", "red"),), 2)
    assert parse("rings") == Description((Noun("ring"),))
    assert parse("A red star above a moon") == Description(
        (Noun("star", "red"), Noun("moon")), link="above"
    )


def test_what_is_not_of_this_world_is_refused() -> None:
    with pytest.raises(OmniAlignError, match="no word 'dogs'"):
        parse("three red dogs")
    with pytest.raises(OmniAlignError, match="no kind of thing"):
        parse("three small")
    with pytest.raises(OmniAlignError, match="no modality 'smell'; valid: image, audio"):
        describe(GROUP, "smell")
    with pytest.raises(OmniAlignError, match="at least one modality"):
        describe(GROUP)


def test_the_vocabulary_is_small() -> None:
    words = {
        word.strip(",:")
        for index in range(600)
        for modality in MODALITIES
        for text in captions(sample_scene(1, index), modality, attributes=ATTRIBUTES)
        for word in text.split()
    }
    assert len(words) == 84
