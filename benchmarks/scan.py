"""Exact search beside reading the scanned bytes, and beside faiss' flat index of float32.

uv run --with faiss-cpu python benchmarks/scan.py                # 1M × 512 on the CPU
uv run python benchmarks/scan.py --device cuda --rows 10000000   # the vectors in float16 on a GPU

The sides are run in turn; times are medians over rounds, ratios medians of ratios within a round.

Axes: n rows, D dim, q queries.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnialign.index.scan import Scan

K = 10
BLOCK = 50_000


def clustered(n: int, dim: int, seed: int) -> Iterator[np.ndarray]:
    """Unit vectors in blocks, around centres as unequal in size as real topics are."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((2000, dim)).astype(np.float32)
    sizes = 1 / np.arange(1, len(centres) + 1) ** 0.7
    for start in range(0, n, BLOCK):
        count = min(BLOCK, n - start)
        chosen = centres[rng.choice(len(centres), count, p=sizes / sizes.sum())]
        vectors = chosen + 0.8 * rng.standard_normal((count, dim), np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: dict[str, list[float]], over: str, under: str) -> float:
    pairs = zip(seconds[over], seconds[under], strict=True)
    return statistics.median(a / b for a, b in pairs)


def report(title: str, seconds: dict[str, list[float]], queries: int = 1) -> None:
    print(title)
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"  {name:<34} {median * 1e3:9.2f} ms {queries / median:9.1f} queries/s")


def on_cpu(scan: Scan, queries: np.ndarray, rounds: int) -> None:
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(queries.shape[1])
    flat.add(scan.vectors())
    bytes_read = torch.ones(len(scan) * queries.shape[1] // 8, dtype=torch.int64)
    mask = np.random.default_rng(2).random(len(scan)) < 0.1
    one = queries[:1]

    sides = {
        "reading as many bytes": lambda: bytes_read.sum(),
        "one query": lambda: scan.search(one, K),
        "one query, filter of 10 %": lambda: scan.search(one, K, [mask]),
        "one query, faiss flat": lambda: flat.search(one, K),
    }
    seconds = in_turn(sides, rounds)
    report("one query", seconds)
    print(
        f"  {ratio(seconds, 'one query', 'reading as many bytes'):.2f} × reading; "
        f"{ratio(seconds, 'one query, faiss flat', 'one query'):.1f} × as fast as faiss; "
        f"with the filter {ratio(seconds, 'one query, filter of 10 %', 'one query'):.2f} × the time"
    )
    sides = {
        "batch": lambda: scan.search(queries, K),
        "batch, filter of 10 %": lambda: scan.search(queries, K, [mask]),
        "batch, faiss flat": lambda: flat.search(queries, K),
    }
    seconds = in_turn(sides, max(3, rounds // 3))
    report(f"{len(queries)} queries at once", seconds, len(queries))
    _, wanted = flat.search(queries, K)
    found = scan.search(queries, K)[0].places
    recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(wanted, found, strict=True)])
    print(
        f"  {ratio(seconds, 'batch, faiss flat', 'batch'):.2f} × the queries/s of faiss; "
        f"recall {recall:.4f}; "
        f"with the filter {ratio(seconds, 'batch, filter of 10 %', 'batch'):.2f} × the time"
    )


def on_device(scan: Scan, queries: np.ndarray, rounds: int, device: str) -> None:
    """Bandwidth is taken from a sum over a tensor of the size of the vectors in float16."""
    held = torch.ones((len(scan), queries.shape[1]), dtype=torch.float16, device=device)

    def read() -> None:
        held.view(torch.int64).amax().item()

    sides = {"reading as many bytes": read, "batch": lambda: scan.search(queries, K)}
    seconds = in_turn(sides, rounds)
    report(f"{len(queries)} queries at once on {device}", seconds, len(queries))
    share = ratio(seconds, "reading as many bytes", "batch")
    print(f"  {share:.1%} of the bandwidth that reading reaches")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])  # pyright: ignore
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device")
    parser.add_argument("--folder", type=Path, help="keeps the vectors for the next time")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        scan = Scan.open(folder, arguments.dim, arguments.device)
        started = time.perf_counter()
        missing = arguments.rows - len(scan)
        for block in clustered(missing, arguments.dim, 1):
            scan.append(block)
        print(
            f"{len(scan)} × {arguments.dim}, {torch.get_num_threads()} threads, top {K}; "
            f"{missing} rows made and written in {time.perf_counter() - started:.0f} s"
        )
        (queries,) = clustered(arguments.queries, arguments.dim, 3)
        if arguments.device is None:
            on_cpu(scan, queries, arguments.rounds)
        else:
            on_device(scan, queries, arguments.rounds, arguments.device)


if __name__ == "__main__":
    main()
