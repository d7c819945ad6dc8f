"""A run on packed rows is the run on the folder, bit by bit.

The test runs this file as the script of two processes.
"""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from omnialign.data.manifest import Manifest
from omnialign.data.packing import pack
from omnialign.engine import train, trainer
from omnialign.recipe import parse_recipe
from omnialign.testing import toy

NUM_ROWS, NUM_STEPS = 29, 7
STEP_OF_THE_KILL = 4
"""Inside the second pass over the rows, and between two checkpoints."""


class KilledError(Exception):
    pass


@contextmanager
def killed_on_the_way() -> Generator[None]:
    """Inside, every process of a run fails at the same step."""
    clip, steps = trainer.clip_gradients, count(1)

    def fail(*arguments: Any) -> Any:
        if next(steps) == STEP_OF_THE_KILL:
            raise KilledError
        return clip(*arguments)

    trainer.clip_gradients = fail
    try:
        with pytest.raises(KilledError):
            yield
    finally:
        trainer.clip_gradients = clip


def main(source: dict[str, Any], run: Path, num_workers: int, killed: bool) -> None:
    table = toy.recipe(
        num_steps=NUM_STEPS, batch_size=9, log_every=1, num_workers=num_workers, checkpoint_every=3
    )
    table["data"]["rows"] = {"source": source}
    pair = table["pairs"][0]
    if source["name"] != "datasets-stream":
        pair["train"] = {"data": "rows", "where": {"split": "train"}}
    table["towers"] = {"toy_signal": {"augmentations": ["noise"]}}
    with toy.installed():
        recipe = parse_recipe(table)
        if killed:
            with killed_on_the_way():
                train(recipe, run)
        train(recipe, run, resume=killed)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The sources of the same rows: a folder, and what was packed of it."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "folder"
    folder.mkdir()
    rows: list[dict[str, Any]] = []
    for i in range(NUM_ROWS):
        row = toy.ToyPairs()[i]
        toy.write_signal(folder / f"{i}.toy", row["toy_signal"])
        split = "test" if i % 7 == 6 else "train"
        rows.append({"file_name": f"{i}.toy", "toy_words": row["toy_words"], "split": split})
    rows[3]["file_name"] = "2.toy"  # one file twice, which is no negative of itself
    (folder / "4.toy").write_text("no signal")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with toy.installed():
        for format in ("tar", "parquet"):
            pack(Manifest(str(folder)), root / format, format=format)
    found = {
        "folder": {"name": "manifest", "path": str(folder)},
        "tar": {"name": "webdataset", "path": str(root / "tar")},
        "parquet": {"name": "manifest", "path": str(root / "parquet")},
    }
    try:
        import datasets
    except ImportError:
        return found
    packed = str(root / "parquet" / "*.parquet")
    loaded = datasets.Dataset.from_parquet(packed, cache_dir=str(root / "cache"))
    loaded.save_to_disk(root / "saved")
    found["datasets"] = {"name": "datasets", "path": str(root / "saved")}
    stream = {"path": str(root / "saved"), "num_rows": NUM_ROWS, "shuffle_window": 12}
    return {**found, "stream": {"name": "datasets-stream", **stream}}


def numbers(run: Path) -> list[Any]:
    """What a run measured, but for its speed."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = {"samples_per_second", "seconds_left"}
    return [{k: v for k, v in record.items() if k not in timed} for record in records]


def assert_equal_runs(run: Path, expected: Path) -> None:
    assert [record["step"] for record in numbers(run)] == list(range(1, NUM_STEPS + 1))
    assert numbers(run) == numbers(expected)
    assert numbers(run)[-1]["unreadable"] == 1
    found, weights = (load_file(folder / "model.safetensors") for folder in (run, expected))
    assert all(found[name].equal(weights[name]) for name in weights)


@pytest.fixture(scope="module")
def expected(data: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("expected") / "run"
    main(data["folder"], run, 0, killed=False)
    return run


@pytest.mark.parametrize(
    ("kind", "num_workers", "killed"),
    [
        ("tar", 0, False),
        ("tar", 2, True),
        ("parquet", 2, False),
        ("parquet", 0, True),
        ("datasets", 2, True),
    ],
)
def test_packed_rows_train_as_the_folder(
    data: dict[str, dict[str, Any]],
    expected: Path,
    tmp_path: Path,
    kind: str,
    num_workers: int,
    killed: bool,
) -> None:
    if kind not in data:
        pytest.skip("omnialign[datasets] is not installed")
    main(data[kind], tmp_path / "run", num_workers, killed)
    assert_equal_runs(tmp_path / "run", expected)


def test_a_stream_repeats_itself(data: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    if "stream" not in data:
        pytest.skip("omnialign[datasets] is not installed")
    main(data["stream"], tmp_path / "whole", 0, killed=False)
    main(data["stream"], tmp_path / "killed", 2, killed=True)
    assert_equal_runs(tmp_path / "killed", tmp_path / "whole")


def test_two_processes(
    data: dict[str, dict[str, Any]], tmp_path: Path, run_script: Callable[..., None]
) -> None:
    """Two processes sum in another order than one, so two are compared with two."""
    for kind, num_workers, killed in (("folder", 0, False), ("tar", 2, True)):
        given = [data[kind], str(tmp_path / kind), num_workers, killed]
        run_script(__file__, json.dumps(given), num_processes=2)
    assert_equal_runs(tmp_path / "tar", tmp_path / "folder")


if __name__ == "__main__":
    source, run, num_workers, killed = json.loads(sys.argv[1])
    main(source, Path(run), num_workers, killed)
