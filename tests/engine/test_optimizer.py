import pytest
import torch
from torch import nn

from omnialign.engine.optimizer import WeightAverage, build_optimizer, learning_rate
from omnialign.recipe import Train


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
