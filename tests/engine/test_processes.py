"""`accelerate launch` on two CPU processes gives the losses, gradients and weights of one.

The test runs this file as the script of both.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from omnialign.engine import train, trainer
from omnialign.engine.sharding import whole
from omnialign.errors import RecipeError
from omnialign.recipe import parse_recipe
from omnialign.testing import toy

NUM_ROWS = 41


def main(folder: Path, frozen_steps: int = 0, hard: bool = False, **settings: Any) -> None:
    """Trains three towers and keeps the gradients of every step.

    `hard`: with weights, and with hard negatives of so few rows that some batches have none.
    """
    gradients: list[list[Tensor]] = []
    clip = trainer.clip_gradients

    def keep(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
        parameters = list(parameters)
        gradients.append([whole(p.grad).clone() for p in parameters if p.grad is not None])
        return clip(parameters, most)

    given = {"num_steps": 4, "batch_size": 13, "log_every": 1, "weight_average": 0.5, **settings}
    table = toy.recipe(**given)
    table["data"]["rows"] = {"source": {"name": "manifest", "path": str(folder.parent)}}
    echo = {"modalities": ["toy_echo", "toy_words"], "train": "rows", "weight": 0.5}
    table["pairs"].append(echo)
    if hard:
        table["pairs"][0] |= {"weights": "trust", "negatives": "others"}
    table["space"] |= {"matryoshka": [8], "shared_temperature": True}
    table["towers"] = {
        "toy_signal": {"augmentations": ["noise"], "frozen_steps": frozen_steps},
        "toy_echo": {"frozen": True},
    }
    trainer.clip_gradients = keep
    try:
        with toy.installed():
            train(parse_recipe(table), folder, resume=True)
    finally:
        trainer.clip_gradients = clip
    torch.save(gradients, folder / f"gradients-{os.environ.get('RANK', 0)}.pt")


def write_rows(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(NUM_ROWS):
        row = toy.ToyPairs()[i]
        toy.write_signal(folder / f"{i}.toy", row["toy_signal"])
        toy.write_signal(folder / f"{i}.echo", row["toy_echo"])
        files = {"toy_signal": f"{i}.toy", "toy_echo": f"{i}.echo"}
        rows.append({**files, "toy_words": row["toy_words"], "trust": 1 + i % 3})
        if i % 9 == 1:
            rows[-1]["others"] = [row["toy_words"][0], "another"]
    (folder / "0.toy").write_text("these are words")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


SHARDED = {"shard_weights": True}
TURNS = {"pair_sampling": "uniform"}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="copied"),
        pytest.param({"micro_batch_size": 3}, id="copied, micro-batches", marks=SLOW),
        pytest.param({"hard": True}, id="hard negatives"),
        pytest.param({"hard": True, "micro_batch_size": 3}, id="hard negatives, micro-batches"),
        pytest.param({"frozen_steps": 2}, id="unfreezing", marks=SLOW),
        pytest.param(TURNS, id="turns", marks=SLOW),
        pytest.param({**TURNS, "micro_batch_size": 3}, id="turns, micro-batches", marks=SLOW),
        pytest.param(SHARDED, id="sharded", marks=SLOW),
        pytest.param({**SHARDED, "micro_batch_size": 3}, id="sharded, micro-batches"),
    ],
)
def test_two_processes_train_as_one(
    settings: dict[str, Any], tmp_path: Path, run_script: Callable[..., None]
) -> None:
    """One process has the whole batch at once, two have their shares, perhaps in micro-batches,
    and perhaps each a part of the weights."""
    write_rows(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    alike = {k: v for k, v in settings.items() if k in ("frozen_steps", "pair_sampling", "hard")}
    main(one, **alike)
    run_script(__file__, str(two), json.dumps(settings), num_processes=2)

    expected = torch.load(one / "gradients-0.pt", weights_only=True)
    for rank in range(2):
        found = torch.load(two / f"gradients-{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    records = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    assert [r["step"] for r in records[1]] == [1, 2, 3, 4]
    for a, b in zip(*records, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], abs=1e-6, rel=1e-6)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=1e-5)
        assert b["unreadable"] == a["unreadable"]
        assert b["pairs"] == {
            name: pytest.approx(told, rel=1e-4, abs=1e-5) for name, told in a["pairs"].items()
        }
    drawn = "pair_sampling" not in settings  # by turns the unreadable row is not drawn in 4 steps
    assert records[1][-1]["unreadable"] == drawn
    if drawn:
        assert len((two / "quarantine.jsonl").read_text().splitlines()) == 1
    weights = [load_file(run / "model.safetensors") for run in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)


def test_hard_negatives_and_sharded_weights_exclude_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path)
    monkeypatch.setattr(trainer, "shards", lambda *_: True)
    with pytest.raises(RecipeError, match=r"pairs\.0\.negatives and train\.shard_weights exclude"):
        main(tmp_path / "run", hard=True)


@SLOW
def test_checkpoints_move_between_one_process_and_sharded_ones(
    tmp_path: Path, run_script: Callable[..., None]
) -> None:
    write_rows(tmp_path)
    alone, moved = tmp_path / "alone", tmp_path / "moved"
    main(alone, num_steps=6)
    main(moved, num_steps=2)
    sharded = {"num_steps": 4, "shard_weights": True}
    run_script(__file__, str(moved), json.dumps(sharded), num_processes=2)
    main(moved, num_steps=6)
    weights = [load_file(run / "model.safetensors") for run in (moved, alone)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)
    assert len((moved / "metrics.jsonl").read_text().splitlines()) == 6


def test_a_mistake_is_said_once(
    tmp_path: Path, start_script: Callable[..., subprocess.Popen[str]]
) -> None:
    """Even one that the main process alone can see; the launcher's own traceback follows."""
    (tmp_path / "run").touch()
    arguments = ("train", "image-text", "--output", str(tmp_path / "run"))
    process = start_script("-m", "omnialign", *arguments, num_processes=2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.count("is a file; it wants a folder") == 1
    assert output.count("error: --output") == 1
    assert output.count("Traceback") == 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
