"""The losses on a GPU beside the peers', in one run.

    uv run --with open_clip_torch --with inf-cl python benchmarks/gpu_losses.py
    uv run python benchmarks/gpu_losses.py --sides ours sigmoid --tune
    TRITON_INTERPRET=1 uv run python benchmarks/gpu_losses.py --smoke

First every side is compared with the whole matrix in float64, on fewer pairs; ours has to agree,
and a peer that does not run says why and is left out. Then sides take turns; beside each time
stands that of a large matrix product, taken just before it. `peak` is the share of its rate that a
side's useful operations reach: 4 U for InfoNCE, 3 U for the pairwise sigmoid, where U = 2 N² D. At
the end ours goes once through `--largest` pairs. Every figure is printed when it is there, so a
run that is stopped loses none.

`--tune` tries other blocks, one field after the other, and keeps the best: they belong into
`omnialign.losses.triton_tiles.BLOCKS`. `--smoke` shows on a CPU, in Triton's interpreter, that all
of this runs; its times mean nothing.

Axes: N pairs, D dim.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from omnialign.losses import info_nce, sigmoid, triton_tiles

LOGIT_SCALE, BIAS = 20.0, -10.0
SIDES = ("ours", "open_clip", "compiled open_clip", "Inf-CL", "sigmoid", "open_clip sigmoid")
OURS = ("ours", "sigmoid")
CALIBRATED = 8192
"""Rows, columns and depth of the product that stands for the peak."""
CHECKED = 4096
"""Pairs whose whole matrix in float64 is the measure of what is right."""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}
"""Of ours, as a share of the loss and of the largest derivative."""


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
        clip = torch.compile(clip, dynamic=False)  # the best it can do for one size
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


def measured(step: Callable[[], object], device: str) -> tuple[float, float]:
    """Seconds, and MiB at the peak beyond what stood before."""
    if device == "cpu":
        return seconds(step, device), float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    took = seconds(step, device)
    return took, (torch.cuda.max_memory_allocated() - before) / 2**20


def runnable(names: list[str], x: Tensor, y: Tensor) -> list[str]:
    """Those that run, each with a line on how far it is from float64; ours has to be near."""
    found: list[str] = []
    exact = [v.detach().double().requires_grad_() for v in (x, y)]
    for name in names:
        try:
            x.grad = y.grad = None
            value = side(name, x, y)()
        except Exception as error:  # compilers and packages made for another torch have many
            print(f"{name:<20} not run: {_reason(error)}", flush=True)
            continue
        expected = _whole(name, *exact)
        wanted = [expected.detach(), *torch.autograd.grad(expected, exact)]
        off = [
            float((one.double() - other).abs().max() / other.abs().max())
            for one, other in zip((value, x.grad, y.grad), wanted, strict=True)
            if one is not None
        ]
        print(f"{name:<20} off by {off[0]:.0e} (loss), {max(off[1:]):.0e} (gradients)", flush=True)
        if name in OURS and not max(off) < TOLERANCE[x.dtype]:
            raise SystemExit(f"{name} is wrong: more than {TOLERANCE[x.dtype]} from float64")
        found.append(name)
    return found


def _whole(name: str, x: Tensor, y: Tensor) -> Tensor:
    """The loss from the whole matrix."""
    S = LOGIT_SCALE * x @ y.T
    if "sigmoid" in name:
        signs = 2 * torch.eye(len(S), dtype=S.dtype, device=S.device) - 1
        return -logsigmoid(signs * (S + BIAS)).sum() / len(S)
    own = torch.arange(len(S), device=S.device)
    return (cross_entropy(S, own) + cross_entropy(S.T, own)) / 2


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def compare(names: list[str], x: Tensor, y: Tensor, rounds: int, size: int) -> None:
    """Times the sides in turn, and prints a line of each."""
    device = x.device.type
    steps: dict[str, Callable[[], Tensor]] = {}
    for name in names:
        step = side(name, x, y)
        try:
            step()  # compiles, and takes memory that is kept
            step()
        except Exception as error:
            print(f"{name:<20} not run: {_reason(error)}", flush=True)
        else:
            steps[name] = step
    taken: dict[str, list[float]] = {name: [] for name in steps}
    used: dict[str, float] = {}
    shares: dict[str, list[float]] = {name: [] for name in steps}
    unit = 2 * len(x) ** 2 * x.shape[1]
    for _ in range(rounds):
        for name, step in steps.items():
            peak = peak_operations(size, device, x.dtype)
            took, used[name] = measured(step, device)
            taken[name].append(took)
            shares[name].append(unit * (3 if "sigmoid" in name else 4) / took / peak)
    print(f"N = {len(x)}, D = {x.shape[1]}, {x.dtype}, {_described(device)}")
    for name in steps:
        print(
            f"{name:<20} {1000 * statistics.median(taken[name]):10.2f} ms  "
            f"{100 * statistics.median(shares[name]):5.1f} % of peak  "
            f"{used[name]:8.0f} MiB",
            flush=True,
        )


def _described(device: str) -> str:
    where = torch.cuda.get_device_name() if device == "cuda" else "Triton's interpreter on a CPU"
    return f"{where}, torch {torch.__version__}"


SHAPES = [(128, 128, 8), (128, 128, 4), (128, 256, 8), (64, 128, 4), (256, 128, 8), (64, 256, 4)]
STAGES = [(32, 2), (32, 3), (32, 4), (64, 2), (64, 3), (64, 4), (128, 2)]
TUNED: list[list[dict[str, int | None]]] = [
    [dict(zip(("rows", "columns", "num_warps"), shape, strict=True)) for shape in SHAPES],
    [dict(zip(("step", "num_stages"), stages, strict=True)) for stages in STAGES],
    [{"max_registers": registers} for registers in (None, 128, 168)],
    [{"group": group} for group in (4, 8, 16)],
]
"""What `--tune` tries of each field, by turns."""
TILES = [(4096, 4096), (8192, 8192), (16384, 8192), (8192, 16384), (16384, 16384)]


def tune(names: list[str], x: Tensor, y: Tensor, few: bool) -> None:
    """Prints the milliseconds of each block and tile, all `names` together, and at last the best.

    `few`: of each field one value.
    """
    kept = triton_tiles.BLOCKS, triton_tiles.TILE
    size = x.dtype.itemsize
    steps = [side(name, x, y) for name in names]

    def timed(block: triton_tiles.Block, tile: tuple[int, int]) -> float:
        triton_tiles.BLOCKS, triton_tiles.TILE = {size: block}, tile
        try:
            for step in steps:
                step()  # compiles
            taken = sum(min(seconds(step, x.device.type) for _ in range(3)) for step in steps)
        except Exception as error:  # Triton has many for a block that does not fit
            print(f"{'-':>9}     {tile} {block}: {type(error).__name__}", flush=True)
            return float("inf")
        print(f"{1000 * taken:9.2f} ms  {tile} {block}", flush=True)
        return taken

    block, tile = kept[0][size], kept[1]
    best = timed(block, tile)
    for values in TUNED:
        tried = [replace(block, **value) for value in values[: 1 if few else None]]
        times = {other: timed(other, tile) for other in tried if other != block} | {block: best}
        block = min(times, key=times.__getitem__)
        best = times[block]
    others = {other: timed(block, other) for other in TILES[: 1 if few else None]} | {tile: best}
    tile = min(others, key=others.__getitem__)
    print(f"best: {1000 * others[tile]:.2f} ms  {tile} {block}")
    triton_tiles.BLOCKS, triton_tiles.TILE = kept


def largest(name: str, x: Tensor, y: Tensor) -> None:
    """One step of many pairs."""
    step, losses = side(name, x, y), list[Tensor]()
    took, used = measured(lambda: losses.append(step()), x.device.type)
    print(
        f"{name:<20} N = {len(x)}: {took:.2f} s, {used:.0f} MiB, loss {losses[0]:.6f}", flush=True
    )


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
    names = [name for name in given.sides if not given.tune or name in OURS]
    names = runnable(names, *vectors(min(given.pairs, CHECKED), given.dim, device, x.dtype))
    if given.tune:
        tune(names, x, y, few=given.smoke)
        return
    compare(names, x, y, given.rounds, size)
    del x, y
    for name in [name for name in OURS if name in names]:
        largest(name, *vectors(given.largest, given.dim, device, getattr(torch, given.dtype)))


if __name__ == "__main__":
    main()
