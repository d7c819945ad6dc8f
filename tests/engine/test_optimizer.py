from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from omnialign.building import build
from omnialign.engine import train
from omnialign.engine.optimizer import (
    WeightAverage,
    build_optimizer,
    learning_rate,
    rate_scales,
)
from omnialign.errors import RecipeError
from omnialign.recipe import Recipe, Train, parse_recipe
from omnialign.testing import toy


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    train = Train(num_steps=100, warmup_steps=9, learning_rate=0.5)
    rates = [learning_rate(train, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[9] == max(rates) == 0.5
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[99] > rates[100] == pytest.approx(0, abs=1e-12)


def test_a_run_shorter_than_its_warm_up() -> None:
    train = Train(num_steps=5, warmup_steps=50, learning_rate=1.0)
    rates = [learning_rate(train, step) for step in range(5)]
    assert rates == pytest.approx([(step + 1) / 51 for step in range(5)])
    assert learning_rate(Train(num_steps=1, warmup_steps=0, learning_rate=1.0), 0) == 1


def test_decay_pulls_matrices_only_and_frozen_weights_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].requires_grad_(False)
    decayed, free = build_optimizer(module, Train(weight_decay=0.3)).param_groups
    assert [p.ndim for p in decayed["params"]] == [2]
    assert decayed["weight_decay"] == 0.3
    assert [p.ndim for p in free["params"]] == [1, 1, 1]
    assert free["weight_decay"] == 0


def with_signal(**tower: Any) -> Recipe:
    return parse_recipe({**toy.recipe(), "towers": {"toy_signal": tower}})


@pytest.mark.usefixtures("toys")
class TestRateScales:
    def test_blocks_nearer_to_the_input_learn_more_slowly(self) -> None:
        recipe = with_signal(layer_decay=0.5, learning_rate_scale=0.1)
        space = build(recipe)
        first, _, _, last = space.tower("toy_signal").encoder.layers  # type: ignore[misc, union-attr]
        scales = rate_scales(space, recipe)
        assert [scales[p] for p in first.parameters()] == pytest.approx([0.1 * 0.25] * 2)
        assert [scales[p] for p in last.parameters()] == pytest.approx([0.1 * 0.5] * 2)
        assert len(scales) == 4

    def test_what_stands_before_and_after_the_blocks(self) -> None:
        recipe = with_signal(layer_decay=0.5)
        space = build(recipe)
        encoder = space.tower("toy_signal").encoder
        layers = encoder.layers
        del encoder.layers
        encoder.stem = nn.Linear(2, 2)
        encoder.layers = layers
        encoder.norm = nn.LayerNorm(2)
        scales = rate_scales(space, recipe)
        assert {scales[p] for p in encoder.stem.parameters()} == {0.125}
        assert not any(p in scales for p in encoder.norm.parameters())

    def test_groups_carry_their_scale(self) -> None:
        recipe = with_signal(layer_decay=0.5)
        space = build(recipe)
        optimizer = build_optimizer(space, recipe.train, rate_scales(space, recipe))
        assert {group["scale"] for group in optimizer.param_groups} == {0.25, 0.5, 1.0}
        held = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(held) == len(list(space.parameters()))

    def test_an_encoder_without_blocks_says_so(self) -> None:
        recipe = parse_recipe({**toy.recipe(), "towers": {"toy_words": {"layer_decay": 0.9}}})
        with pytest.raises(RecipeError, match=r"toy_words\.layer_decay: HashedWords has no blocks"):
            rate_scales(build(recipe), recipe)


@pytest.mark.usefixtures("toys")
def test_a_run_trains_each_group_at_its_rate(tmp_path: Path) -> None:
    """The first step of AdamW moves every weight by its learning rate."""
    table = toy.recipe(num_steps=1, warmup_steps=0, learning_rate=0.01, weight_decay=0.0)
    table["towers"] = {"toy_signal": {"learning_rate_scale": 0.5, "layer_decay": 0.1}}
    recipe = parse_recipe(table)
    torch.manual_seed(recipe.seed)
    before = build(recipe).state_dict()
    after = train(recipe, tmp_path).state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    encoder = "towers.toy_signal.encoder.layers"
    assert moved["towers.toy_signal.projection.weight"] == pytest.approx(0.01, rel=1e-3)
    assert moved[f"{encoder}.3.weight"] == pytest.approx(0.01 * 0.5 * 0.1, rel=1e-2)
    assert moved[f"{encoder}.0.weight"] == pytest.approx(0.01 * 0.5 * 0.01, rel=1e-2)


def test_the_average_follows_its_definition() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, decay=0.2)
    expected = module.weight.item()
    for step, value in enumerate([1.0, 2.0, -1.0], 1):
        with torch.no_grad():
            module.weight.fill_(value)
        average.update(module)
        decay = min(0.2, step / (step + 9))
        expected = decay * expected + (1 - decay) * value
    average.copy_to(module)
    assert module.weight.item() == pytest.approx(expected)
    assert average.num_steps == 3
