"""Anchored paths and `--set`, on plain tables."""

from pathlib import Path
from typing import Any

import pytest

from omnialign.errors import RecipeError
from omnialign.overrides import anchor_paths, apply_override


def test_paths_start_at_the_folder(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "data": {"rows": {"source": {"name": "manifest", "path": "sub/../rows.jsonl"}}},
        "list": [{"path": "a"}, ["path"], "path"],
        "start_from": "runs/x",
        "absolute": {"path": "/there"},
        "home": {"path": "~/rows"},
        "others": [{"start_from": name} for name in ("hf:user/name", "hf:./clip", "hf:/there")],
        "other": {"path": 3, "paths": "a", "name": "path"},
    }
    anchor_paths(table, tmp_path)
    assert table == {
        "data": {"rows": {"source": {"name": "manifest", "path": str(tmp_path / "rows.jsonl")}}},
        "list": [{"path": str(tmp_path / "a")}, ["path"], "path"],
        "start_from": str(tmp_path / "runs" / "x"),
        "absolute": {"path": "/there"},
        "home": {"path": str(Path("~/rows").expanduser())},
        "others": [
            {"start_from": name}
            for name in ("hf:user/name", f"hf:{tmp_path / 'clip'}", "hf:/there")
        ],
        "other": {"path": 3, "paths": "a", "name": "path"},
    }


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a.b=2", {"a": {"b": 2}}),
        (" a.b =2", {"a": {"b": 2}}),
        ("a.b=1e-3", {"a": {"b": 1e-3}}),
        ("a.b=[1, 'x']", {"a": {"b": [1, "x"]}}),
        ("a.b={c = true}", {"a": {"b": {"c": True}}}),
        ("a.b='2'", {"a": {"b": "2"}}),
        ("a.b=plain words", {"a": {"b": "plain words"}}),
        ("a.b=x=y", {"a": {"b": "x=y"}}),
        ("a.b=", {"a": {"b": ""}}),
        ("new.deep.key=1", {"a": {"b": 1}, "new": {"deep": {"key": 1}}}),
    ],
)
def test_values_are_toml_or_else_plain(override: str, expected: dict[str, Any]) -> None:
    table: dict[str, Any] = {"a": {"b": 1}}
    apply_override(table, override)
    assert table == expected


def test_lists_are_entered_by_position() -> None:
    table: dict[str, Any] = {"pairs": [{"weight": 1}, {"weight": 1}], "trackers": ["a", "b"]}
    apply_override(table, "pairs.1.weight=2")
    apply_override(table, "trackers.0=c")
    assert table == {"pairs": [{"weight": 1}, {"weight": 2}], "trackers": ["c", "b"]}


def test_a_bare_string_opens_into_what_it_stands_for() -> None:
    table: dict[str, Any] = {"encoder": "mlp", "train": "rows", "augmentations": ["noise"]}
    apply_override(table, "encoder.width=8")
    apply_override(table, "train.where.split=train")
    apply_override(table, "augmentations.0.standard_deviation=0.2")
    assert table == {
        "encoder": {"name": "mlp", "width": 8},
        "train": {"data": "rows", "where": {"split": "train"}},
        "augmentations": [{"name": "noise", "standard_deviation": 0.2}],
    }


def test_a_path_starts_at_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table: dict[str, Any] = {}
    apply_override(table, "source.path=rows.jsonl")
    assert table == {"source": {"path": str(tmp_path / "rows.jsonl")}}
    apply_override(table, "source={name = 'manifest', path = 'rows.jsonl'}")
    assert table == {"source": {"name": "manifest", "path": str(tmp_path / "rows.jsonl")}}


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("a.b", "--set wants key=value"),
        ("=1", "--set wants key=value"),
        ("a..b=1", "--set wants key=value"),
        ("a.b.c=1", r"'a\.b' is a value, not a table"),
        ("pairs.2.weight=1", "'pairs' is a list of 2; '2' is no position"),
        ("pairs.-1.weight=1", "'-1' is no position"),
        ("pairs.².weight=1", "is no position"),
        ("pairs.weight=1", "'weight' is no position"),
    ],
)
def test_what_cannot_be_set_is_said(override: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        apply_override({"a": {"b": 1}, "pairs": [{}, {}]}, override)
