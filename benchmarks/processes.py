"""Several processes: bytes that a loss sends, and two processes beside one on the same cores.

    uv run --with open_clip_torch python benchmarks/processes.py

Bytes are what crosses the loopback device in ten forwards and backwards of the loss on two gloo
processes; nothing else may talk there meanwhile. Throughput is that of a recipe with generated
pictures, steps 5 to the last; both sides have the same number of threads in all.

Axes: b pairs of a process, D dim.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PAIRS, DIM, PASSES = 2048, 512, 10


def launched(arguments: list[str], num_processes: int, num_threads: int) -> str:
    """Standard output of this script on several CPU processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    command += [f"--num_processes={num_processes}", "--num_machines=1", "--main_process_port=0"]
    command += ["--mixed_precision=no", "--dynamo_backend=no"]
    done = subprocess.run(
        [*(command if num_processes > 1 else [sys.executable]), __file__, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(num_threads), "ACCELERATE_USE_CPU": "true"},
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout


def loopback_bytes() -> int:
    for line in Path("/proc/net/dev").read_text("utf-8").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    raise SystemExit("no loopback device")


def count_bytes(side: str) -> None:
    """Bytes of a forward and backward, printed by the first process."""
    import torch
    import torch.distributed as dist

    from omnialign.losses import info_nce

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(rank)
    x, y = (
        torch.nn.functional.normalize(torch.randn(PAIRS, DIM, generator=generator), dim=-1)
        for _ in range(2)
    )
    scale = torch.tensor(20.0, requires_grad=True)
    if side == "ours":

        def loss() -> Any:
            return info_nce(x, y, scale, group=dist.group.WORLD)

    else:
        from open_clip import ClipLoss  # pyright: ignore[reportMissingImports]

        theirs = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)

        def loss() -> Any:
            return theirs(x, y, scale)

    for value in (x, y):
        value.requires_grad_()
    loss().backward()
    dist.barrier()
    before = loopback_bytes()
    for _ in range(PASSES):
        loss().backward()
    dist.barrier()
    if rank == 0:
        print(json.dumps((loopback_bytes() - before) / PASSES))
    dist.destroy_process_group()


def throughput(num_steps: int) -> None:
    """Samples a second of a run, printed by the first process."""
    from omnialign.engine import train
    from omnialign.recipe import load_recipe

    times: list[float] = []
    settings = (f"train.num_steps={num_steps}", "train.log_every=1", "train.trackers=[]")
    recipe = load_recipe("image-text", [*settings, "train.precision=float32"])
    with tempfile.TemporaryDirectory() as folder:
        folders = [folder]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState
            from accelerate.utils import broadcast_object_list

            PartialState(cpu=True)
            broadcast_object_list(folders)
        train(recipe, folders[0], listener=lambda _: times.append(time.perf_counter()))
    if times:
        timed = times[4:]
        rate = (len(timed) - 1) * recipe.train.batch_size / (timed[-1] - timed[0])
        print(json.dumps(rate))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("ours", "open_clip", "throughput"))
    arguments = parser.parse_args()
    if arguments.side == "throughput":
        throughput(arguments.steps)
        return
    if arguments.side:
        count_bytes(arguments.side)
        return
    sent = {
        side: json.loads(launched(["--side", side], 2, 1).splitlines()[-1])
        for side in ("ours", "open_clip")
    }
    print(f"loss of 2 x {PAIRS} pairs, D = {DIM}, float32, forward and backward")
    for side, value in sent.items():
        print(f"{side:<12}{value / 2**20:7.1f} MiB   {value / sent['open_clip']:.2f} of open_clip")
    rates: dict[int, list[float]] = {1: [], 2: []}
    given = ["--side", "throughput", "--steps", str(arguments.steps)]
    for _ in range(arguments.rounds):
        for processes, found in rates.items():
            output = launched(given, processes, 2 // processes)
            found.append(json.loads(output.strip().splitlines()[-1]))
    for processes, found in rates.items():
        ratios = [a / b for a, b in zip(found, rates[1], strict=True)]
        print(
            f"{processes} process(es){statistics.median(found):8.0f} samples/s   "
            f"{statistics.median(ratios):.2f} of one"
        )


if __name__ == "__main__":
    main()
