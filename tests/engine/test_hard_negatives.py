"""Hard negatives and weights of a recipe: what they teach, what is left out, and resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build
from omnialign.data.loader import Draw, PairExample
from omnialign.data.sides import Unreadable
from omnialign.engine import train
from omnialign.engine.batches import training_data
from omnialign.engine.diagnostics import StepReport
from omnialign.errors import DataError
from omnialign.recipe import Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
KINDS = [" ".join(kind) for kind in toy.KINDS]
NUM_ROWS = 54


def recipe(
    folder: Path, pair: dict[str, Any], change: Any = None, towers: Any = None, **settings: Any
) -> Recipe:
    """`change` is called with the number of a row and the row."""
    rows: list[dict[str, Any]] = []
    for i in range(NUM_ROWS):
        name = str(toy.write_signal(folder / f"{i}.toy", toy.ToyPairs()[i]["toy_signal"]))
        rows.append({"file_name": name, "toy_words": KINDS[i % len(KINDS)]})
        if change:
            change(i, rows[-1])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = toy.recipe(**settings)
    table["data"]["rows"] = {"source": {"name": "manifest", "path": str(folder)}}
    table["pairs"][0] |= pair
    table["towers"] = towers or {}
    return parse_recipe(table)


def scores(space: SharedSpace, captions: list[str]) -> torch.Tensor:
    """Cosines `(27, n)` of unseen signals of each kind with captions."""
    unseen = toy.ToyPairs(len(KINDS), split="test")
    signals = [unseen[i]["toy_signal"] for i in range(len(KINDS))]
    return space.embed(signals, "toy_signal") @ space.embed(captions, "toy_words").T


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_model_learns_what_hard_negatives_alone_say(tmp_path: Path) -> None:
    """No caption says `never`, so only hard negatives tell what it does to one."""

    def deny(i: int, row: dict[str, Any]) -> None:
        row["wrong"] = [f"never {row['toy_words']}", f"{row['toy_words']} never"]

    margins: dict[bool, torch.Tensor] = {}
    for given in (False, True):
        pair = {"negatives": "wrong"} if given else {}
        space = train(recipe(tmp_path, pair, deny), tmp_path / str(given))
        right, wrong = (scores(space, [word + k for k in KINDS]).diag() for word in ("", "never "))
        margins[given] = right - wrong
    assert margins[True].quantile(0.1) > margins[False].quantile(0.9)


def test_wrong_captions_that_weigh_nothing_teach_nothing(tmp_path: Path) -> None:
    def half_wrong(i: int, row: dict[str, Any]) -> None:
        row["trust"] = float(i < len(KINDS))
        if not row["trust"]:
            row["toy_words"] = KINDS[(7 * i + 5) % len(KINDS)]

    recall: dict[bool, float] = {}
    for given in (False, True):
        pair = {"weights": "trust"} if given else {}
        space = train(recipe(tmp_path, pair, half_wrong, num_steps=100), tmp_path / str(given))
        best = scores(space, KINDS).argmax(1)
        recall[given] = (best == torch.arange(len(KINDS))).float().mean().item()
    assert recall[True] > recall[False] + 0.2


FROZEN = {"frozen": True}
NOISY = {"encoder": {"name": "mlp", "dropout": 0.3}, "augmentations": ["noise"]}


def of_signals(i: int, row: dict[str, Any]) -> None:
    row["trust"] = 1 + i % 3
    if i % 4:
        row["others"] = [
            str(Path(row["file_name"]).with_name(f"{k}.toy")) for k in (i // 2, i // 3)
        ]
    if i == 5:
        row["others"] = "missing.toy"


REVERSED = {"modalities": ["toy_words", "toy_signal"], "negatives": "others", "weights": "trust"}


class StopError(Exception):
    pass


def stop(report: StepReport) -> None:
    if report.step == 5:
        raise StopError


@pytest.mark.parametrize(
    ("towers", "settings"),
    [
        pytest.param({"toy_signal": NOISY}, {"micro_batch_size": 4}, id="micro-batches"),
        pytest.param({"toy_signal": FROZEN}, {}, id="stored features"),
        pytest.param({"toy_signal": {**NOISY, "lora": {"rank": 2}}}, {}, id="adapters"),
    ],
)
def test_a_resumed_run_is_the_run(
    towers: dict[str, Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    """And a hard negative that cannot be read is told of, and costs its row nothing else."""
    settings = {"log_every": 1, "batch_size": 13, "num_steps": 8, "checkpoint_every": 3} | settings
    wanted = recipe(tmp_path, REVERSED, of_signals, towers, **settings)
    whole = train(wanted, tmp_path / "whole")
    with pytest.raises(StopError):
        train(wanted, tmp_path / "resumed", listener=stop)
    resumed = train(wanted, tmp_path / "resumed", resume=True)
    assert losses(tmp_path / "whole") == losses(tmp_path / "resumed")
    assert resumed.fingerprint() == whole.fingerprint()
    for run in ("whole", "resumed"):
        (line,) = (tmp_path / run / "quarantine.jsonl").read_text().splitlines()
        assert (json.loads(line)["row"], json.loads(line)["data"]) == (5, "rows")
        assert "missing.toy" in json.loads(line)["source"]


def test_stored_features_are_those_of_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"log_every": 1, "batch_size": 13, "num_steps": 6}
    wanted = recipe(tmp_path, REVERSED, of_signals, {"toy_signal": FROZEN}, **settings)
    train(wanted, tmp_path / "stored")
    monkeypatch.setattr("omnialign.engine.trainer.frozen_modalities", lambda _: [])
    monkeypatch.setattr("omnialign.engine.frozen.frozen_modalities", lambda _: [])
    train(wanted, tmp_path / "each")
    assert losses(tmp_path / "stored") == pytest.approx(losses(tmp_path / "each"), rel=1e-5)


def test_columns_are_looked_at_before_training(tmp_path: Path) -> None:
    for pair in ({"negatives": "other"}, {**REVERSED, "weights": "other"}):
        wanted = recipe(tmp_path, pair, of_signals)
        with pytest.raises(DataError, match="no column 'other'; did you mean 'others'"):
            train(wanted, tmp_path / "run")


def test_a_negative_is_drawn_anew_each_pass(tmp_path: Path) -> None:
    wanted = recipe(tmp_path, REVERSED, of_signals)
    (data,) = training_data(wanted, build(wanted), 1)

    def drawn(row: int, epoch: int) -> Any:
        found = data[Draw(row, epoch)]
        assert isinstance(found, PairExample)
        return found.sides[2]

    assert drawn(4, 0) is None
    assert isinstance(drawn(5, 0), Unreadable)
    numbers = [drawn(7, epoch).identity for epoch in range(9)]
    assert len(set(numbers)) == 2
    assert numbers == [drawn(7, epoch).identity for epoch in range(9)]
    batch = data.collate([data[Draw(row, 0)] for row in range(8)])
    assert [len(side) for side in batch.sides] == [8, 8, 5]
    assert [one.row for one in batch.unreadable] == [5]
    assert batch.weights is not None
    assert batch.weights.tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
