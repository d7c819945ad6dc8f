"""Weights of one model for another: all or a clear refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch

import omnialign as oa
from omnialign.building import build
from omnialign.engine import train
from omnialign.errors import ModelError, OmniAlignError
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy
from omnialign.weights import interpolate, take_weights

pytestmark = pytest.mark.usefixtures("toys")


def space(
    seed: int = 0, towers: Any = None, dim: int = 16, echo: bool = False, loss: str = "info_nce"
) -> SharedSpace:
    table = {**toy.recipe(), "towers": towers or {}, "space": {"dim": dim}}
    table["pairs"][0]["loss"] = loss
    if echo:
        table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows"})
    torch.manual_seed(seed)
    return build(parse_recipe(table))


class TestInterpolate:
    def test_the_ends_are_exact_and_the_middle_is_the_mean(self) -> None:
        before, after = space(0), space(1)
        assert interpolate(before, after, 0).fingerprint() == before.fingerprint()
        assert interpolate(before, after, 1).fingerprint() == after.fingerprint()
        middle = interpolate(before, after, 0.25).state_dict()
        for name, value in before.state_dict().items():
            exact = 0.75 * value.double() + 0.25 * after.state_dict()[name].double()
            assert middle[name].equal(exact.float())

    def test_biases_are_weights(self) -> None:
        before, after = space(loss="sigmoid"), space(loss="sigmoid")
        with torch.no_grad():
            after.logit_biases["toy_signal-toy_words"].fill_(-2.0)
        bias = interpolate(before, after, 0.75).logit_bias("toy_signal", "toy_words")
        assert bias is not None
        assert bias.item() == -4
        with pytest.raises(ModelError, match=r"logit_biases\.\S+ is missing in the first model"):
            interpolate(space(), after, 0.5)

    def test_the_models_themselves_stay(self) -> None:
        before, after = space(0), space(1)
        names = before.fingerprint(), after.fingerprint()
        oa.interpolate(before, after, 0.5)
        assert (before.fingerprint(), after.fingerprint()) == names

    @pytest.mark.parametrize(
        ("other", "message"),
        [
            ({"dim": 8}, r"space\.dim = 16, but 8 in the second"),
            (
                {"towers": {"toy_signal": {"projection": "mlp"}}},
                r"projection = 'linear', but 'mlp'",
            ),
            (
                {"towers": {"toy_signal": {"encoder": {"name": "mlp", "width": 8}}}},
                r"towers\.toy_signal\.encoder\.width = 16, but 8",
            ),
            ({"echo": True}, "second toy_signal, toy_words, toy_echo; only models of the same"),
        ],
    )
    def test_what_differs_is_named(self, other: dict[str, Any], message: str) -> None:
        with pytest.raises(ModelError, match=message):
            interpolate(space(), space(**other), 0.5)

    def test_tensors_that_differ_are_named(self) -> None:
        before, after = space(), space()
        encoder = after.tower("toy_signal").encoder
        encoder.register_buffer("count", torch.ones(2, dtype=torch.int64))
        with pytest.raises(ModelError, match=r"encoder\.count is missing in the first .*\(2,\)"):
            interpolate(before, after, 0.5)
        before.tower("toy_signal").encoder.register_buffer("count", torch.zeros(2).long())
        with pytest.raises(ModelError, match=r"encoder\.count holds other whole numbers"):
            interpolate(before, after, 0.5)

    @pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan")])
    def test_alpha_lies_between(self, alpha: float) -> None:
        with pytest.raises(OmniAlignError, match="it lies between 0"):
            interpolate(space(), space(), alpha)


class TestTakeWeights:
    def test_shared_towers_temperatures_and_biases_are_taken(self) -> None:
        source, target = space(1, loss="sigmoid"), space(0, echo=True, loss="sigmoid")
        fresh = target.tower("toy_echo").state_dict()
        fresh = {name: value.clone() for name, value in fresh.items()}
        with torch.no_grad():
            source.log_scales["toy_signal-toy_words"].fill_(3.0)
            source.logit_biases["toy_signal-toy_words"].fill_(-4.0)
        take_weights(target, source, "runs/x")
        for name, value in source.state_dict().items():
            assert target.state_dict()[name].equal(value)
        assert all(target.tower("toy_echo").state_dict()[n].equal(v) for n, v in fresh.items())

    def test_a_bias_that_only_one_has_stays(self) -> None:
        target = space(loss="sigmoid")
        take_weights(target, space(1), "runs/x")
        bias = target.logit_bias("toy_signal", "toy_words")
        assert bias is not None
        assert bias.item() == -10
        take_weights(space(), space(1, loss="sigmoid"), "runs/x")

    def test_a_tower_of_another_kind_is_refused(self) -> None:
        other = space(towers={"toy_signal": {"encoder": {"name": "mlp", "width": 8}}})
        with pytest.raises(ModelError, match=r"runs/x has .*encoder\.width = 8, but 16 in the rec"):
            take_weights(space(), other, "runs/x")

    def test_nothing_in_common(self) -> None:
        table = toy.recipe()
        table["pairs"] = [{"modalities": ["toy_echo", "toy_words"], "train": "rows"}]
        source = space()
        del source.towers["toy_words"]
        with pytest.raises(ModelError, match=r"runs/x has toy_signal, .*they share no tower"):
            take_weights(build(parse_recipe(table)), source, "runs/x")


def test_a_run_starts_from_a_saved_model(tmp_path: Path) -> None:
    first = train(parse_recipe(toy.recipe(num_steps=20)), tmp_path / "first")
    table = toy.recipe(num_steps=1, warmup_steps=0, learning_rate=1e-9, weight_decay=0.0)
    table["start_from"] = str(tmp_path / "first")
    second = train(parse_recipe(table), tmp_path / "second")
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_resumed_run_does_not_need_what_it_started_from(tmp_path: Path) -> None:
    train(parse_recipe(toy.recipe(num_steps=2)), tmp_path / "first")
    table = {**toy.recipe(num_steps=2), "start_from": str(tmp_path / "first")}
    train(parse_recipe(table), tmp_path / "second")
    (tmp_path / "first" / "config.json").unlink()
    longer = {**toy.recipe(num_steps=3), "start_from": str(tmp_path / "first")}
    train(parse_recipe(longer), tmp_path / "second", resume=True)
    with pytest.raises(
        ModelError, match=r"^start_from: the run in .*config\.json is missing; go on"
    ):
        train(parse_recipe(table), tmp_path / "third")


@pytest.mark.parametrize(
    ("place", "message"),
    [("nowhere", "no model folder at '{}'; give the"), (".", "'{}' holds no model: config.json")],
)
def test_a_model_to_start_from_is_looked_at_before_all_else(
    tmp_path: Path, place: str, message: str
) -> None:
    start = tmp_path / place
    with pytest.raises(ModelError) as caught:
        train(parse_recipe({**toy.recipe(), "start_from": str(start)}), tmp_path / "run")
    assert str(caught.value).startswith("start_from: " + message.format(start))
    assert not (tmp_path / "run").exists()
