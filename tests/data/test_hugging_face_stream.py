"""A stream in its order: every row once an epoch, whatever is resumed or shared."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from omnialign.contract import Blob
from omnialign.data.hugging_face_stream import HuggingFaceStream
from omnialign.data.loader import StepSampler, draws
from omnialign.data.rows import PairRows
from omnialign.errors import DataError
from omnialign.recipe import Rows, parse_recipe
from omnialign.testing import toy

datasets = pytest.importorskip("datasets", reason="omnialign[datasets] is not installed")
NUM_ROWS, WINDOW, BATCH_SIZE = 23, 5, 4


@pytest.fixture
def stream(tmp_path: Path) -> dict[str, Any]:
    """The options of a stream of two Parquet files."""
    features = datasets.Features(
        {
            "toy_signal": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "toy_words": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["even", "odd"]),
        }
    )
    folder = tmp_path / "files"
    folder.mkdir()
    for name, rows in (("train-0", range(11)), ("train-1", range(11, NUM_ROWS))):
        content = {
            "toy_signal": [{"bytes": b"signal %d" % i, "path": None} for i in rows],
            "toy_words": [f"{i}" for i in rows],
            "label": [i % 2 for i in rows],
        }
        dataset = datasets.Dataset.from_dict(content, features=features)
        dataset.to_parquet(folder / f"{name}.parquet", batch_size=4)
    return {"path": str(folder), "num_rows": NUM_ROWS, "shuffle_window": WINDOW}


def test_rows_in_any_order(stream: dict[str, Any]) -> None:
    source = HuggingFaceStream(**stream)
    assert len(source) == NUM_ROWS
    assert source.columns == ["toy_signal", "toy_words", "label"]
    for reopened in (source, pickle.loads(pickle.dumps(source))):
        for i in (0, 4, 5, 22, 7, 21, 0):
            row = pickle.loads(pickle.dumps(reopened[i]))
            assert row["toy_signal"].read() == b"signal %d" % i
            assert f"train: row {i}, toy_signal" in str(row["toy_signal"])
            assert (row["toy_words"], row["label"]) == (str(i), ["even", "odd"][i % 2])


def test_a_saved_dataset(stream: dict[str, Any], tmp_path: Path) -> None:
    loaded = datasets.load_dataset(stream["path"], split="train", cache_dir=tmp_path / "cache")
    loaded.save_to_disk(tmp_path / "saved")
    source = HuggingFaceStream(**{**stream, "path": str(tmp_path / "saved")})
    assert [source[i]["toy_words"] for i in range(NUM_ROWS)] == [str(i) for i in range(NUM_ROWS)]


def test_stretches_follow_each_other_and_every_row_comes_once() -> None:
    found = [d for step in range(12) for d in draws(NUM_ROWS, BATCH_SIZE, step, 3, WINDOW)]
    first, second = found[:NUM_ROWS], found[NUM_ROWS : 2 * NUM_ROWS]
    assert {d.epoch for d in first} == {0}
    for epoch in (first, second):
        rows = [d.row for d in epoch]
        assert sorted(rows) == list(range(NUM_ROWS))
        assert [row // WINDOW for row in rows] == [i // WINDOW for i in range(NUM_ROWS)]
        assert rows != sorted(rows)
    assert [d.row for d in first] != [d.row for d in second]


@pytest.mark.usefixtures("toys")
class TestSampler:
    def rows(self, stream: dict[str, Any], weights: str | None = None, **wanted: Any) -> PairRows:
        table = toy.recipe()
        table["data"]["rows"] = {"source": {"name": "datasets-stream", **stream}}
        recipe = parse_recipe(table)
        modalities = ["toy_signal", "toy_words"]
        return PairRows(recipe, Rows(data="rows", **wanted), modalities, weights=weights)

    def batches(
        self, rows: PairRows, steps: range, process: int = 0, num_processes: int = 1
    ) -> list[list[str]]:
        sampler = StepSampler(len(rows), BATCH_SIZE, steps, 7, process, num_processes, stream=rows)
        found: list[list[str]] = []
        for batch in sampler:
            signals = [rows.items(d.row, "toy_signal", d.content)[0].value for d in batch]
            assert all(isinstance(signal, Blob) for signal in signals)
            found.append([signal.read().decode() for signal in signals])
            assert found[-1] == [f"signal {d.row}" for d in batch]
        return found

    def test_resumed_inside_an_epoch_and_shared(self, stream: dict[str, Any]) -> None:
        rows = self.rows(stream)
        whole = self.batches(rows, range(12))
        assert self.batches(self.rows(stream), range(4, 12)) == whole[4:]
        shares = [self.batches(self.rows(stream), range(12), p, 2) for p in range(2)]
        for step, batch in enumerate(whole):
            assert sorted(shares[0][step] + shares[1][step]) == sorted(batch)
            assert set(shares[0][step]).isdisjoint(shares[1][step])

    def test_weights_are_looked_at_when_rows_are_read(self, stream: dict[str, Any]) -> None:
        rows = self.rows(stream, weights="label")
        with pytest.raises(DataError, match=r"data 'rows', row \d+: label is '(even|odd)'"):
            self.batches(rows, range(1))

    def test_a_stream_has_no_filter(self, stream: dict[str, Any]) -> None:
        with pytest.raises(DataError, match="data 'rows' is a stream, which has no `where`"):
            self.rows(stream, where={"label": "even"})


def test_what_a_stream_must_say(stream: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="does not say how many rows it has; give num_rows"):
        HuggingFaceStream(stream["path"])
    for num_rows, row in ((NUM_ROWS + 1, NUM_ROWS), (NUM_ROWS + 9, NUM_ROWS + 5)):
        source = HuggingFaceStream(**{**stream, "num_rows": num_rows})
        with pytest.raises(DataError, match=rf"ends before row \d+; num_rows is {num_rows}"):
            source[row]
