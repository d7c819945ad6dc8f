"""An encoder that begins to train in the middle of a run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build
from omnialign.engine import train
from omnialign.engine.trainer import StepReport
from omnialign.recipe import Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def recipe(frozen_steps: int, projection: str = "linear", **settings: Any) -> Recipe:
    table = toy.recipe(**{"num_steps": 9, "log_every": 1, "checkpoint_every": 2, **settings})
    encoder = {"name": "mlp", "dropout": 0.3}
    signal = {"encoder": encoder, "frozen_steps": frozen_steps, "projection": projection}
    table["towers"] = {"toy_signal": signal}
    return parse_recipe(table)


def encoder_moved(space: SharedSpace, wanted: Recipe) -> bool:
    torch.manual_seed(wanted.seed)
    before = build(wanted).tower("toy_signal").encoder.state_dict()
    after = space.tower("toy_signal").encoder.state_dict()
    return any(not after[name].equal(before[name]) for name in before)


def records(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 5}, {"micro_batch_size": "auto"}])
@pytest.mark.parametrize("projection", ["linear", "identity"])
def test_it_stays_and_then_moves(tmp_path: Path, settings: dict[str, Any], projection: str) -> None:
    for num_steps, moves in ((4, False), (5, True)):
        wanted = recipe(4, projection, num_steps=num_steps, **settings)
        space = train(wanted, tmp_path / str(num_steps))
        assert encoder_moved(space, wanted) == moves
    norms = [record["tower_gradient_norms"] for record in records(tmp_path / "5")]
    assert [("toy_signal" in norm) for norm in norms] == [projection == "linear"] * 4 + [True]
    warnings = [[w for r in records(tmp_path / n) for w in r["warnings"]] for n in ("4", "5")]
    assert warnings[1] == []
    (never,) = warnings[0]
    assert never.startswith("towers.toy_signal.frozen_steps: the encoder would train after step 4")


def test_until_then_it_has_no_dropout(tmp_path: Path) -> None:
    modes: list[bool] = []
    spaces: list[SharedSpace] = []
    original = toy.Mlp.forward

    def watched(self: toy.Mlp, batch: Any) -> Any:
        modes.append(self.training)
        return original(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy.Mlp, "forward", watched)
        spaces.append(train(recipe(4, num_steps=6), tmp_path))
    assert modes[:6] == [False] * 4 + [True] * 2


class StopError(Exception):
    pass


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 5}])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    wanted = recipe(4, weight_average=0.9, **settings)
    whole = train(wanted, tmp_path / "whole")
    for stop in (3, 5, 7):

        def listener(report: StepReport, stop: int = stop) -> None:
            if report.step == stop:
                raise StopError

        with pytest.raises(StopError):
            train(wanted, tmp_path / "killed", resume=stop > 3, listener=listener)
    again = train(wanted, tmp_path / "killed", resume=True)
    assert again.fingerprint() == whole.fingerprint()
    pairs = [[r["loss"] for r in records(tmp_path / name)] for name in ("whole", "killed")]
    assert pairs[0] == pairs[1]
