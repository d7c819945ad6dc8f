"""Batches are a function of seed and step: of no worker, process or interruption."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.data.loader import (
    Draw,
    PairBatch,
    PairDataset,
    PairExample,
    Quarantine,
    StepSampler,
    draws,
    loader,
)
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows
from omnialign.data.sides import Example, SampleCache, Unreadable
from omnialign.errors import DataError
from omnialign.recipe import Rows, parse_recipe
from omnialign.testing import toy


def dataset(
    source: dict[str, Any] | None = None, seed: int = 5, cache_mib: int = 1, window: float = 6.0
) -> PairDataset:
    table = toy.recipe()
    if source:
        table["data"]["rows"]["source"] = source
    rows = PairRows(parse_recipe(table), Rows(data="rows"), ("toy_signal", "toy_words"))
    signal, words = toy.Mlp(window_seconds=window), toy.HashedWords()
    x = Pipeline(
        toy.ToySignal(), signal.preprocess, signal.collate, window, "windows", (toy.Noise(),)
    )
    y = Pipeline(toy.ToyWords(), words.preprocess, words.collate, None, "native")
    return PairDataset(rows, x, y, seed, cache_mib)


def batches(data: PairDataset, num_workers: int = 0, **changes: Any) -> list[PairBatch]:
    settings: dict[str, Any] = {
        "num_rows": 54,
        "batch_size": 16,
        "steps": range(8),
        "seed": 5,
        **changes,
    }
    return list(loader(data, StepSampler(**settings), num_workers, pin_memory=False))


def example(data: PairDataset, draw: Draw, side: int) -> Example:
    drawn = data[draw]
    assert isinstance(drawn, PairExample)
    found = drawn.sides[side]
    assert isinstance(found, Example)
    return found


def same(left: PairBatch, right: PairBatch) -> bool:
    return (
        torch.equal(left.sides[0].inputs, right.sides[0].inputs)
        and torch.equal(left.sides[1].inputs["values"], right.sides[1].inputs["values"])
        and all(torch.equal(a.ids, b.ids) for a, b in zip(left.sides, right.sides, strict=True))
    )


class TestDraws:
    def test_every_pass_takes_every_row_once(self) -> None:
        drawn = [draw for step in range(10) for draw in draws(20, 8, step, seed=1)]
        for epoch in range(4):
            assert sorted(d.row for d in drawn if d.epoch == epoch) == list(range(20))

    def test_passes_and_seeds_differ_and_repeat(self) -> None:
        assert draws(20, 20, 0, 1) == draws(20, 20, 0, 1)
        assert [d.row for d in draws(20, 20, 0, 1)] != [d.row for d in draws(20, 20, 1, 1)]
        assert draws(20, 20, 0, 1) != draws(20, 20, 0, 2)

    def test_a_batch_may_straddle_two_passes(self) -> None:
        assert [d.epoch for d in draws(20, 8, 2, 1)] == [0] * 4 + [1] * 4


class TestSampler:
    def sampler(self, first: int = 0, process: int = 0, num_processes: int = 1) -> StepSampler:
        return StepSampler(20, 7, range(first, 9), 3, process, num_processes)

    @pytest.mark.parametrize("num_processes", [2, 3])
    def test_processes_share_each_batch_without_repeats(self, num_processes: int) -> None:
        shares = [list(self.sampler(0, p, num_processes)) for p in range(num_processes)]
        for whole, *parts in zip(self.sampler(), *shares, strict=True):
            drawn: Counter[Draw] = Counter(draw for part in parts for draw in part)
            assert drawn == Counter(whole)
            assert max(map(len, parts)) - min(map(len, parts)) <= 1

    def test_it_goes_on_at_any_step(self) -> None:
        assert list(self.sampler(4)) == list(self.sampler())[4:]
        assert len(self.sampler(4)) == 5


@pytest.mark.usefixtures("toys")
class TestBatches:
    # torch advises against more workers than cores; here they are the point
    @pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
    def test_workers_change_nothing(self) -> None:
        one, two = batches(dataset()), batches(dataset(), num_workers=2)
        assert all(same(a, b) for a, b in zip(one, two, strict=True))

    def test_global_random_state_changes_nothing_and_is_kept(self) -> None:
        first, data = batches(dataset()), dataset()
        torch.manual_seed(99)
        state = torch.get_rng_state()
        assert all(same(a, b) for a, b in zip(first, batches(data), strict=True))
        assert torch.equal(state, torch.get_rng_state())

    def test_the_cache_changes_nothing(self) -> None:
        with_cache, without = batches(dataset()), batches(dataset(cache_mib=0))
        assert all(same(a, b) for a, b in zip(with_cache, without, strict=True))

    def test_it_resumes_at_any_step(self) -> None:
        whole, rest = batches(dataset()), batches(dataset(), steps=range(5, 8))
        assert all(same(a, b) for a, b in zip(whole[5:], rest, strict=True))

    def test_processes_see_the_same_examples(self) -> None:
        whole = batches(dataset())[0].sides[0].inputs
        parts = [batches(dataset(), process=p, num_processes=2)[0] for p in range(2)]
        assert torch.equal(whole[0::2], parts[0].sides[0].inputs)
        assert torch.equal(whole[1::2], parts[1].sides[0].inputs)

    def test_one_of_several_captions_is_drawn_each_pass(self) -> None:
        data = dataset()
        captions = [example(data, Draw(0, epoch), 1).identity for epoch in range(12)]
        assert len(set(captions)) == 2
        assert captions == [example(dataset(), Draw(0, e), 1).identity for e in range(12)]

    def test_long_signals_give_one_of_their_windows(self) -> None:
        data = dataset()
        drawn = [draw for step in range(8) for draw in draws(54, 16, step, seed=5)]
        assert {example(data, draw, 0).segment for draw in drawn} == {0, 1, 2, 3}

    def test_unreadable_rows_are_set_aside_with_their_reason(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toy").write_text("these are words")
        toy.write_signal(tmp_path / "good.toy", [0, 1])
        rows = [
            {"file_name": name, "toy_words": name}
            for name in ("good.toy", "bad.toy", "missing.toy")
        ]
        manifest = tmp_path / "pairs.jsonl"
        manifest.write_text("\n".join(map(json.dumps, rows)))
        data = dataset({"name": "manifest", "path": str(manifest)})
        (batch,) = batches(data, num_rows=3, batch_size=3, steps=range(1))
        assert len(batch.sides[0].inputs) == len(batch.sides[0]) == len(batch) == 1
        reasons = {Path(u.source.strip("'")).name: u.reason for u in batch.unreadable}
        assert set(reasons) == {"bad.toy", "missing.toy"}
        assert "begins with 'toy-signal'" in reasons["bad.toy"]
        assert "No such file" in reasons["missing.toy"]

    def test_a_batch_with_nothing_to_read(self, tmp_path: Path) -> None:
        manifest = tmp_path / "pairs.jsonl"
        manifest.write_text('{"file_name": "a.toy", "toy_words": "x"}')
        data = dataset({"name": "manifest", "path": str(manifest)})
        (batch,) = batches(data, num_rows=1, batch_size=1, steps=range(1))
        assert [side.inputs for side in batch.sides] == [None, None]
        assert batch.sides[0].ids.shape == (0,)


class TestCache:
    def test_it_keeps_what_fits(self) -> None:
        cache = SampleCache(2000)
        cache.put("a", "x" * 1000)
        cache.put("b", "y" * 1500)
        assert cache.get("a") == "x" * 1000
        assert cache.get("b") is None


class TestQuarantine:
    def found(self, *rows: int) -> list[Unreadable]:
        return [Unreadable(row, f"'{row}.toy'", "no números") for row in rows]

    def test_each_row_is_written_once_with_its_reason(self, tmp_path: Path) -> None:
        path = tmp_path / "quarantine.jsonl"
        quarantine = Quarantine(path, 0.5)
        quarantine.add(1, "rows", 10, self.found(1, 2))
        quarantine.add(1, "rows", 10, self.found(2))
        quarantine.add(1, "other", 10, self.found(2))
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        first = {"data": "rows", "row": 1, "source": "'1.toy'", "reason": "no números"}
        assert lines[0] == {"step": 1, **first, "is_negative": False}
        assert [(line["data"], line["row"]) for line in lines[1:]] == [("rows", 2), ("other", 2)]
        assert len(quarantine) == 3

    def test_too_many_stop_the_run_and_say_why(self, tmp_path: Path) -> None:
        quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.2)
        quarantine.add(1, "rows", 10, self.found(1, 2))
        with pytest.raises(DataError) as caught:
            quarantine.add(1, "rows", 10, self.found(3))
        message = str(caught.value)
        assert "data 'rows': 3 of 10 rows cannot be read" in message
        assert "train.max_unreadable = 0.2" in message
        assert "'3.toy': no números" in message
        assert "quarantine.jsonl" in message

    def test_what_costs_no_row_does_not_count(self, tmp_path: Path) -> None:
        path = tmp_path / "quarantine.jsonl"
        captions = [Unreadable(1, f"caption {i}", "no words") for i in range(3)]
        hard = [Unreadable(row, f"hard {row}", "no words", is_negative=True) for row in range(9)]
        for quarantine in (Quarantine(path, 0.1), Quarantine(path, 0.1)):
            quarantine.add(1, "rows", 10, [*captions, *hard])
            assert len(quarantine) == 12
        with pytest.raises(DataError, match="2 of 10"):
            quarantine.add(2, "rows", 10, self.found(2))

    def test_a_name_may_hold_what_ends_a_line_elsewhere(self, tmp_path: Path) -> None:
        path = tmp_path / "quarantine.jsonl"
        Quarantine(path, 1.0).add(1, "rows", 10, [Unreadable(1, "a\u2028b", "no words")])
        assert len(Quarantine(path, 1.0)) == 1

    def test_it_goes_on_where_it_was(self, tmp_path: Path) -> None:
        path = tmp_path / "quarantine.jsonl"
        Quarantine(path, 0.2).add(1, "rows", 10, self.found(1, 2))
        again = Quarantine(path, 0.2)
        assert len(again) == 2
        again.add(1, "rows", 10, self.found(2))
        with pytest.raises(DataError, match="3 of 10"):
            again.add(1, "rows", 10, self.found(3))
        assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [1, 2, 3]

    def test_of_several_processes_one_writes(self, tmp_path: Path) -> None:
        quarantine = Quarantine(tmp_path / "quarantine.jsonl", 0.5)
        quarantine.add(1, "rows", 10, self.found(1), write=False)
        assert len(quarantine) == 1
        assert not (tmp_path / "quarantine.jsonl").exists()
