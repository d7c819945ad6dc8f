"""What a run reads: unreadable rows are set aside, and nothing is decoded finer than asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from omnialign.engine import train
from omnialign.engine.diagnostics import StepReport
from omnialign.errors import DataError, RecipeError
from omnialign.recipe import Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def folder(tmp_path: Path, num_bad: int, num_good: int) -> Recipe:
    lines: list[str] = []
    for i in range(num_bad + num_good):
        name = f"{i}.toy"
        toy.write_signal(tmp_path / name, [i, 1, 2])
        if i < num_bad:
            (tmp_path / name).write_text("these are words")
        lines.append(json.dumps({"file_name": name, "toy_words": str(i)}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    table = toy.recipe(num_steps=8, batch_size=10)
    table["data"]["rows"] = {"source": {"name": "manifest", "path": str(tmp_path)}}
    return parse_recipe(table)


def test_a_few_unreadable_rows_are_set_aside(tmp_path: Path) -> None:
    wanted = folder(tmp_path, 1, 29)
    seen: list[StepReport] = []
    train(wanted, tmp_path / "run", listener=seen.append)
    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 0
    assert "wants a file that begins with 'toy-signal'" in json.loads(line)["reason"]
    assert seen[-1].unreadable == 1


def test_too_many_unreadable_rows_stop_the_run(tmp_path: Path) -> None:
    wanted = folder(tmp_path, 3, 27)
    with pytest.raises(DataError, match=r"data 'rows': . of 30 rows cannot be read"):
        train(wanted, tmp_path / "run")
    for i in range(3):
        toy.write_signal(tmp_path / f"{i}.toy", [1, 2])
    train(wanted, tmp_path / "run")
    assert not (tmp_path / "run" / "quarantine.jsonl").read_text()


def test_one_row_is_no_batch(tmp_path: Path) -> None:
    wanted = folder(tmp_path, 0, 1)
    with pytest.raises(DataError, match="has 1 rows; a contrastive batch wants at least 2"):
        train(wanted, tmp_path / "run")


def test_scaled_decoding_wants_an_encoder_that_says_how_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = toy.recipe(num_steps=1)
    table["towers"] = {"toy_signal": {"decode": "scaled", "augmentations": ["noise"]}}
    scaled = parse_recipe(table)
    with pytest.raises(RecipeError, match=r"towers\.toy_signal\.decode = 'scaled'.*'mlp' does not"):
        train(scaled, tmp_path / "a")
    asked: list[float | None] = []

    def opened(self: toy.ToySignal, source: Any, resolution: float | None = None) -> Tensor:
        asked.append(resolution)
        return self.read(source)

    monkeypatch.setattr(toy.Mlp, "resolution", 12.0)
    monkeypatch.setattr(toy.Noise, "zoom", 2.0, raising=False)
    monkeypatch.setattr(toy.ToySignal, "open", opened)
    train(scaled, tmp_path / "b")
    assert set(asked) == {24.0}
