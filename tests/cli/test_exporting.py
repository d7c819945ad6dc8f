"""`omnialign export` as its users meet it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tomli_w

from omnialign.cli import main
from omnialign.testing import toy

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("export")
    (folder / "toy.toml").write_text(tomli_w.dumps(toy.recipe(num_steps=40)), "utf-8")
    arguments = ["omnialign", "train", str(folder / "toy.toml"), "-o", str(folder / "run")]
    with toy.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        yield folder / "run"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["omnialign", "export", *map(str, arguments)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return (status, *capsys.readouterr())

    return run


def test_all_towers_into_the_run(toy_run: Path, run: Run) -> None:
    status, out, err = run(toy_run, "--format", "torch-export")
    assert status == 0, err
    written = {path.name for path in (toy_run / "exports").iterdir()}
    assert written >= {"toy_signal.pt2", "toy_words.pt2", "toy_words.pt2.json"}
    assert "checked on 27 samples (test rows of data 'unseen' in the run's recipe)" in err
    assert "smallest cosine" in out


def test_what_int8_loses_is_said(toy_run: Path, run: Run, tmp_path: Path) -> None:
    one = (toy_run, "--tower", "toy_signal", "--int8", "-o", tmp_path)
    status, out, err = run(*one)
    assert status == 1
    assert out == ""
    assert "int8 loses" in err
    assert "--accept-loss, or a bound as in --max-loss 0.02" in err
    assert not list(tmp_path.iterdir())
    status, out, err = run(*one, "--max-loss", "0.3", "--json")
    assert status == 0, err
    assert "int8 loses" in err
    (told,) = json.loads(out)
    assert told["precision"] == "int8"
    assert Path(told["file"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tower", "smell"], "this model has no modality 'smell'"),
        (["--max-loss", "0.1"], "are about --int8"),
        (["--int8", "--max-loss", "0.1", "--accept-loss"], "leave it or --max-loss out"),
        (["-o", "all.onnx"], "are for one tower; choose it with --tower: toy_signal, toy_words"),
        (["--samples", "x.toy"], "are for one tower"),
        (["--format", "openvino", "--int8"], "int8 is there for --format onnx"),
    ],
)
def test_mistakes(toy_run: Path, run: Run, arguments: list[str], message: str) -> None:
    status, out, err = run(toy_run, *arguments)
    assert status == 1
    assert out == ""
    assert err.startswith("error:")
    assert message in err
    assert "Traceback" not in err


def test_a_model_that_is_no_folder_wants_an_output(run: Run) -> None:
    status, _, err = run("hf:nobody/nothing", "--tower", "toy_words")
    assert status == 1
    assert "wants --output" in err


def test_a_model_that_is_not_there_is_said_so(run: Run) -> None:
    status, _, err = run("nope")
    assert status == 1
    assert "no model folder at 'nope'" in err
    assert "--output of a training run" in err


def test_all_files_of_a_format_count(toy_run: Path, run: Run, tmp_path: Path) -> None:
    status, out, err = run(toy_run, "--tower", "toy_words", "--format", "openvino", "-o", tmp_path)
    assert status == 0, err
    files = [tmp_path / "toy_words.xml", tmp_path / "toy_words.bin"]
    assert ", ".join(map(str, files)) in out
    assert f"{sum(file.stat().st_size for file in files) / 2**20:.1f} MiB" in out
