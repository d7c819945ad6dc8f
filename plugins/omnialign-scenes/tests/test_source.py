"""The source: columns, laziness, options and its way through OmniAlign's registry."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from omnialign_scenes import Scenes, source

import omnialign as oa
from omnialign.options import check_options
from omnialign.registry import registry


def test_the_registry_finds_it() -> None:
    found = registry().source("scenes")
    options = check_options("source 'scenes'", found, {"modalities": ["audio"], "num_scenes": 3})
    rows = found(**options)
    assert len(rows) == 3
    assert rows[0]["audio"][1] == 16000


def test_wrong_options_say_what_is_valid() -> None:
    for given, message in (
        ({"modalities": ["smell"]}, "'image', 'audio'"),
        ({"num_scene": 3}, "did you mean 'num_scenes'"),
        ({"split": "dev"}, "'train' or 'test'"),
    ):
        with pytest.raises(oa.OmniAlignError, match=message):
            check_options("source 'scenes'", Scenes, given)
    with pytest.raises(oa.OmniAlignError, match="at least one modality"):
        Scenes(modalities=())
    with pytest.raises(oa.OmniAlignError, match="num_scenes is at least 1"):
        Scenes(num_scenes=0)
    with pytest.raises(oa.OmniAlignError, match="image_size is from 32 to 1024"):
        Scenes(image_size=10**6)
    with pytest.raises(oa.OmniAlignError, match="at least two varying"):
        Scenes(attributes=("kind",))


def test_a_row_is_a_mapping_with_all_columns() -> None:
    rows = Scenes(modalities=("image", "audio"), num_scenes=2)
    assert list(rows[0]) == list(rows.columns)
    assert set(dict(rows[0])) == set(rows.columns)
    assert rows[0]["label"] == rows[0]["kind"]
    assert len(rows[0]["text"]) == 3
    assert rows[0]["text_image"][3].startswith("a picture of")
    assert rows[0].get("video") is None
    with pytest.raises(KeyError):
        rows[0]["video"]
    with pytest.raises(IndexError):
        rows[2]


def test_facts_are_columns() -> None:
    rows = Scenes(num_scenes=200, attributes=("kind", "color", "size", "count", "relation"))
    pairs = [row for row in rows if row["relation"] != "none"]
    assert pairs
    assert all(row["other_kind"] != row["kind"] for row in pairs)
    groups = [row for row in rows if row["relation"] == "none"]
    assert {row["other_kind"] for row in groups} == {"none"}


def test_only_what_is_looked_at_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("rendered")

    monkeypatch.setattr(source, "render", refuse)
    row = Scenes(modalities=("image", "video"))[5]
    assert "image" in row
    assert row["count"] in (1, 2, 3, 4)
    assert row["text"]
    with pytest.raises(AssertionError, match="rendered"):
        row["image"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_do_not_depend_on_how_many_there_are(split: Any) -> None:
    few, many = (Scenes(split=split, num_scenes=n) for n in (5, 50))
    for a, b in zip(few, many, strict=False):
        assert a["text"] == b["text"]
        assert np.array_equal(a["image"], b["image"])


def test_splits_and_seeds_give_other_rows() -> None:
    first = Scenes(num_scenes=20)
    for other in (Scenes(num_scenes=20, seed=1), Scenes(num_scenes=20, split="test")):
        assert [row["text"] for row in other] != [row["text"] for row in first]


def test_test_rows_differ_in_what_all_modalities_show() -> None:
    rows = Scenes(modalities=("image", "audio"), split="test", num_scenes=1000)
    texts = [row["text"][0] for row in rows]
    assert len(set(texts)) == len(texts) == len(rows) == 44


def test_it_travels_to_worker_processes() -> None:
    rows = Scenes(modalities=("pointcloud",), split="test", num_scenes=10)
    copy = pickle.loads(pickle.dumps(rows))
    assert np.array_equal(copy[7]["pointcloud"], rows[7]["pointcloud"])


def test_listing_the_plugin_costs_neither_numpy_nor_pillow() -> None:
    code = (
        "import sys, omnialign_scenes; omnialign_scenes.omnialign_sources(); "
        "print([m for m in ('numpy', 'PIL', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
