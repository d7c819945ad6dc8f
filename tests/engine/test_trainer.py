"""Toy runs: they learn, repeat, resume, and stop when they must."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from omnialign.building import build
from omnialign.data.rows import PairRows
from omnialign.engine import train
from omnialign.engine.trainer import Listener, StepReport
from omnialign.errors import DataError, RecipeError, TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
NOISY = {
    "toy_signal": {
        "encoder": {"name": "mlp", "dropout": 0.3, "window_seconds": 8.0},
        "augmentations": ["noise"],
    }
}


def recipe(towers: Mapping[str, Any] | None = None, **settings: Any) -> Recipe:
    table = toy.recipe(**settings)
    table["towers"] = towers or {}
    return parse_recipe(table)


def three_towers(**settings: Any) -> Recipe:
    table = toy.recipe(**settings)
    table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows", "weight": 0.5})
    return parse_recipe(table)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def exact(run: Path) -> list[Any]:
    """What must repeat bit by bit."""
    kept = ("step", "loss", "learning_rate", "gradient_norm", "pairs")
    return [[record[key] for key in kept] for record in metrics(run)]


def weights(space: SharedSpace) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in space.state_dict().items()}


def equal(left: SharedSpace, right: SharedSpace) -> bool:
    ours, theirs = weights(left), weights(right)
    return ours.keys() == theirs.keys() and all(ours[k].equal(theirs[k]) for k in ours)


class StopError(Exception):
    pass


def stop_at(step: int) -> Listener:
    def listener(report: StepReport) -> None:
        if report.step == step:
            raise StopError

    return listener


def recall(space: SharedSpace, wanted: Recipe, modality: str = "toy_signal") -> float:
    """The share of unseen signals whose own caption is the best of 27."""
    assert wanted.pairs[0].test is not None
    rows = PairRows(wanted, wanted.pairs[0].test, (modality, "toy_words"))
    items = [rows.items(i, modality)[0].value for i in range(len(rows))]
    captions = [rows.items(i, "toy_words")[0].value for i in range(len(rows))]
    scores = space.embed(items, modality) @ space.embed(captions).T
    return (scores.argmax(1) == torch.arange(len(rows))).float().mean().item()


class TestRun:
    def test_it_learns(self, tmp_path: Path) -> None:
        seen: list[StepReport] = []
        wanted = recipe()
        space = train(wanted, tmp_path / "run", listener=seen.append)
        losses = [report.loss for report in seen]
        assert losses[-1] < 0.3 * losses[0]
        assert recall(space, wanted) > 0.5 > 10 / 27
        assert not space.training
        assert [report.step for report in seen] == [10, 20, 30, 40, 50, 60]
        assert seen[-1].seconds_left == 0
        pair = seen[-1].pairs["toy_signal-toy_words"]
        assert pair["loss"] == pytest.approx(seen[-1].loss)
        assert 0.5 < pair["accuracy"] <= 1
        assert 0.01 <= pair["temperature"] < 0.07
        assert seen[-1].samples_per_second > 0

    def test_the_run_folder(self, tmp_path: Path) -> None:
        wanted = recipe(num_steps=4, checkpoint_every=2, log_every=1, trackers=["tensorboard"])
        space = train(wanted, tmp_path / "run")
        folder = tmp_path / "run"
        assert load(folder).fingerprint() == space.fingerprint()
        assert [record["step"] for record in metrics(folder)] == [1, 2, 3, 4]
        assert list((folder / "tracking").glob("events*"))
        versions = json.loads((folder / "environment.json").read_text())
        assert {"python", "torch", "omnialign"} <= set(versions)
        assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
            "step-00000002",
            "step-00000004",
        ]

    def test_it_repeats_bit_by_bit(self, tmp_path: Path) -> None:
        settings = {"num_steps": 5, "log_every": 1}
        first = train(recipe(NOISY, **settings), tmp_path / "first")
        torch.manual_seed(1234)
        second = train(recipe(NOISY, **settings, num_workers=1), tmp_path / "second")
        assert exact(tmp_path / "first") == exact(tmp_path / "second")
        assert equal(first, second)

    def test_seeds_differ(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            train(
                recipe(num_steps=1, log_every=1).model_copy(update={"seed": seed}),
                tmp_path / str(seed),
            )
        assert exact(tmp_path / "0") != exact(tmp_path / "1")

    def test_several_pairs_share_a_tower(self, tmp_path: Path) -> None:
        wanted = three_towers(log_every=60)
        space = train(wanted, tmp_path)
        assert space.modalities == ["toy_signal", "toy_words", "toy_echo"]
        (record,) = metrics(tmp_path)
        pairs = record["pairs"]
        assert set(pairs) == {"toy_signal-toy_words", "toy_echo-toy_words"}
        together = pairs["toy_signal-toy_words"]["loss"] + 0.5 * pairs["toy_echo-toy_words"]["loss"]
        assert record["loss"] == pytest.approx(together, rel=1e-5)
        assert recall(space, wanted) > 10 / 27
        assert recall(space, wanted, "toy_echo") > 10 / 27

    def test_a_trained_prefix_finds_more_than_one_that_is_cut_off(self, tmp_path: Path) -> None:
        found: list[float] = []
        for sizes in ([], [8]):
            wanted = parse_recipe(
                {**toy.recipe(num_steps=40), "space": {"dim": 64, "matryoshka": sizes}}
            )
            space = train(wanted, tmp_path / str(sizes))
            assert recall(space, wanted) > 0.8
            space.matryoshka = [8]  # or the plain one could not be cut
            space.truncate(8)
            found.append(recall(space, wanted))
        assert found[1] > found[0] + 0.2

    def test_pairs_by_turns_are_reported_at_their_turn(self, tmp_path: Path) -> None:
        wanted = three_towers(num_steps=110, batch_size=8, log_every=1, pair_sampling=2.0)
        train(wanted, tmp_path)
        told = [(list(r["pairs"]), list(r["tower_gradient_norms"])) for r in metrics(tmp_path)]
        assert {name for (name,), _ in told} == {"toy_signal-toy_words", "toy_echo-toy_words"}
        assert all("-".join(towers) == name for (name,), towers in told)
        assert not any(r["warnings"] for r in metrics(tmp_path) if r["step"] < 100)

    def test_two_pairs_of_the_same_modalities_are_told_apart(self, tmp_path: Path) -> None:
        table = toy.recipe(num_steps=1, log_every=1)
        table["pairs"].append({**table["pairs"][0], "train": "unseen"})
        train(parse_recipe(table), tmp_path)
        assert set(metrics(tmp_path)[0]["pairs"]) == {
            "toy_signal-toy_words",
            "toy_signal-toy_words-1",
        }

    @pytest.mark.parametrize("precision", ["bf16", "float32"])
    def test_precision_is_chosen_for_each_run(
        self, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: set[torch.dtype] = set()
        forward = toy.Mlp.forward

        def watching(self: toy.Mlp, batch: Tensor) -> Tensor:
            features = forward(self, batch)
            if self.training:  # not for what is held out
                seen.add(features.dtype)
            return features

        monkeypatch.setattr(toy.Mlp, "forward", watching)
        space = train(recipe(num_steps=2, precision=precision), tmp_path)
        assert seen == {torch.bfloat16 if precision == "bf16" else torch.float32}
        assert all(tensor.dtype == torch.float32 for tensor in space.state_dict().values())

    def test_temperature_is_clamped(self, tmp_path: Path) -> None:
        table = toy.recipe(num_steps=3, log_every=1, learning_rate=0.5, warmup_steps=0)
        table["pairs"][0] |= {"temperature": 0.05, "min_temperature": 0.05}
        train(parse_recipe(table), tmp_path)
        temperatures = [
            r["pairs"]["toy_signal-toy_words"]["temperature"] for r in metrics(tmp_path)
        ]
        assert all(0.05 - 1e-6 <= t <= 1 + 1e-6 for t in temperatures)


class TestResume:
    @pytest.mark.parametrize("frozen", [None, "toy_words", "toy_signal"])
    def test_a_killed_run_goes_on_as_if_nothing_had_happened(
        self, tmp_path: Path, frozen: str | None
    ) -> None:
        settings = {"num_steps": 12, "checkpoint_every": 4, "log_every": 1, "weight_average": 0.9}
        towers: dict[str, Any] = {"toy_words": {"frozen": frozen == "toy_words"}, **NOISY}
        if frozen == "toy_signal":
            towers["toy_signal"] = {"frozen": True}
        whole = train(recipe(towers, **settings), tmp_path / "whole")
        for stop in (3, 6, 11):
            with pytest.raises(StopError):
                train(
                    recipe(towers, **settings),
                    tmp_path / "killed",
                    resume=stop != 3,
                    listener=stop_at(stop),
                )
        again = train(recipe(towers, **settings), tmp_path / "killed", resume=True)
        assert exact(tmp_path / "killed") == exact(tmp_path / "whole")
        assert equal(again, whole)
        assert load(tmp_path / "killed").fingerprint() == load(tmp_path / "whole").fingerprint()

    def test_with_one_temperature_for_all_pairs(self, tmp_path: Path) -> None:
        """It moves once a step, is averaged, saved and resumed as one number."""
        settings = {"num_steps": 6, "checkpoint_every": 2, "log_every": 1, "weight_average": 0.9}
        table = three_towers(**settings).model_dump()
        table["space"] |= {"shared_temperature": True, "matryoshka": [4]}
        wanted = parse_recipe(table)
        whole = train(wanted, tmp_path / "whole")
        with pytest.raises(StopError):
            train(wanted, tmp_path / "killed", listener=stop_at(5))
        again = train(wanted, tmp_path / "killed", resume=True)
        assert exact(tmp_path / "killed") == exact(tmp_path / "whole")
        assert equal(again, whole)
        for record in metrics(tmp_path / "whole"):
            one, other = (pair["temperature"] for pair in record["pairs"].values())
            assert one == other != 0.07
        loaded = load(tmp_path / "whole")
        assert loaded.fingerprint() == whole.fingerprint()
        assert [name for name in weights(loaded) if "scale" in name] == ["log_scales.shared"]
        assert 1 / loaded.logit_scale("toy_signal", "toy_echo").item() != pytest.approx(0.07)

    def test_a_finished_run_is_given_back(self, tmp_path: Path) -> None:
        first = train(recipe(num_steps=2), tmp_path)
        again = train(recipe(num_steps=2), tmp_path, resume=True)
        assert again.fingerprint() == first.fingerprint()
        assert not again.training

    def test_a_finished_run_can_be_extended(self, tmp_path: Path) -> None:
        train(recipe(num_steps=2, log_every=1), tmp_path)
        train(recipe(num_steps=4, log_every=1), tmp_path, resume=True)
        assert [record["step"] for record in metrics(tmp_path)] == [1, 2, 3, 4]

    def test_killed_between_the_last_checkpoint_and_the_model(self, tmp_path: Path) -> None:
        first = train(recipe(num_steps=2, weight_average=0.5), tmp_path)
        (tmp_path / "config.json").unlink()
        (tmp_path / "model.safetensors").unlink()
        train(recipe(num_steps=2, weight_average=0.5), tmp_path, resume=True)
        assert load(tmp_path).fingerprint() == first.fingerprint()

    def test_another_run_is_not_overwritten(self, tmp_path: Path) -> None:
        train(recipe(num_steps=2), tmp_path)
        with pytest.raises(TrainingError, match=r"already holds a run; go on with it \(--resume\)"):
            train(recipe(num_steps=2), tmp_path)


class TestFrozen:
    def test_a_frozen_encoder_does_not_change(self, tmp_path: Path) -> None:
        wanted = recipe({"toy_words": {"frozen": True}}, num_steps=3)
        torch.manual_seed(wanted.seed)
        before = weights(build(wanted))
        after = weights(train(wanted, tmp_path))
        for name, tensor in after.items():
            frozen = name.startswith("towers.toy_words.encoder")
            assert tensor.equal(before[name]) == frozen, name

    def test_its_features_are_computed_once_an_input(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted: list[int] = []
        forward = toy.Mlp.forward

        def counting(self: toy.Mlp, batch: Tensor) -> Tensor:
            counted.append(len(batch))
            return forward(self, batch)

        monkeypatch.setattr(toy.Mlp, "forward", counting)
        encoder = {"name": "mlp", "window_seconds": 8.0, "dropout": 0.5}
        wanted = recipe({"toy_signal": {"frozen": True, "encoder": encoder}})
        nothing_held_out = [pair.model_copy(update={"test": None}) for pair in wanted.pairs]
        train(wanted.model_copy(update={"pairs": nothing_held_out}), tmp_path)
        source = toy.ToyPairs()
        windows = sum(-(-len(source[i]["toy_signal"]) // 8) for i in range(len(source)))
        assert sum(counted) <= windows
        assert sum(counted) > len(source)


class TestWeightAverage:
    def test_it_is_what_is_saved(self, tmp_path: Path) -> None:
        plain = train(recipe(num_steps=6), tmp_path / "plain")
        average = train(recipe(num_steps=6, weight_average=0.9), tmp_path / "average")
        assert not equal(plain, average)
        assert load(tmp_path / "average").fingerprint() == average.fingerprint()


class TestFailures:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"test": {"data": "rows", "where": {"splt": "test"}}}, "no column 'splt'"),
            ({"test": {"data": "rows", "where": {"number": -5}}}, "no row has .*-5"),
        ],
    )
    def test_held_out_rows_are_opened_before_training(
        self, change: dict[str, Any], message: str, tmp_path: Path
    ) -> None:
        table = toy.recipe()
        table["pairs"][0] |= change
        with pytest.raises(DataError, match=message):
            train(parse_recipe(table), tmp_path)
        assert not (tmp_path / "metrics.jsonl").exists()

    def test_a_label_that_no_row_has_is_found_before_training(self, tmp_path: Path) -> None:
        table = toy.recipe()
        rows = {"task": "zero_shot", "modality": "toy_signal", "rows": "rows", "label": "class"}
        table["evaluations"] = [rows]
        with pytest.raises(DataError, match="no column 'class'"):
            train(parse_recipe(table), tmp_path)

    def test_nothing_to_train_is_said(self, tmp_path: Path) -> None:
        table = toy.recipe()
        whole = {"frozen": True, "projection": "identity"}
        table["towers"] = {"toy_signal": whole, "toy_words": whole}
        table["pairs"][0]["learn_temperature"] = False
        with pytest.raises(RecipeError, match="nothing is left to train"):
            train(parse_recipe(table), tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(recipe(num_steps=6, checkpoint_every=2, log_every=1), tmp_path, listener=stop_at(5))
    (tmp_path / "checkpoints" / "step-00000004" / "tensors.safetensors").write_bytes(b"half")
    with pytest.raises(TrainingError, match=r"step-00000004 is damaged .* delete it"):
        train(recipe(num_steps=6, checkpoint_every=2, log_every=1), tmp_path, resume=True)


def test_an_encoder_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    broken = recipe({"toy_signal": {"encoder": {"name": "mlp", "width": -3}}})
    with pytest.raises(RecipeError, match=r"towers\.toy_signal: encoder 'mlp' cannot be built"):
        train(broken, tmp_path)
