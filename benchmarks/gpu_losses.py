"""The losses on a GPU beside the peers', in one run.

    uv run --with open_clip_torch --with inf-cl python benchmarks/gpu_losses.py
    uv run python benchmarks/gpu_losses.py --sides ours sigmoid --tune
    TRITON_INTERPRET=1 uv run python benchmarks/gpu_losses.py --smoke

Sides take turns; beside each time stands that of a large matrix product, taken just before it.
`peak` is the share of its rate that a side's useful operations reach: 4 U for InfoNCE, 3 U for the
pairwise sigmoid, where U = 2 N² D. At the end ours goes once through `--largest` pairs. `--tune`
tries other blocks; the best belongs into `omnialign.losses.triton_tiles.BLOCKS`. `--smoke` shows on
a CPU, in Triton's interpreter, that all of this runs; its times mean nothing.

Axes: N pairs, D dim.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.losses import info_nce, sigmoid, triton_tiles

LOGIT_SCALE, BIAS = 20.0, -10.0
SIDES = ("ours", "open_clip", "compiled open_clip", "Inf-CL", "sigmoid", "open_clip sigmoid")
CALIBRATED = 8192
"""Rows, columns and depth of the product that stands for the peak."""


def vectors(num_pairs: int, dim: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator(device).manual_seed(0)
    x, y = (torch.randn(num_pairs, dim, generator=generator, device=device) for _ in range(2))
    x, y = normalize(x, dim=-1), normalize(x + 3 * y, dim=-1)
    return x.to(dtype).requires_grad_(), y.to(dtype).requires_grad_()


def side(name: str, x: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """One forward and backward; gives the loss."""
    scale = torch.tensor(LOGIT_SCALE, device=x.device, requires_grad=True)
    bias = torch.tensor(BIAS, device=x.device, requires_grad=True)
    loss = _loss(name, x, y, scale, bias)

    def step() -> Tensor:
        for leaf in (x, y, scale, bias):
            leaf.grad = None
        value = loss()
        value.backward()
        return value.detach()

    return step


def _loss(name: str, x: Tensor, y: Tensor, scale: Tensor, bias: Tensor) -> Callable[[], Tensor]:
    if name == "ours":
        return lambda: info_nce(x, y, scale)
    if name == "sigmoid":
        return lambda: sigmoid(x, y, scale, bias)
    if name == "Inf-CL":
        from inf_cl import cal_flash_loss as one_way  # pyright: ignore[reportMissingImports]

        return lambda: (one_way(x, y, scale=scale) + one_way(y, x, scale=scale)).mean() / 2
    from open_clip import loss as open_clip  # pyright: ignore[reportMissingImports]

    if name == "open_clip sigmoid":
        siglip = open_clip.SigLipLoss()
        return lambda: siglip(x, y, scale.to(x.dtype), bias.to(x.dtype))
    clip = open_clip.ClipLoss()
    if name == "compiled open_clip":
        clip = torch.compile(clip)
    return lambda: clip(x, y, scale.to(x.dtype))


def seconds(step: Callable[[], object], device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        step()
        return time.perf_counter() - started
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    last.record()
    torch.cuda.synchronize()
    return first.elapsed_time(last) / 1000


def peak_operations(size: int, device: str, dtype: torch.dtype) -> float:
    """Operations a second of a square product; the best of five."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(lambda: a @ b, device) for _ in range(5))


def mebibytes(step: Callable[[], object], device: str) -> float:
    """At the peak, beyond what stood before."""
    if device == "cpu":
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def compare(names: list[str], x: Tensor, y: Tensor, rounds: int, size: int) -> None:
    """Times the sides in turn, and prints a line of each; of one that cannot run, why not."""
    device = x.device.type
    steps: dict[str, Callable[[], Tensor]] = {}
    for name in names:
        try:
            steps[name] = side(name, x, y)
            value = float(steps[name]())  # compiles, and takes memory that is kept
            steps[name]()
        except (ImportError, RuntimeError) as error:
            steps.pop(name, None)
            print(f"{name:<20} not run: {str(error).splitlines()[0]}")
        else:
            print(f"{name:<20} loss {value:.6f}")
    taken: dict[str, list[float]] = {name: [] for name in steps}
    shares: dict[str, list[float]] = {name: [] for name in steps}
    unit = 2 * len(x) ** 2 * x.shape[1]
    for _ in range(rounds):
        for name, step in steps.items():
            peak = peak_operations(size, device, x.dtype)
            taken[name].append(seconds(step, device))
            useful = unit * (3 if "sigmoid" in name else 4)
            shares[name].append(useful / taken[name][-1] / peak)
    print(f"N = {len(x)}, D = {x.shape[1]}, {x.dtype}, {_described(device)}")
    for name, step in steps.items():
        print(
            f"{name:<20} {1000 * statistics.median(taken[name]):10.2f} ms  "
            f"{100 * statistics.median(shares[name]):5.1f} % of peak  "
            f"{mebibytes(step, device):8.0f} MiB"
        )


def _described(device: str) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else "Triton's interpreter on a CPU"
    return f"{where}, torch {torch.__version__}"


def blocks(start: triton_tiles.Block, few: bool) -> Iterator[triton_tiles.Block]:
    """What `--tune` tries."""
    shapes = [(128, 128, 8), (128, 256, 8), (64, 128, 4), (256, 128, 8), (64, 256, 4)]
    for (rows, columns, warps), step, stages, registers in itertools.product(
        shapes, (32, 64), (2, 3, 4), (None, 128, 168)
    ):
        yield replace(
            start,
            rows=rows,
            columns=columns,
            step=step,
            num_warps=warps,
            num_stages=stages,
            max_registers=registers,
        )
        if few:
            return


def tune(names: list[str], x: Tensor, y: Tensor, few: bool) -> None:
    """Prints milliseconds of every block and tile that fits, best first."""
    device, found = x.device.type, list[tuple[float, str]]()
    before = triton_tiles.BLOCKS, triton_tiles.TILE
    tiles = [(4096, 4096), (8192, 8192), (16384, 8192), (8192, 16384)]
    tried = blocks(triton_tiles.BLOCKS[x.dtype.itemsize], few)
    for block, tile in itertools.product(tried, tiles[:1] if few else tiles):
        triton_tiles.BLOCKS = {x.dtype.itemsize: block}
        triton_tiles.TILE = tile
        for name in names:
            step = side(name, x, y)
            try:
                step()
                best = min(seconds(step, device) for _ in range(3))
            except Exception as error:  # Triton has many for a block that does not fit
                print(f"{name} {block} {tile}: {type(error).__name__}")
                continue
            found.append((best, f"{name:<8} {1000 * best:9.2f} ms  {tile} {block}"))
    triton_tiles.BLOCKS, triton_tiles.TILE = before
    print(*(line for _, line in sorted(found)), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--largest", type=int, default=1048576)
    parser.add_argument("--sides", nargs="*", default=SIDES, choices=SIDES)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    given = parser.parse_args()
    device, size = "cuda", CALIBRATED
    if given.smoke:  # in the interpreter bfloat16 has no products
        device, size = "cpu", 64
        given.pairs, given.dim, given.rounds, given.largest = 48, 32, 1, 80
        given.dtype = "float32"
        small = triton_tiles.Block(32, 32, 32, 2, num_warps=4, num_stages=2)
        triton_tiles.BLOCKS = {4: small}
    x, y = vectors(given.pairs, given.dim, device, getattr(torch, given.dtype))
    if not triton_tiles.usable(x):
        parser.error("the kernels do not run here; --smoke wants TRITON_INTERPRET=1")
    names = list(given.sides)
    if given.tune:
        tune([n for n in names if n in ("ours", "sigmoid")], x, y, few=given.smoke)
        return
    compare(names, x, y, given.rounds, size)
    x, y = vectors(given.largest, given.dim, device, x.dtype)
    for name in [n for n in names if n in ("ours", "sigmoid")]:
        step = side(name, x, y)
        used, took = mebibytes(step, device), seconds(step, device)
        print(f"{name:<20} N = {given.largest}: {took:.2f} s, {used:.0f} MiB, loss {step():.6f}")


if __name__ == "__main__":
    main()
