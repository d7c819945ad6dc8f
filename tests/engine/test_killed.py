"""A run that is killed (SIGKILL) at any moment and resumed is the run that was never stopped.

The test runs this file as a script.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

NUM_STEPS = 60


def main(folder: str) -> None:
    from omnialign.engine import train
    from omnialign.recipe import parse_recipe
    from omnialign.testing import toy

    settings = {"checkpoint_every": 7, "log_every": 1, "weight_average": 0.9}
    table = toy.recipe(num_steps=NUM_STEPS, batch_size=13, micro_batch_size=4, **settings)
    table["towers"] = {
        "toy_signal": {
            "encoder": {"name": "mlp", "dropout": 0.3, "window_seconds": 8.0},
            "augmentations": ["noise"],
        }
    }
    table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows"})
    table["train"]["pair_sampling"] = 2.0
    with toy.installed():
        train(parse_recipe(table), folder, resume=True, listener=lambda _: time.sleep(0.02))


def told(run: Path) -> list[dict[str, Any]]:
    """What the metrics say, but for the time it took."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if not k.startswith(("seconds", "samples"))}
        for line in lines
    ]


def kill_after(process: subprocess.Popen[str], run: Path, lines: int, seconds: float) -> bool:
    """Kills the process group once so many lines of metrics are there; whether it was in time."""
    while process.poll() is None:
        metrics = run / "metrics.jsonl"
        if metrics.is_file() and metrics.read_bytes().count(b"\n") >= lines:
            time.sleep(seconds)
            break
        time.sleep(0.01)
    in_time = process.poll() is None
    if in_time:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return in_time


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_killed_run_is_the_run_that_was_never_stopped(
    num_processes: int,
    tmp_path: Path,
    start_script: Callable[..., subprocess.Popen[str]],
    run_script: Callable[..., None],
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_script(__file__, str(whole), num_processes=num_processes)
    drawn = random.Random(num_processes)
    moments = sorted(drawn.randrange(NUM_STEPS - 5) for _ in range(5))
    for lines in moments:
        process = start_script(__file__, str(killed), num_processes=num_processes)
        assert kill_after(process, killed, lines, drawn.random() / 20)
    run_script(__file__, str(killed), num_processes=num_processes)
    assert told(killed) == told(whole)
    models = [load_file(run / "model.safetensors") for run in (killed, whole)]
    assert [name for name in models[1] if not models[0][name].equal(models[1][name])] == []


if __name__ == "__main__":
    main(sys.argv[1])
