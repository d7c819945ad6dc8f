"""Whose turn it is follows from the seed, in the shares that were asked for."""

from typing import Any

import pytest

from omnialign.engine.turns import turns
from omnialign.recipe import Train

ROWS = [900, 100]


def shares(**settings: Any) -> list[float]:
    found = turns(Train(num_steps=20_000, **settings), ROWS, seed=3)
    assert sorted(step for own in found for step in own) == list(range(20_000))
    return [len(own) / 20_000 for own in found]


def test_all_pairs_are_in_every_step_unless_said_otherwise() -> None:
    assert turns(Train(num_steps=7), ROWS, seed=0) == [range(7), range(7)]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        ("proportional", [0.9, 0.1]),
        ("uniform", [0.5, 0.5]),
        (1.0, [0.9, 0.1]),
        (2.0, [0.75, 0.25]),
        (0.001, [1.0, 0.0]),
    ],
)
def test_one_pair_a_step_in_the_shares_that_were_asked_for(
    sampling: str | float, expected: list[float]
) -> None:
    assert shares(pair_sampling=sampling) == pytest.approx(expected, abs=0.01)


def test_a_longer_run_begins_with_the_same_turns() -> None:
    short, long = (
        turns(Train(num_steps=n, pair_sampling="uniform"), ROWS, seed=5) for n in (50, 90)
    )
    for own, longer in zip(short, long, strict=True):
        assert own == [step for step in longer if step < 50]


def test_another_seed_takes_other_turns() -> None:
    train = Train(num_steps=50, pair_sampling="uniform")
    assert turns(train, ROWS, seed=1) != turns(train, ROWS, seed=2)
