"""Time and memory of the losses beside the peers', in one run.

    uv run --with open_clip_torch python benchmarks/losses.py               # N = 16,384, D = 512
    uv run --with open_clip_torch python benchmarks/losses.py --pairs 4096 --rounds 7

Every side runs in a process of its own for memory, and in turn with the others for time. `limit` is
the time of the matrix products alone at the peak of a large product measured beside them: 4 U of
InfoNCE with recomputation, 3 U of the pairwise sigmoid, where U = 2 N² D operations.

Axes: N pairs, D dim.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIDES = ("ours", "ours bf16", "open_clip", "Inf-CL's algorithm", "sigmoid", "open_clip sigmoid")
LOGIT_SCALE, BIAS = 20.0, -10.0


def side(name: str, num_pairs: int, dim: int) -> Callable[[], None]:
    """One forward and backward."""
    import torch

    from omnialign.losses import info_nce, sigmoid

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_pairs, dim, generator=generator)
    y = torch.randn(num_pairs, dim, generator=generator) + x
    x, y = (torch.nn.functional.normalize(v, dim=-1).requires_grad_() for v in (x, y))
    scale = torch.tensor(LOGIT_SCALE, requires_grad=True)
    bias = torch.tensor(BIAS, requires_grad=True)
    if name.endswith("bf16"):
        x, y = (v.detach().bfloat16().requires_grad_() for v in (x, y))
    if name.startswith("ours"):
        return lambda: info_nce(x, y, scale).backward()
    if name == "sigmoid":
        return lambda: sigmoid(x, y, scale, bias).backward()
    if name == "Inf-CL's algorithm":
        return lambda: _row_tiles(x, y, scale).backward()
    from open_clip import loss as open_clip  # pyright: ignore[reportMissingImports]

    if name == "open_clip":
        clip = open_clip.ClipLoss()
        return lambda: clip(x, y, scale).backward()
    siglip = open_clip.SigLipLoss()
    return lambda: siglip(x, y, scale, bias).backward()


def _row_tiles(x: Any, y: Any, scale: Any) -> Any:
    """Log-sums by tiles and recomputed gradients, each direction for itself (arXiv:2410.17243)."""
    import torch

    class OneWay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, q: Any, k: Any, s: Any) -> Any:
            sums = torch.full((len(q),), -torch.inf)
            for i in range(0, len(q), 1024):
                for j in range(0, len(k), 1024):
                    tile = s * (q[i : i + 1024] @ k[j : j + 1024].T)
                    sums[i : i + 1024] = torch.logaddexp(sums[i : i + 1024], tile.logsumexp(1))
            ctx.save_for_backward(q, k, s, sums)
            return (sums - s * (q * k).sum(1)).mean()

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Any) -> Any:
            q, k, s, sums = ctx.saved_tensors
            d_q, d_k = torch.zeros_like(q), torch.zeros_like(k)
            starts = range(0, len(q), 1024)
            for into_q in (True, False):  # a kernel each, which computes the tile for itself
                for i, j in itertools.product(starts, starts):
                    rows, columns = slice(i, i + 1024), slice(j, j + 1024)
                    tile = s * (q[rows] @ k[columns].T)
                    tile = (tile - sums[rows, None]).exp() / len(q)
                    if into_q:
                        d_q[rows] += tile @ k[columns]
                    else:
                        d_k[columns] += tile.T @ q[rows]
            d_q -= k / len(q)
            d_k -= q / len(q)
            return d_q * s * grad_outputs[0], d_k * s * grad_outputs[0], (d_q * q).sum()

    one_way: Any = OneWay.apply
    return (one_way(x, y, scale) + one_way(y, x, scale)) / 2


def peak_operations(dtype: Any, dim: int) -> float:
    """Operations a second of one large matrix product; the best of five."""
    import torch

    a, b = (torch.randn(2048, dim).to(dtype) for _ in range(2))
    out = torch.empty(2048, 2048, dtype=dtype)
    seconds: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(a, b.T, out=out)
        seconds.append(time.perf_counter() - started)
    return 2 * 2048 * 2048 * dim / min(seconds)


def measure_memory(name: str, num_pairs: int, dim: int) -> None:
    """Prints the MiB at the peak beyond what stood before; in a process of its own (Linux)."""
    side(name, 64, dim)()
    step = side(name, num_pairs, dim)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from now
    before = _status("VmRSS")
    step()
    print((_status("VmHWM") - before) / 1024)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def memory(name: str, num_pairs: int, dim: int) -> float:
    command = [sys.executable, __file__, "--memory-of", name]
    command += ["--pairs", str(num_pairs), "--dim", str(dim)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=16384)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="*", default=SIDES)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    num_pairs, dim = arguments.pairs, arguments.dim
    if arguments.memory_of:
        measure_memory(arguments.memory_of, num_pairs, dim)
        return

    import torch

    steps = {name: side(name, num_pairs, dim) for name in arguments.sides}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    limits: dict[str, list[float]] = {name: [] for name in steps}
    unit = 2 * num_pairs**2 * dim
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            peak = peak_operations(torch.bfloat16 if "bf16" in name else torch.float32, dim)
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
            limits[name].append(unit * (3 if "sigmoid" in name else 4) / peak)
    print(
        f"N = {num_pairs}, D = {dim}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    print(json.dumps({name: [round(s, 3) for s in values] for name, values in seconds.items()}))
    mib = {name: memory(name, num_pairs, dim) for name in steps}
    for name, values in seconds.items():
        peer = "open_clip sigmoid" if "sigmoid" in name else "open_clip"
        line = f"{name:<20} {statistics.median(values):8.3f} s {mib[name]:8.0f} MiB"
        over = statistics.median(a / b for a, b in zip(values, limits[name], strict=True))
        line += f"  {over:5.2f} of the limit"
        if peer in seconds and peer != name:
            ratio = statistics.median(a / b for a, b in zip(values, seconds[peer], strict=True))
            line += f"  time {ratio:.2f}, memory 1/{mib[peer] / mib[name]:.0f} of {peer}"
        print(line)


if __name__ == "__main__":
    main()
