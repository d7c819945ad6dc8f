"""A checkpoint gives back every bit, and a full disk leaves the one before as it was."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from omnialign.engine import train
from omnialign.engine.checkpoint import read, restore, state_tensors, write
from omnialign.engine.optimizer import WeightAverage, build_optimizer
from omnialign.errors import TrainingError
from omnialign.model_folder import load
from omnialign.recipe import Train, parse_recipe
from omnialign.testing import toy

Trained = tuple[nn.Module, torch.optim.Optimizer, WeightAverage]


def trained(seed: int, steps: int) -> Trained:
    """A module with an odd shape, a scalar, a tied weight and something frozen."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    module.register_parameter("scalar", nn.Parameter(torch.tensor(0.5)))
    module.register_parameter("tied", module[0].weight)
    module[2].requires_grad_(False)
    optimizer = build_optimizer(module, Train())
    average = WeightAverage(module, 0.9)
    for _ in range(steps):
        step(module, optimizer, average)
    return module, optimizer, average


def step(module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage) -> None:
    optimizer.zero_grad()
    (module(torch.randn(4, 3)).square().mean() * module.scalar).backward()
    optimizer.step()
    average.update(module)


def test_every_bit_comes_back(tmp_path: Path) -> None:
    before = trained(seed=1, steps=3)
    write(tmp_path / "checkpoint", state_tensors(*before), {"skipped": 2})
    after = trained(seed=2, steps=1)
    tensors, counts = read(tmp_path / "checkpoint")
    restore(tensors, *after)
    after[2].num_steps = before[2].num_steps
    assert counts == {"skipped": 2}
    for parts in (before, after):  # the same goes on in the same way
        torch.manual_seed(3)
        step(*parts)
    found, expected = state_tensors(*after), state_tensors(*before)
    assert found.keys() == expected.keys()
    assert [name for name in found if not found[name].equal(expected[name])] == []


def test_nothing_in_it_is_unpickled(tmp_path: Path) -> None:
    write(tmp_path / "checkpoint", state_tensors(*trained(0, 1)), {})
    assert {path.suffix for path in (tmp_path / "checkpoint").iterdir()} == {
        ".safetensors",
        ".json",
    }


@contextmanager
def no_file_larger_than(num_bytes: int) -> Iterator[None]:
    """Makes writing fail as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("limit", [0, 2_000, 20_000], ids=["nothing", "a part", "metrics alone"])
def test_a_full_disk_loses_nothing(limit: int, tmp_path: Path) -> None:
    settings = {"checkpoint_every": 2, "log_every": 1}
    whole = train(parse_recipe(toy.recipe(num_steps=6, **settings)), tmp_path / "whole")
    run = tmp_path / "run"
    train(parse_recipe(toy.recipe(num_steps=2, **settings)), run)
    longer = parse_recipe(toy.recipe(num_steps=6, **settings))
    with (
        no_file_larger_than(limit),
        pytest.raises(TrainingError, match=r"cannot (write|be written) to") as caught,
    ):
        train(longer, run, resume=True)
    assert str(run) in str(caught.value)
    if limit:
        assert "go on from" in str(caught.value)
        assert "step-00000002 (--resume)" in str(caught.value)
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-00000002"]
    assert load(run).modalities  # the model of the shorter run is still whole
    again = train(longer, run, resume=True)
    assert again.fingerprint() == whole.fingerprint()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
