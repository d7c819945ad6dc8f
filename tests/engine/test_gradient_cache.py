"""Gradients of micro-batches are those of the whole batch, whatever is kept or computed again.

Axes: n pairs, D dim.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from torch import Tensor

from omnialign.building import build
from omnialign.data.loader import PairBatch, SideBatch
from omnialign.engine import train
from omnialign.engine.gradient_cache import GradientCache, average_gradients, in_parts, split
from omnialign.engine.memory import free_bytes, saved_bytes
from omnialign.engine.objective import Objective, StepBatches, places
from omnialign.engine.run_folder import RunFolder
from omnialign.errors import DataError, TrainingError
from omnialign.recipe import parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
KEY = (7, 3, 0)
EVERYTHING, NOTHING = 2**40, 0


def table(**settings: Any) -> dict[str, Any]:
    """Two pairs that share a tower, with dropout."""
    made = toy.recipe(**settings)
    made["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows", "weight": 0.5})
    made["towers"] = {"toy_signal": {"encoder": {"name": "mlp", "dropout": 0.5}}}
    return made


def objective(
    space: Mapping[str, Any] = MappingProxyType({}), hard: bool = False, **towers: Any
) -> Objective:
    """`space`: besides its dim; `hard`: for such batches."""
    made = table()
    if hard:
        made["pairs"][0]["modalities"].reverse()
    recipe = parse_recipe(
        {**made, "space": {**made["space"], **space}, "towers": {**made["towers"], **towers}}
    )
    torch.manual_seed(0)
    made = Objective(build(recipe), recipe).double()
    made.train()
    return made


def signals(size: int, generator: torch.Generator) -> SideBatch:
    inputs = torch.randn(size, 12, generator=generator, dtype=torch.float64)
    return SideBatch(inputs, torch.randint(10**6, (size,), generator=generator))


def words(size: int, generator: torch.Generator) -> SideBatch:
    ids = torch.randint(9, (size,), generator=generator)
    inputs = {"values": ids[:, None] + 1, "mask": torch.ones(size, 1, dtype=torch.bool)}
    return SideBatch(inputs if size else None, ids)


def batches(sizes: list[int], hard: bool = False) -> StepBatches:
    """`hard`: the first pair the other way round, both with weights and with hard negatives of
    some rows: signals, which have dropout, and words. The first micro-batch has none."""
    generator = torch.Generator().manual_seed(1)
    found: list[list[PairBatch]] = []
    for pair in range(2):
        found.append([])
        for k, size in enumerate(sizes):
            kinds = [words, signals] if hard and pair == 0 else [signals, words]
            sides, weights = [kind(size, generator) for kind in kinds], None
            if hard:
                sides.append(kinds[1](min(k, size), generator))
                weights = torch.rand(size, generator=generator)
            found[pair].append(PairBatch(sides, weights, []))
    return found


def gradients(made: Objective) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("graph_bytes", [EVERYTHING, 4000, NOTHING])
@pytest.mark.parametrize("sizes", [[5], [4, 4, 3], [1] * 6])
@pytest.mark.parametrize("space", [{}, {"matryoshka": [2, 5], "shared_temperature": True}])
@pytest.mark.parametrize("hard", [False, True], ids=["", "hard"])
def test_gradients_are_those_of_the_whole_batch(
    hard: bool, space: dict[str, Any], sizes: list[int], graph_bytes: int
) -> None:
    plain, cached = (objective(space, hard) for _ in range(2))
    given = batches(sizes, hard)
    assert (max(place.side for place in places(given)) == 2) == (hard and len(sizes) > 1)
    loss, metrics = plain(given, KEY)
    loss.backward()
    found, cached_metrics = GradientCache(cached, graph_bytes)(given, KEY)
    torch.testing.assert_close(found, loss.detach(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(metrics, cached_metrics)
    expected = gradients(plain)
    assert gradients(cached).keys() == expected.keys()
    assert len(expected) > 4
    for name, gradient in gradients(cached).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-12, atol=1e-13)


def test_what_is_kept_changes_no_bit() -> None:
    """A small last micro-batch may be kept where a larger one before it was not."""
    given = batches([4, 4, 1])
    found: list[dict[str, Tensor]] = []
    for graph_bytes in (NOTHING, 1500, 3000, 5000, EVERYTHING):
        made = objective().float()
        inputs = [[m.rows(slice(None)) for m in batch] for batch in given]
        for batch in inputs:
            for micro in batch:
                micro.sides[0].inputs = micro.sides[0].inputs.float()
        GradientCache(made, graph_bytes)(inputs, KEY)
        found.append(gradients(made))
    assert all(other[name].equal(found[0][name]) for other in found for name in found[0])


def test_micro_batches_are_computed_once_where_memory_allows() -> None:
    """Of seven micro-batches a side, those whose graph is not kept are embedded twice."""
    counts: dict[int, int] = {}
    given = batches([4] * 7)
    for graph_bytes in (EVERYTHING, NOTHING):
        made = objective()
        cache = GradientCache(made, graph_bytes)
        cache(given, KEY)  # also measures
        seen: list[Any] = []
        embed = made.embed

        def counted(*args: Any, embed: Any = embed, seen: list[Any] = seen) -> Tensor:
            seen.append(args)
            return embed(*args)

        made.embed = counted  # type: ignore[method-assign]
        cache(given, KEY)
        counts[graph_bytes] = len(seen)
    assert counts[EVERYTHING] == len(places(given))
    assert counts[NOTHING] == 2 * len(places(given))


def test_what_is_not_trained_is_embedded_once_and_has_no_gradient() -> None:
    made = objective(toy_words={"frozen": True, "projection": "identity"})
    given = batches([3, 3])
    cache = GradientCache(made, NOTHING)
    assert cache.bytes_of(places(given)[1], given, KEY) == 0
    assert cache.bytes_of(places(given)[0], given, KEY) > 0
    cache(given, KEY)
    assert all("towers.toy_words" not in name for name in gradients(made))


def test_splitting_keeps_every_pair_in_order() -> None:
    given = batches([5, 2, 3], hard=True)
    smaller = split(given, 2)
    assert [len(micro) for micro in smaller[0]] == [2, 2, 1, 2, 2, 1]
    assert [len(micro.sides[2]) for micro in smaller[0]] == [0, 0, 0, 1, 2, 0]
    for before, after in zip(given, smaller, strict=True):
        weights = [torch.cat([m.weights for m in batch]) for batch in (before, after)]
        assert torch.equal(*weights)
        for side in range(3):
            ids = [torch.cat([m.sides[side].ids for m in batch]) for batch in (before, after)]
            assert torch.equal(*ids)
    inputs = [torch.cat([m.sides[0].inputs for m in some[1]]) for some in (given, smaller)]
    assert torch.equal(*inputs)


def test_parts_hold_every_pair_in_order() -> None:
    batch = batches([5])[0]
    parts = in_parts(batch, 4)
    assert [len(part) for part in parts] == [1, 1, 1, 2]
    ids = [torch.cat([part.sides[0].ids for part in some]) for some in (parts, batch)]
    assert torch.equal(*ids)
    with pytest.raises(DataError, match=r"can read 5 rows .* wants 6 micro-batches"):
        in_parts(batch, 6)


def test_saved_bytes_counts_activations_once_and_no_weights() -> None:
    layer = torch.nn.Linear(100, 50)
    x = torch.randn(8, 100)
    with saved_bytes(layer) as saved:
        (layer(x).tanh() * 2).sum()
    assert saved.num_bytes == x.nbytes + 8 * 50 * 4


def test_a_container_may_leave_less_than_the_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omnialign.engine.memory.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes(torch.device("cpu")) > 2**20
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    assert free_bytes(torch.device("cpu")) == 3000


def test_the_average_leaves_alone_what_no_process_has_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(3))
    one, other = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    one.grad = torch.tensor([2.0, 4.0])
    average_gradients([one, other], 2)
    assert one.grad.tolist() == [3, 6]
    assert other.grad is None


class TestRuns:
    def test_a_run_in_micro_batches_learns_and_repeats(self, tmp_path: Path) -> None:
        wanted = {"num_steps": 12, "micro_batch_size": 5, "log_every": 1}
        spaces = [
            train(parse_recipe(table(**wanted, kept_graphs_mib=mib)), tmp_path / str(mib))
            for mib in (64, 0)
        ]
        first, second = (space.state_dict() for space in spaces)
        assert all(first[name].equal(second[name]) for name in first)
        lines = (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        assert losses[-1] < losses[0]

    def test_auto_is_found_once_and_kept(self, tmp_path: Path) -> None:
        train(parse_recipe(table(num_steps=2, micro_batch_size="auto")), tmp_path)
        assert RunFolder(tmp_path).micro_batch_size() == 16

    def test_too_little_memory_halves_and_loses_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The failed attempt's graphs are gone before the next one begins."""
        embed, loss = Objective.embed, Objective.loss
        graphs: list[weakref.ref[Tensor]] = []

        def tracked(self: Objective, *given: Any) -> Tensor:
            vectors = embed(self, *given)
            graphs.append(weakref.ref(vectors))
            return vectors

        def scarce(self: Objective, vectors: Any, given: StepBatches, measure: bool) -> Any:
            if max(len(micro) for batch in given for micro in batch) > 4:
                raise torch.OutOfMemoryError("out of memory")
            assert sum(ref() is not None for ref in graphs[:failed]) == 0
            return loss(self, vectors, given, measure)

        wanted = parse_recipe(table(num_steps=3, micro_batch_size="auto"))
        failed = 6
        with monkeypatch.context() as patch:
            patch.setattr(Objective, "embed", tracked)
            patch.setattr(Objective, "loss", scarce)
            space = train(wanted, tmp_path / "scarce")
        assert len(graphs) > failed
        assert RunFolder(tmp_path / "scarce").micro_batch_size() == 4
        other = train(parse_recipe(table(num_steps=3, micro_batch_size=4)), tmp_path / "given")
        for name, value in space.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("content", ["", "{}", '{"micro_batch_size": null}'])
    def test_a_damaged_size_is_named(self, tmp_path: Path, content: str) -> None:
        wanted = parse_recipe(table(num_steps=2, checkpoint_every=1, micro_batch_size="auto"))
        train(wanted, tmp_path)
        (tmp_path / "micro_batch.json").write_text(content)
        with pytest.raises(TrainingError, match=r"micro_batch\.json is damaged .*delete it"):
            train(parse_recipe(table(num_steps=3, micro_batch_size="auto")), tmp_path, resume=True)

    def test_a_new_run_finds_its_own_size(self, tmp_path: Path) -> None:
        RunFolder(tmp_path).keep_micro_batch_size(1)
        train(parse_recipe(table(num_steps=1, micro_batch_size="auto")), tmp_path)
        assert RunFolder(tmp_path).micro_batch_size() == 16

    def test_where_nothing_is_trained_the_whole_batch_fits(self, tmp_path: Path) -> None:
        made = table(num_steps=1, micro_batch_size="auto")
        frozen = {"frozen": True, "projection": "identity"}
        made["towers"] = dict.fromkeys(("toy_signal", "toy_words", "toy_echo"), frozen)
        train(parse_recipe(made), tmp_path)
        assert RunFolder(tmp_path).micro_batch_size() == 16

    def test_a_size_that_was_asked_for_is_not_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*_: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(GradientCache, "__call__", never)
        with pytest.raises(TrainingError, match=r"micro_batch_size = 8, with .*choose a smaller"):
            train(parse_recipe(table(num_steps=2, micro_batch_size=8)), tmp_path)
