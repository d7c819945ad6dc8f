"""Served queries: many clients over HTTP, a minute, a library of 100,000 files of random vectors.

    uv run python benchmarks/serving.py [--run RUN] [--clients 32] [--rows 100000] [--seconds 60]

Latencies are those that clients see, in a process of their own. Each client asks again as soon as
it is answered; half of the questions are words that nobody asked before, a quarter are items
(`/similar`), a quarter words with a filter.

Axes: n rows, D dim.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 20_000
KINDS = 10


def make_library(folder: Path, run: str, num_rows: int) -> None:
    """Rows of no files: what is measured ends before any file is read."""
    import pyarrow as pa

    import omnialign as oa
    from omnialign.index.rows import schema

    index = oa.Index.create(folder, run)
    names = index.space.modalities
    rng = np.random.default_rng(0)
    for start in range(0, num_rows, BATCH):
        rows: list[dict[str, Any]] = []
        vectors = rng.standard_normal((min(BATCH, num_rows - start), index.dim), np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        for n, vector in enumerate(vectors, start):
            metadata = json.dumps({"label": f"kind {n % KINDS}", "number": n})
            rows.append(
                {
                    "id": f"{n:016x}-0",
                    "path": f"/nowhere/{n}.bin",
                    "content": f"{n:x}",
                    "signature": n,
                    "modality": names[n % len(names)],
                    "segment": 0,
                    "start_seconds": None,
                    "end_seconds": None,
                    "metadata": metadata,
                    "vector": vector,
                }
            )
        table = pa.Table.from_pylist(rows, schema=schema(index.dim))
        index.rows.replace([row["path"] for row in rows], table)
    index.rows.settle()


def small_run(folder: Path) -> str:
    """An untrained model of words and pictures, 512 dimensions wide."""
    from omnialign.building import build
    from omnialign.recipe import parse_recipe

    source = {"source": {"name": "scenes", "num_scenes": 1}}
    pairs = [{"modalities": ["image", "text"], "train": "none"}]
    build(parse_recipe({"space": {"dim": 512}, "data": {"none": source}, "pairs": pairs})).save(
        folder
    )
    return str(folder)


async def load(address: str, num_clients: int, num_rows: int, seconds: float) -> dict[str, Any]:
    """Asks until the time is over; seconds of each answer, and what went wrong."""
    import httpx

    taken: list[float] = []
    problems: Counter[str] = Counter()
    limits = httpx.Limits(max_connections=num_clients)
    async with httpx.AsyncClient(base_url=address, timeout=60, limits=limits) as client:
        until = time.perf_counter() + seconds

        async def ask(number: int) -> None:
            rng = np.random.default_rng(number)
            while time.perf_counter() < until:
                path, asked = _question(rng, num_rows)
                started = time.perf_counter()
                try:
                    answer = await client.get(path, params=asked)
                    if answer.status_code != 200:
                        problems[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    problems[type(error).__name__] += 1
                taken.append(time.perf_counter() - started)

        await asyncio.gather(*(ask(number) for number in range(num_clients)))
        metrics = (await client.get("/metrics")).text
    return {"taken": taken, "problems": dict(problems), "metrics": metrics}


def _question(rng: np.random.Generator, num_rows: int) -> tuple[str, dict[str, Any]]:
    kind = int(rng.integers(4))
    words = " ".join(f"{number:x}" for number in rng.integers(0, 2**20, 5))
    if kind == 0:
        return f"/similar/{int(rng.integers(num_rows)):016x}-0", {"k": 24}
    if kind == 1:
        return "/search", {"words": words, "where": f"label = 'kind {int(rng.integers(KINDS))}'"}
    return "/search", {"words": words}


def wait_for(address: str, server: subprocess.Popen[bytes]) -> None:
    import httpx

    while True:
        assert server.poll() is None, "the service ended"
        try:
            httpx.get(f"{address}/search", params={"words": "ready"}, timeout=300)
            return
        except httpx.ConnectError:
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=8766)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "library"
        make_library(library, given.run or small_run(folder / "run"), given.rows)
        address = f"http://127.0.0.1:{given.port}"
        command = ["-m", "omnialign", "serve", str(library), "--port", str(given.port)]
        server = subprocess.Popen([sys.executable, *command])
        try:
            wait_for(address, server)
            found = asyncio.run(load(address, given.clients, given.rows, given.seconds))
        finally:
            server.terminate()
            server.wait()
    taken = np.array(found["taken"]) * 1000
    sums = {
        line.split()[0]: float(line.split()[1])
        for line in found["metrics"].splitlines()
        if line.startswith(("omnialign_batch_size_sum", "omnialign_batch_size_count"))
    }
    batch = sums["omnialign_batch_size_sum"] / sums["omnialign_batch_size_count"]
    print(
        f"{given.clients} clients, {given.rows} rows, {given.seconds:.0f} s: "
        f"{len(taken) / given.seconds:.0f} answers a second, p50 {np.median(taken):.0f} ms, "
        f"p99 {np.percentile(taken, 99):.0f} ms, {batch:.1f} questions together, "
        f"errors: {found['problems'] or 0}"
    )


if __name__ == "__main__":
    main()
