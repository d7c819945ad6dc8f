"""Steps without a finite gradient: left out and counted, told, and too many end the run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from omnialign.cli.training import training_progress
from omnialign.engine import train
from omnialign.engine.trainer import StepReport
from omnialign.errors import TrainingError
from omnialign.recipe import Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def wanted(**settings: Any) -> Recipe:
    return parse_recipe(toy.recipe(**settings))


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def failing(patch: pytest.MonkeyPatch, steps: set[int], factor: float = 0.0) -> None:
    """Makes the gradient of some steps, from 1, not finite; with `factor` nan the loss too."""
    forward, calls = toy.Mlp.forward, []

    def fails(self: toy.Mlp, batch: Tensor) -> Tensor:
        calls.append(batch)
        features = forward(self, batch)
        return features + (features * factor).sum().sqrt() if len(calls) in steps else features

    patch.setattr(toy.Mlp, "forward", fails)


def test_a_step_without_a_finite_gradient_is_left_out_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, {3, 4})
    seen: list[StepReport] = []
    space = train(wanted(num_steps=6, log_every=1), tmp_path, listener=seen.append)
    assert [report.skipped for report in seen] == [0, 0, 1, 2, 2, 2]
    assert [len(report.warnings) for report in seen] == [0, 0, 1, 0, 0, 0]
    assert "non-finite gradients: 1 steps were left out" in seen[2].warnings[0]
    assert all(tensor.isfinite().all() for tensor in space.state_dict().values())


def test_what_is_not_finite_is_null_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the screen and trackers take it."""
    failing(monkeypatch, {2}, math.nan)
    made = wanted(num_steps=2, log_every=1, trackers=["tensorboard"])
    with training_progress() as (show, last):
        train(made, tmp_path, listener=show)
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    for record, finite in zip(metrics(tmp_path), (True, False), strict=True):
        told = (
            record["loss"],
            record["gradient_norm"],
            *record["tower_gradient_norms"].values(),
        )
        assert {value is not None for value in told} == {finite}
    assert last[0].record() == metrics(tmp_path)[1]
    assert "step 2/2  loss nan" in capsys.readouterr().err


def test_too_many_in_a_row_stop_the_run_with_its_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, set(range(6, 99)))
    with pytest.raises(TrainingError) as caught:
        train(wanted(num_steps=12, checkpoint_every=1), tmp_path)
    assert str(caught.value).startswith("no finite gradient in 5 steps in a row, up to step 10")
    assert f"go on from {tmp_path}/checkpoints/step-00000005 (--resume)" in str(caught.value)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-00000004", "step-00000005"]


@pytest.mark.parametrize(
    "remedy",
    [{"learning_rate": 1e-4}, {"precision": "float32"}, {"micro_batch_size": 9}],
    ids=lambda remedy: next(iter(remedy)),
)
def test_a_stopped_run_goes_on_with_what_its_message_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remedy: dict[str, Any]
) -> None:
    with monkeypatch.context() as patch:
        failing(patch, set(range(3, 99)))
        with pytest.raises(TrainingError, match="no finite gradient"):
            train(wanted(num_steps=8, checkpoint_every=2, log_every=1), tmp_path)
    train(wanted(num_steps=8, log_every=1, **remedy), tmp_path, resume=True)
    assert [record["step"] for record in metrics(tmp_path)] == list(range(1, 9))
