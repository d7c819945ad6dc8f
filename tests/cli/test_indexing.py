"""`omnialign index`, `search` and `duplicates` as their users meet them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build
from omnialign.cli import main
from omnialign.recipe import parse_recipe
from omnialign.registry import Registry
from omnialign.testing import toy

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["omnialign", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def files(toys: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a saved model `model` and signals in `signals`; the current one."""
    del toys
    torch.manual_seed(0)
    build(parse_recipe(toy.recipe())).save(tmp_path / "model")
    (tmp_path / "signals").mkdir()
    for i in range(4):
        toy.write_signal(tmp_path / "signals" / f"{i}.toy", torch.linspace(-1, i + 1, 4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(result: tuple[int, str, str]) -> Any:
    status, out, err = result
    assert status == 0, err
    return json.loads(out)


def test_from_files_to_hits(run: Run, files: Path) -> None:
    report = answer(run("index", "signals", "--model", "model", "--to", "library", "--json"))
    assert (report["added"], report["num_rows"]) == (4, 4)
    found = answer(run("search", "library", "a rising signal", "-k", "3", "--json"))
    assert len(found["hits"]) == 3
    assert {"path", "modality", "score", "cosine", "start_seconds"} <= found["hits"][0].keys()
    status, out, _ = run("search", "library", "a rising signal", "-k", "3")
    assert status == 0
    assert all(Path(hit["path"]).name in out for hit in found["hits"])
    again = answer(run("index", "signals", "--to", "library", "--json"))
    assert (again["unchanged"], again["added"]) == (4, 0)


def test_like_a_file_and_unlike_another(run: Run, files: Path) -> None:
    run("index", "signals", "--model", "model", "--to", "library")
    like = ("search", "library", "--like", "signals/2.toy", "--json")
    assert answer(run(*like))["hits"][0]["path"] == str(files / "signals" / "2.toy")
    words = answer(run("search", "library", "up", "--minus", "down", "--json"))["hits"]
    assert [h["score"] for h in words] == sorted((h["score"] for h in words), reverse=True)


def test_filters_and_set_aside(run: Run, files: Path) -> None:
    rows = [{"file_name": f"{i}.toy", "label": "even" if i % 2 == 0 else "odd"} for i in range(4)]
    (files / "signals" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (files / "signals" / "bad.toy").write_bytes(b"?")
    status, _, err = run("index", "signals", "--model", "model", "--to", "library")
    assert status == 0
    assert "bad.toy" in err
    where = ("--where", "label = 'odd'")
    hits = answer(run("search", "library", "a", *where, "--json"))["hits"]
    assert [hit["metadata"]["label"] for hit in hits] == ["odd", "odd"]
    status, _, err = run("search", "library", "a", "--where", "labl = 'odd'")
    assert status == 1
    assert "did you mean 'label'" in err


def test_duplicates(run: Run, files: Path) -> None:
    shutil.copy(files / "signals" / "1.toy", files / "signals" / "copy.toy")
    run("index", "signals", "--model", "model", "--to", "library")
    groups = answer(run("duplicates", "library", "--json", "--threshold", "1"))["groups"]
    assert [[Path(p).name for p in group["paths"]] for group in groups] == [["1.toy", "copy.toy"]]


def test_a_graph_says_what_it_finds(run: Run, files: Path) -> None:
    run("index", "signals", "--model", "model", "--to", "library")
    before = answer(run("search", "library", "a rising signal", "--json"))["hits"]
    assert answer(run("index", "--to", "library", "--approximate", "--json"))[
        "graph_recall_at_10"
    ] == pytest.approx(1)
    assert answer(run("search", "library", "a rising signal", "--json"))["hits"] == before
    status, _, err = run("index", "--to", "library", "--approximate")
    assert status == 0
    assert "the graph finds 100.0 %" in err


def test_rebuild(run: Run, files: Path) -> None:
    torch.manual_seed(1)
    build(parse_recipe(toy.recipe())).save(files / "other")
    run("index", "signals", "--model", "model", "--to", "library")
    status, _, err = run("search", "library", "a", "--model", "other")
    assert status == 1
    assert "--rebuild --model" in err
    report = answer(run("index", "--to", "library", "--rebuild", "--model", "other", "--json"))
    assert report["added"] == 4
    assert len(answer(run("search", "library", "a", "--json"))["hits"]) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "signals", "--to", "new"], "no library at 'new' yet; a new one wants --model"),
        (["index", "--to", "new"], "index wants PATH"),
        (["index", "--rebuild"], "--rebuild wants --model"),
        (["index", "nowhere", "--model", "model"], "'nowhere' is no file and no folder"),
        (["search", "signals"], "search wants words"),
        (["search", "signals", "a"], "say --model RUN"),
        (["search", "signals", "a", "--where", "x = 1"], "--where is for libraries"),
        (["search", "nowhere", "a", "--model", "model"], "'nowhere' is not a folder"),
        (["duplicates", "signals"], "no library at 'signals'"),
    ],
)
def test_slips(run: Run, files: Path, arguments: list[str], message: str) -> None:
    status, _, err = run(*arguments)
    assert status == 1
    assert message in err
    assert "Traceback" not in err


def test_an_engine_that_is_none(run: Run, files: Path) -> None:
    status, _, err = run("index", "signals", "--model", "model", "--engine", "spark")
    assert (status, "engine is 'spark'; it is 'local' or 'ray'" in err) == (1, True)


def test_words_are_words_though_a_file_is_called_so(run: Run, files: Path) -> None:
    run("index", "signals", "--model", "model")
    before = answer(run("search", "library", "2.toy", "--json"))["hits"]
    shutil.copy(files / "signals" / "2.toy", files / "2.toy")
    assert answer(run("search", "library", "2.toy", "--json"))["hits"] == before
