"""`accelerate launch` on two CPU processes gives the losses, gradients and weights of one.

The test runs this file as the script of both.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from omnialign.engine import train
from omnialign.recipe import parse_recipe
from omnialign.testing import toy

NUM_ROWS = 41


def main(folder: Path, **settings: Any) -> None:
    """Trains three towers and keeps the gradients of every step."""
    gradients: list[list[Tensor]] = []
    clip = Accelerator.clip_grad_norm_

    def keep(self: Accelerator, parameters: Any, max_norm: Any) -> Any:
        parameters = list(parameters)
        gradients.append([p.grad.clone() for p in parameters if p.grad is not None])
        return clip(self, parameters, max_norm)

    table = toy.recipe(num_steps=4, batch_size=13, log_every=1, weight_average=0.5, **settings)
    table["data"]["rows"] = {"source": {"name": "manifest", "path": str(folder.parent)}}
    echo = {"modalities": ["toy_echo", "toy_words"], "train": "rows", "weight": 0.5}
    table["pairs"].append(echo)
    table["space"] |= {"matryoshka": [8], "shared_temperature": True}
    table["towers"] = {
        "toy_signal": {"augmentations": ["noise"]},
        "toy_echo": {"frozen": True},
    }
    Accelerator.clip_grad_norm_ = keep
    try:
        with toy.installed():
            train(parse_recipe(table), folder)
    finally:
        Accelerator.clip_grad_norm_ = clip
    torch.save(gradients, folder / f"gradients-{os.environ.get('RANK', 0)}.pt")


def write_rows(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(NUM_ROWS):
        row = toy.ToyPairs()[i]
        toy.write_signal(folder / f"{i}.toy", row["toy_signal"])
        toy.write_signal(folder / f"{i}.echo", row["toy_echo"])
        files = {"toy_signal": f"{i}.toy", "toy_echo": f"{i}.echo"}
        rows.append({**files, "toy_words": row["toy_words"]})
    (folder / "0.toy").write_text("these are words")
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 3}], ids=["whole", "micro"])
def test_two_processes_train_as_one(settings: dict[str, int], tmp_path: Path) -> None:
    """One process has the whole batch at once, two have their shares, perhaps in micro-batches."""
    write_rows(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    main(one)
    # with --cpu accelerate launches several processes through MPI alone
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    launch += ["--num_processes=2", "--num_machines=1", "--mixed_precision=no"]
    launch += ["--dynamo_backend=no", "--main_process_port=0"]
    done = subprocess.run(
        [*launch, __file__, str(two), json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]

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
    assert records[1][-1]["unreadable"] == 1
    assert len((two / "quarantine.jsonl").read_text().splitlines()) == 1
    weights = [load_file(run / "model.safetensors") for run in (one, two)]
    torch.testing.assert_close(weights[1], weights[0], rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    main(Path(sys.argv[1]), **json.loads(sys.argv[2]))
