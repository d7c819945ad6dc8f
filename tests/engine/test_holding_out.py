"""A run keeps a sample of its test rows, the same after a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.data.rows import PairRows
from omnialign.engine import train
from omnialign.engine.holding_out import MAX_ROWS, hold_out, kept_rows
from omnialign.engine.trainer import StepReport
from omnialign.held_out import HeldOut
from omnialign.model_folder import load
from omnialign.recipe import Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
FILE = "calibration.safetensors"


def recipe(**settings: Any) -> Recipe:
    return parse_recipe(toy.recipe(**{"num_steps": 4, "checkpoint_every": 2, **settings}))


class StopError(Exception):
    pass


def test_a_run_keeps_half_of_its_test_rows(tmp_path: Path) -> None:
    wanted = recipe()
    space = train(wanted, tmp_path)
    pair = wanted.pairs[0]
    assert pair.test is not None
    rows = PairRows(wanted, pair.test, pair.modalities)
    kept = [i for i in range(len(rows)) if rows.number(i) % 2 == 0]
    assert 0 < len(kept) < len(rows)
    found = load(tmp_path).held_out
    assert found is not None
    signals, words = pair.modalities
    together = [
        (signal.value, caption.value)
        for i in kept
        for signal in rows.items(i, signals)
        for caption in rows.items(i, words)
    ]
    assert len(together) == 2 * len(kept)  # the toy says everything twice
    places = found.partners[pair.modalities]
    for modality, items, own in zip(
        pair.modalities, zip(*together, strict=True), places.T, strict=True
    ):
        embedded = space.embed([*items], modality)
        torch.testing.assert_close(found.vectors[modality][own], embedded)
    assert found.fingerprints == {m: space.tower(m).fingerprint() for m in space.modalities}


def test_a_resumed_run_keeps_the_same(tmp_path: Path) -> None:
    def stop(report: StepReport) -> None:
        if report.step == 3:
            raise StopError

    train(recipe(log_every=1), tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe(log_every=1), tmp_path / "stopped", listener=stop)
    assert not (tmp_path / "stopped" / FILE).exists()
    train(recipe(log_every=1), tmp_path / "stopped", resume=True)
    files = [(tmp_path / run / FILE).read_bytes() for run in ("whole", "stopped")]
    assert files[0] == files[1]


def test_one_that_was_killed_before_its_model_was_written_keeps_it_too(tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    before = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).unlink()
    (tmp_path / "config.json").unlink()
    train(recipe(), tmp_path, resume=True)
    assert (tmp_path / FILE).read_bytes() == before


def test_without_test_rows_there_is_nothing_to_keep(tmp_path: Path) -> None:
    table = toy.recipe(num_steps=1)
    for pair in table["pairs"]:
        del pair["test"]
    table["evaluations"] = []
    train(parse_recipe(table), tmp_path)
    assert not (tmp_path / FILE).exists()
    assert load(tmp_path).held_out is None


def test_what_cannot_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = recipe(num_steps=1)
    space = train(wanted, tmp_path)
    whole = space.held_out
    embed = space.embed_known

    def without_the_first(items: Any, modalities: Any, *, unreadable: dict[int, str]) -> Any:
        unreadable[0] = "gone"
        return embed(items, modalities, unreadable={})

    monkeypatch.setattr(space, "embed_known", without_the_first)
    found = hold_out(space, wanted)
    assert isinstance(whole, HeldOut)
    assert isinstance(found, HeldOut)
    pair = wanted.pairs[0].modalities
    for modality in pair:
        assert found.vectors[modality].equal(whole.vectors[modality][1:])
    left = {(x - 1, y - 1) for x, y in whole.partners[pair].tolist() if x and y}
    assert len(left) < len(whole.partners[pair])
    assert {(x, y) for x, y in found.partners[pair].tolist()} == left


class Many:
    """Rows by number alone."""

    def __init__(self, size: int, shuffle_window: int | None = None) -> None:
        self.size = size
        self.source = type("Source", (), {"shuffle_window": shuffle_window})

    def __len__(self) -> int:
        return self.size

    def number(self, index: int) -> int:
        return 3 * index


def test_of_many_rows_some_are_kept_that_lie_evenly() -> None:
    rows: Any = Many(10_000)
    kept = kept_rows(rows)
    assert len(kept) == len(set(kept)) == MAX_ROWS
    assert all(rows.number(i) % 2 == 0 for i in kept)
    assert kept[-1] > 9900
    assert kept_rows(Many(7)) == [0, 2, 4, 6]  # type: ignore[arg-type]


def test_of_a_stream_the_first_rows_are_kept() -> None:
    rows: Any = Many(1_000_000, shuffle_window=100)
    kept = kept_rows(rows)
    assert len(kept) == MAX_ROWS
    assert kept[-1] < 2 * MAX_ROWS
