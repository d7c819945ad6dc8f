"""What is said of embeddings and gradients, and when a run warns.

Axes: n pairs, D dim.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize, pdist

from omnialign.engine.diagnostics import (
    StepReport,
    Watch,
    geometry,
    gradient_norms,
    in_batch_accuracy,
)
from omnialign.recipe import parse_recipe
from omnialign.testing import toy


def test_accuracy_counts_both_directions_and_equal_items() -> None:
    x = torch.eye(4)
    ids = torch.arange(4)
    assert in_batch_accuracy(x, x, ids, ids).item() == 1
    assert in_batch_accuracy(x, x.roll(1, 0), ids, ids).item() == 0
    y = x[[0, 1, 3, 2]]
    assert in_batch_accuracy(x, y, ids, ids).item() == 0.5
    assert in_batch_accuracy(x, y, ids, torch.tensor([0, 1, 2, 2])).item() == 1


class TestGeometry:
    def test_uniformity_is_the_papers_formula(self) -> None:
        x = normalize(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
        expected = pdist(x).square().mul(-2).exp().mean().log()
        torch.testing.assert_close(geometry(x, x)["uniformity"], expected)

    @pytest.mark.parametrize("rank", [1, 3, 8])
    def test_effective_rank_counts_directions_that_are_used_alike(self, rank: int) -> None:
        x = torch.eye(8)[torch.arange(24) % rank]
        assert geometry(x, x)["effective_rank"].item() == pytest.approx(rank, rel=1e-4)

    def test_partners_that_agree_are_aligned_and_leave_no_gap(self) -> None:
        x = torch.eye(4)
        same, far = geometry(x, x), geometry(x, -x)
        assert same["alignment"].item() == same["modality_gap"].item() == 0
        assert far["alignment"].item() == pytest.approx(4)
        assert far["modality_gap"].item() == pytest.approx(2 * x.mean(0).norm().item())

    def test_what_is_not_finite_has_no_rank(self) -> None:
        broken = torch.full((3, 4), torch.inf)
        assert geometry(broken, broken)["effective_rank"].isnan()

    def test_one_pair_has_no_spread(self) -> None:
        x = torch.eye(3)[:1]
        assert all(value.isfinite() for value in geometry(x, x).values())


def test_gradient_norms_are_of_the_towers_that_are_trained() -> None:
    trained, untouched, frozen = (torch.nn.Linear(2, 1, bias=False) for _ in range(3))
    trained.weight.grad = torch.tensor([[3.0, 4.0]])
    frozen.requires_grad_(False)
    norms = gradient_norms({"a": trained, "b": untouched, "c": frozen})
    assert norms == {"a": 5.0, "b": 0.0}


def report(step: int = 500, skipped: int = 0, norm: float = 1.0, **pair: float) -> StepReport:
    values = {"loss": 1.0, "accuracy": 0.5, "temperature": 0.05, "effective_rank": 9.0, **pair}
    return StepReport(
        step=step,
        num_steps=1000,
        loss=1.0,
        learning_rate=1e-3,
        gradient_norm=1.0,
        samples_per_second=1.0,
        seconds_left=1.0,
        unreadable=0,
        skipped=skipped,
        pairs={"toy_signal-toy_words": values},
        tower_gradient_norms={"toy_signal": norm},
        tower_padding={"toy_words": 1.2},
    )


@pytest.mark.usefixtures("toys")
class TestWatch:
    def watch(self, **pair: Any) -> Watch:
        table = toy.recipe()
        table["pairs"][0] |= pair
        return Watch(parse_recipe(table), num_processes=1)

    @pytest.mark.parametrize(
        ("told", "start", "remedy"),
        [
            ({"effective_rank": 1.2}, "collapse of toy_signal-toy_words:", "learning_rate"),
            ({"temperature": 0.01}, "temperature of toy_signal-toy_words:", "augmentation"),
            ({"temperature": 1.0}, "temperature of toy_signal-toy_words:", "upper clamp"),
            ({"norm": 0.0}, "no gradient for the tower toy_signal:", "frozen = true"),
            ({"skipped": 2}, "non-finite gradients: 2 steps", "float32"),
        ],
    )
    def test_each_fault_is_named_once_with_its_remedy(
        self, told: dict[str, Any], start: str, remedy: str
    ) -> None:
        watch = self.watch()
        (warning,) = watch.new_warnings(report(**told))
        assert warning.startswith(start)
        assert remedy in warning
        assert watch.new_warnings(report(**told)) == []

    def test_weights_are_not_sharded_over_one_process(self) -> None:
        wanted = parse_recipe(toy.recipe(shard_weights=True))
        (warning,) = Watch(wanted, num_processes=1).new_warnings(report())
        assert warning.startswith("train.shard_weights: one process")
        assert Watch(wanted, num_processes=2).new_warnings(report()) == []

    def test_an_encoder_that_is_never_unfrozen(self) -> None:
        for num_steps, said in ((7, ["towers.toy_signal.frozen_steps"]), (8, [])):
            table = toy.recipe(num_steps=num_steps)
            table["towers"] = {"toy_signal": {"frozen_steps": 7}}
            found = Watch(parse_recipe(table), num_processes=1).new_warnings(report())
            assert [text.partition(":")[0] for text in found] == said

    def test_nothing_is_said_of_a_pair_whose_turn_it_was_not(self) -> None:
        told = report()
        told.pairs.clear()
        assert self.watch().new_warnings(told) == []

    def test_all_is_well(self) -> None:
        assert self.watch().new_warnings(report()) == []

    def test_the_first_steps_may_be_collapsed(self) -> None:
        assert self.watch().new_warnings(report(step=20, effective_rank=1.0)) == []

    def test_a_temperature_that_was_set_is_no_fault(self) -> None:
        watch = self.watch(learn_temperature=False, temperature=0.01)
        assert watch.new_warnings(report(temperature=0.01)) == []


def test_trackers_get_flat_names() -> None:
    scalars = report(norm=2.0).scalars()
    assert scalars["toy_signal-toy_words/accuracy"] == 0.5
    assert scalars["padding/toy_words"] == 1.2
    assert scalars["gradient_norm/toy_signal"] == 2.0
    assert all(isinstance(v, int | float) and math.isfinite(v) for v in scalars.values())
