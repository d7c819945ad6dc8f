"""Frozen encoders run once, and never on anything stale."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from omnialign.building import build
from omnialign.data.loader import Draw, PairDataset
from omnialign.data.pipeline import Pipeline
from omnialign.data.rows import PairRows
from omnialign.data.sides import Example, StoredSide, Unreadable
from omnialign.engine import frozen, train
from omnialign.engine.fingerprint import feature_fingerprint
from omnialign.engine.frozen import FeatureReport, frozen_modalities, store_frozen_features
from omnialign.errors import PluginError
from omnialign.recipe import Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
SIGNAL = {"frozen": True, "encoder": {"name": "mlp", "window_seconds": 8.0, "dropout": 0.5}}


def recipe(folder: Path | None = None, towers: Any = None, **settings: Any) -> Recipe:
    table = toy.recipe(**{"num_steps": 6, "log_every": 1, **settings})
    table["towers"] = {"toy_signal": SIGNAL} if towers is None else towers
    if folder is not None:
        table["data"]["rows"] = {"source": {"name": "manifest", "path": str(folder)}}
    return parse_recipe(table)


def write_files(folder: Path, num_rows: int = 20) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(num_rows):
        row = toy.ToyPairs()[i]
        toy.write_signal(folder / f"{i}.toy", row["toy_signal"])
        others = [f"{k % num_rows}.toy" for k in (i + 1, i + 2)] if i % 4 else []
        words = {"toy_words": row["toy_words"]}
        rows.append({"file_name": f"{i}.toy", **words, "others": others})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def trained(wanted: Recipe, run: Path) -> tuple[SharedSpace, dict[str, FeatureReport]]:
    """The space, and the last report of each modality."""
    said: dict[str, FeatureReport] = {}

    def listener(report: FeatureReport) -> None:
        said[report.modality] = FeatureReport(**asdict(report))

    return train(wanted, run, feature_listener=listener), said


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is read of signals, from here on."""
    found: list[Any] = []
    read = toy.ToySignal.read

    def watched(self: toy.ToySignal, source: Any) -> Tensor:
        found.append(source)
        return read(self, source)

    monkeypatch.setattr(toy.ToySignal, "read", watched)
    return found


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many inputs the encoder of signals sees, from here on."""
    found: list[int] = []
    forward = toy.Mlp.forward

    def watched(self: toy.Mlp, batch: Tensor) -> Tensor:
        found.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(toy.Mlp, "forward", watched)
    return found


def test_augmented_towers_run_each_step() -> None:
    words = {"frozen": True}
    assert frozen_modalities(recipe(towers={"toy_words": words})) == ["toy_words"]
    noisy = {"frozen": True, "augmentations": ["noise"]}
    assert frozen_modalities(recipe(towers={"toy_signal": noisy})) == []


def test_draws_and_features_are_those_of_reading(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "3.toy").write_text("these are words")
    wanted = recipe(tmp_path, {"toy_signal": SIGNAL, "toy_words": {"frozen": True}})
    torch.manual_seed(0)
    space = build(wanted).eval()
    rows = PairRows(wanted, wanted.pairs[0].train, ("toy_words", "toy_signal"))
    x, y = (space.tower(m).pipeline for m in ("toy_words", "toy_signal"))
    read, stored = (PairDataset(rows, x, y, 3, 1, negatives="others") for _ in range(2))
    store_frozen_features(space, wanted, [stored], Accelerator(cpu=True), bf16=False)
    assert all(isinstance(side, StoredSide) for side in stored.sides)
    drawn = [Draw(row, epoch) for row in range(len(rows)) for epoch in range(6)]
    segments: set[int] = set()
    left_out: Counter[type] = Counter()
    for draw in drawn:
        expected, found = read[draw], stored[draw]
        if isinstance(expected, Unreadable):
            assert found == expected
            assert draw.row == 3
            continue
        assert not isinstance(found, Unreadable)
        for pipeline, a, b in zip((x, y, y), expected.sides, found.sides, strict=True):
            if not isinstance(a, Example) or not isinstance(b, Example):
                assert a == b
                left_out[type(a)] += 1
                continue
            assert (a.identity, a.segment) == (b.identity, b.segment)
            segments.add(a.segment)
            with torch.no_grad():
                encoder = space.tower(pipeline.modality.name).encoder
                features = encoder(pipeline.collate([a.value]))[0]
            torch.testing.assert_close(b.value, features)
    assert segments == {0, 1, 2}
    assert left_out[type(None)] == 5 * 6
    assert 0 < left_out[Unreadable] < 2 * 6


def test_nothing_is_read_or_encoded_twice(
    tmp_path: Path, reads: list[Any], forwards: list[int]
) -> None:
    write_files(tmp_path)
    wanted = recipe(tmp_path)
    nothing_held_out = [pair.model_copy(update={"test": None}) for pair in wanted.pairs]
    wanted = wanted.model_copy(update={"pairs": nothing_held_out})
    _, first = trained(wanted, tmp_path / "first")
    assert (first["toy_signal"].found, first["toy_signal"].computed) == (0, 20)
    assert len(reads) == 20
    seen = sum(forwards)
    _, second = trained(wanted, tmp_path / "second")
    assert (second["toy_signal"].found, second["toy_signal"].computed) == (20, 0)
    assert second["toy_signal"].done
    assert len(reads) == 20
    assert sum(forwards) == seen
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


def test_a_run_is_the_same_as_with_the_encoder_run_each_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = {"toy_signal": SIGNAL, "toy_words": {"frozen": True}}
    train(recipe(towers=towers), tmp_path / "cached")
    train(recipe(towers=towers, micro_batch_size=5), tmp_path / "micro")
    train(recipe(towers=towers, precision="bf16"), tmp_path / "cached-bf16")
    monkeypatch.setattr("omnialign.engine.trainer.frozen_modalities", lambda _: [])
    monkeypatch.setattr(frozen, "frozen_modalities", lambda _: [])
    train(recipe(towers=towers), tmp_path / "each")
    train(recipe(towers=towers, precision="bf16"), tmp_path / "each-bf16")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "each"), rel=1e-5)
    assert losses(tmp_path / "micro") == pytest.approx(losses(tmp_path / "each"), rel=1e-4)
    pairs = losses(tmp_path / "cached-bf16"), losses(tmp_path / "each-bf16")
    assert pairs[0] == pytest.approx(pairs[1], rel=1e-2)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    train(recipe(tmp_path), tmp_path / "one")
    monkeypatch.setenv("OMNIALIGN_CACHE", str(tmp_path / "cache"))
    train(recipe(tmp_path, num_workers=2), tmp_path / "two")
    assert losses(tmp_path / "one") == losses(tmp_path / "two")


class TestNothingIsStale:
    def found(self, wanted: Recipe, run: Path) -> FeatureReport:
        return trained(wanted, run)[1]["toy_signal"]

    def test_a_file_that_keeps_name_size_and_times(self, tmp_path: Path) -> None:
        write_files(tmp_path)
        train(recipe(tmp_path), tmp_path / "first")
        path = tmp_path / "0.toy"
        times, content = path.stat(), path.read_bytes()
        digit = content.index(b".") + 1
        path.write_bytes(content[:digit] + bytes([content[digit] ^ 1]) + content[digit + 1 :])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        found = self.found(recipe(tmp_path), tmp_path / "second")
        assert (found.found, found.computed) == (19, 1)
        assert losses(tmp_path / "first") != losses(tmp_path / "second")

    def test_what_is_in_memory(self, tmp_path: Path) -> None:
        train(recipe(), tmp_path / "first")
        assert self.found(recipe(), tmp_path / "same").computed == 0
        table = recipe().model_dump()
        table["data"]["rows"]["source"]["seed"] = 1
        found = self.found(parse_recipe(table), tmp_path / "second")
        assert (found.found, found.computed) == (0, 54)

    @pytest.mark.parametrize(
        "change",
        [
            {"encoder": {**SIGNAL["encoder"], "num_points": 11}},  # type: ignore[dict-item]
            {"encoder": {**SIGNAL["encoder"], "window_seconds": 7.0}},  # type: ignore[dict-item]
            {"long_input": "truncate"},
        ],
    )
    def test_options(self, tmp_path: Path, change: Mapping[str, Any]) -> None:
        train(recipe(), tmp_path / "first")
        other = recipe(towers={"toy_signal": {**SIGNAL, **change}})
        assert self.found(other, tmp_path / "second").found == 0

    def test_weights_and_precision(self, tmp_path: Path) -> None:
        train(recipe(), tmp_path / "first")
        seeded = recipe().model_copy(update={"seed": 1})
        assert self.found(seeded, tmp_path / "second").found == 0
        assert self.found(recipe(precision="bf16"), tmp_path / "third").found == 0


class TestFingerprint:
    def test_it_repeats_and_follows_every_weight(self) -> None:
        tower = build(recipe()).tower("toy_signal")
        before = feature_fingerprint(tower, bf16=False)
        assert feature_fingerprint(tower, bf16=False) == before
        assert feature_fingerprint(tower, bf16=True) != before
        with torch.no_grad():
            next(tower.projection.parameters()).add_(1)
        assert feature_fingerprint(tower, bf16=False) == before
        encoder: Any = tower.encoder
        with torch.no_grad():
            encoder.layers[3].bias[0] = torch.nextafter(
                encoder.layers[3].bias[0], torch.tensor(9.0)
            )
        changed = feature_fingerprint(tower, bf16=False)
        assert changed != before
        encoder.register_buffer("mean", torch.zeros(1), persistent=False)
        assert feature_fingerprint(tower, bf16=False) != changed

    def test_the_code_counts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        module = tmp_path / "a_plugin_of_ours.py"
        module.write_text("def preprocess(sample):\n    return sample\n")
        import a_plugin_of_ours  # type: ignore[import-not-found]

        tower = build(recipe()).tower("toy_signal")
        tower.encoder.preprocess = a_plugin_of_ours.preprocess
        before = feature_fingerprint(tower, bf16=False)
        module.write_text("def preprocess(sample):\n    return 2 * sample\n")
        assert feature_fingerprint(tower, bf16=False) != before

    def test_files_of_the_encoder_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tower = build(recipe()).tower("toy_signal")
        found: set[str] = set()
        for words in ("one", "two"):

            def save(self: Any, folder: Path, words: str = words) -> None:
                (folder / "tokenizer.json").write_text(words)

            monkeypatch.setattr(toy.Mlp, "save_files", save)
            found.add(feature_fingerprint(tower, bf16=False))
        assert len(found) == 2

    def test_a_preprocessing_that_says_nothing_is_refused(self) -> None:
        tower = build(recipe()).tower("toy_signal")
        tower.encoder.preprocess = object()  # type: ignore[assignment]
        with pytest.raises(PluginError, match="says nothing of its settings"):
            feature_fingerprint(tower, bf16=False)


class KilledError(Exception):
    pass


def test_a_killed_pass_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forwards: list[int]
) -> None:
    monkeypatch.setattr(frozen, "ROWS_AT_ONCE", 5)
    monkeypatch.setattr(frozen, "CHUNK_BYTES", 0)
    train(recipe(), tmp_path / "whole")
    whole = len(forwards)
    monkeypatch.setenv("OMNIALIGN_CACHE", str(tmp_path / "cache"))
    encode = frozen._Pass._encode
    calls: list[Any] = []

    def killed(self: Any, new: Mapping[bytes, list[Any]]) -> Any:
        calls.append(new)
        if len(calls) == 4:
            raise KilledError
        return encode(self, new)

    with monkeypatch.context() as patch:
        patch.setattr(frozen._Pass, "_encode", killed)
        with pytest.raises(KilledError):
            train(recipe(), tmp_path / "killed")
    _, reports = trained(recipe(), tmp_path / "again")
    assert (reports["toy_signal"].found, reports["toy_signal"].computed) == (15, 39)
    assert len(forwards) == 2 * whole
    assert losses(tmp_path / "again") == losses(tmp_path / "whole")


def test_a_damaged_chunk_is_computed_again(tmp_path: Path) -> None:
    train(recipe(), tmp_path / "first")
    (chunk,) = Path(os.environ["OMNIALIGN_CACHE"]).rglob("*.npy")
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 255
    chunk.write_bytes(content)
    _, reports = trained(recipe(), tmp_path / "second")
    assert reports["toy_signal"].computed == 54
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


def test_a_full_disk_is_told_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), tmp_path / "first")
    monkeypatch.setenv("OMNIALIGN_CACHE", str(tmp_path / "cache"))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    _, reports = trained(recipe(), tmp_path / "second")
    assert "No space left on device" in (reports["toy_signal"].problem or "")
    assert losses(tmp_path / "first") == losses(tmp_path / "second")


def test_unreadable_items_go_to_the_quarantine(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "3.toy").write_text("these are words")
    _, reports = trained(recipe(tmp_path), tmp_path / "run")
    assert reports["toy_signal"].unreadable == 1
    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 3
    assert "begins with 'toy-signal'" in json.loads(line)["reason"]
    toy.write_signal(tmp_path / "3.toy", [1, 2])
    _, reports = trained(recipe(tmp_path), tmp_path / "again")
    assert (reports["toy_signal"].found, reports["toy_signal"].computed) == (19, 1)


def test_a_file_that_changes_while_it_is_read_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path)
    read_segments = Pipeline.read_segments

    def changing(self: Pipeline, item: Any) -> Any:
        yield from read_segments(self, item)
        if str(item).endswith("/7.toy"):
            toy.write_signal(Path(item), [1, 2, 3])

    monkeypatch.setattr(Pipeline, "read_segments", changing)
    train(recipe(tmp_path), tmp_path / "run")
    (line,) = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "it changed while it was read"


def test_an_item_of_two_pairs_is_computed_once(tmp_path: Path, forwards: list[int]) -> None:
    table = recipe().model_dump(exclude_none=True)
    table["towers"]["toy_words"] = {"frozen": True}
    table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows"})
    _, reports = trained(parse_recipe(table), tmp_path / "run")
    assert reports["toy_words"].computed == 54
    assert reports["toy_words"].num_rows == 108
