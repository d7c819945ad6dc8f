"""Bytes, machines and cost of a library of 1M, 100M and 10B rows, from rows measured here.

uv run python benchmarks/sizing.py
uv run python benchmarks/sizing.py --queries-a-second 200 --vcpu-hour 0.05

Bytes of a row are measured on tables of `--rows` rows with paths and metadata, the scan on
`--scanned` vectors; all else is arithmetic, with prices that are placeholders for your own.

Axes: n rows, q queries, D dim.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import torch

from omnialign.index.rows import schema
from omnialign.index.scan import Scan
from omnialign.index.store import Store, open_store

SIZES = {"1M": 10**6, "100M": 10**8, "10B": 10**10}
GIB = 2**30
HOURS_A_MONTH = 730
BATCH = 64
TOGETHER = f"{BATCH} queries together"
LITE = "milvus lite"


def rows_of(start: int, n: int, dim: int, rng: np.random.Generator) -> Any:
    """Rows as photographs have them: a path of about 60 characters, five columns of metadata."""
    names = [f"{start + i:012d}" for i in range(n)]
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    digests = [blake2b(name.encode(), digest_size=16).hexdigest() for name in names]
    columns: dict[str, Any] = {
        "id": [f"{digest[:16]}-0" for digest in digests],
        "path": [f"/collection/photographs/{d[:2]}/{d[2:4]}/IMG_{d[:20]}.jpg" for d in digests],
        "content": [f"image:{digest}" for digest in digests],
        "signature": [int(digest[:15], 16) for digest in digests],
        "modality": ["image"] * n,
        "segment": [0] * n,
        "start_seconds": [None] * n,
        "end_seconds": [None] * n,
        "metadata": [
            json.dumps(
                {
                    "label": f"class {int(digest[:2], 16)}",
                    "camera": f"model {int(digest[2:4], 16) % 40}",
                    "year": 2000 + int(digest[4:6], 16) % 26,
                    "checked": int(digest[6], 16) % 2 == 0,
                    "caption": f"a photograph of {digest[:8]} beside {digest[8:24]}",
                }
            )
            for digest in digests
        ],
        "vector": pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), dim),
    }
    return pa.table(columns).cast(schema(dim))


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def fill(store: Store, n: int, dim: int) -> Any:
    rng = np.random.default_rng(0)
    rows = store.rows("rows", dim)
    for start in range(0, n, 1000):
        rows.replace([], rows_of(start, min(1000, n - start), dim, rng))
    rows.settle()
    return rows


def lance_bytes(n: int, dim: int) -> dict[str, float]:
    """Bytes a row: of the table, and of the copy of it that is scanned."""
    with TemporaryDirectory() as folder:
        rows = fill(open_store(f"{folder}/library"), n, dim)
        former = timedelta(seconds=1)
        time.sleep(former.total_seconds() + 0.5)
        lancedb.connect(f"{folder}/library").open_table("rows").optimize(cleanup_older_than=former)
        table = bytes_below(Path(folder))
        rows.nearest(np.eye(1, dim, dtype=np.float32), 1, ["image"])
        copy = bytes_below(Path(folder)) - table
    return {"lance table": table / n, "copy that is scanned": copy / n}


@contextmanager
def milvus_lite(folder: Path) -> Generator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--data-dir", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "milvus_lite", "server", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def milvus_bytes(n: int, dim: int) -> dict[str, float]:
    """Bytes a row on the disk of Milvus Lite."""
    with TemporaryDirectory() as folder:
        with milvus_lite(Path(folder) / "data") as address:
            fill(open_store(f"milvus://{address}/library"), n, dim)
        return {LITE: bytes_below(Path(folder)) / n}


def seconds_a_row(n: int, dim: int) -> dict[str, float]:
    """vCPU-seconds that a query takes for each row: alone, and in a batch."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as folder:
        scan = Scan.open(Path(folder), dim)
        for start in range(0, n, 10_000):
            block = rng.standard_normal((min(10_000, n - start), dim)).astype(np.float32)
            scan.append(block / np.linalg.norm(block, axis=1, keepdims=True))
        queries = rng.standard_normal((BATCH, dim)).astype(np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        found: dict[str, float] = {}
        for name, q in (("one query", 1), (TOGETHER, BATCH)):
            scan.search(queries[:q], 10)
            taken: list[float] = []
            for _ in range(5):
                started = time.process_time()
                scan.search(queries[:q], 10)
                taken.append(time.process_time() - started)
            found[name] = min(taken) / (n * q)
    return found


def floats_seconds_a_row(n: int, dim: int) -> dict[str, float]:
    """The same for products of float32: what an exact search without codes takes."""
    rng = np.random.default_rng(0)
    vectors = torch.from_numpy(rng.standard_normal((n, dim)).astype(np.float32))
    queries = torch.from_numpy(rng.standard_normal((BATCH, dim)).astype(np.float32))
    taken: list[float] = []
    for _ in range(5):
        started = time.process_time()
        for block in vectors.split(10_000):
            torch.topk(queries @ block.T, 10)
        taken.append(time.process_time() - started)
    return {f"float32, {TOGETHER}": min(taken) / (n * BATCH)}


def sized(n: int, measured: Mapping[str, float], given: argparse.Namespace) -> dict[str, str]:
    """What `n` rows take, scanned from a copy on one machine, and held by Milvus."""
    rate = given.queries_a_second * n
    table, copy = n * measured["lance table"], n * measured["copy that is scanned"]
    codes = n * (given.dim + 4)
    scan = Need.of(codes, rate * measured[TOGETHER], table + copy, given)
    floats = n * 4 * given.dim * given.milvus_overhead
    milvus = Need.of(floats, rate * measured[f"float32, {TOGETHER}"], n * measured[LITE], given)
    alone = n * measured["one query"] / min(given.machine_vcpus, max(2, scan.vcpus))
    one = scan.machines == 1
    return {
        "hours to embed, one machine": f"{n / given.items_a_second / 3600:,.0f}",
        "**a folder or object storage**: table": gib(table),
        "its copy on a local disk": gib(copy),
        "of that, codes that every pass reads": gib(codes),
        "vCPUs": f"{scan.vcpus:,}" if one else "more than one machine has",
        "memory": gib(scan.memory) if one else "–",
        "one query alone": f"{1000 * alone:,.0f} ms" if one else "–",
        "cost a month": f"{scan.cost:,.0f}" if one else "–",
        "**Milvus, exact**: vectors": gib(floats),
        "vCPUs of its query nodes": f"{milvus.vcpus:,}",
        "memory of its query nodes": gib(milvus.memory),
        "query nodes": f"{milvus.machines:,}",
        "cost a month of storage and query nodes": f"{milvus.cost:,.0f}",
    }


@dataclass(frozen=True)
class Need:
    """Of one way to answer; `cost` is that of a month."""

    vcpus: int
    memory: float
    machines: int
    cost: float

    @classmethod
    def of(cls, held: float, vcpus: float, stored: float, given: argparse.Namespace) -> Need:
        memory = held / given.filled
        whole = max(2, math.ceil(vcpus))
        machines = max(
            math.ceil(memory / (given.machine_gib * GIB)), math.ceil(whole / given.machine_vcpus)
        )
        cost = (
            whole * given.vcpu_hour * HOURS_A_MONTH
            + memory / GIB * given.memory_gib_month
            + stored / GIB * given.storage_gib_month
        )
        return cls(whole, memory, machines, cost)


def gib(number: float) -> str:
    return f"{number / GIB:,.1f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--scanned", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries-a-second", type=float, default=10)
    parser.add_argument("--machine-gib", type=float, default=256, help="memory of a machine")
    parser.add_argument("--machine-vcpus", type=int, default=32)
    parser.add_argument("--filled", type=float, default=0.75, help="of the memory, with vectors")
    parser.add_argument("--milvus-overhead", type=float, default=1.2, help="of a vector's bytes")
    parser.add_argument("--items-a-second", type=float, default=200, help="embedded by a machine")
    parser.add_argument("--storage-gib-month", type=float, default=0.02)
    parser.add_argument("--memory-gib-month", type=float, default=2.0)
    parser.add_argument("--vcpu-hour", type=float, default=0.03)
    given = parser.parse_args()
    measured = lance_bytes(given.rows, given.dim) | milvus_bytes(given.rows, given.dim)
    print(f"measured on {given.rows:,} rows of {given.dim} numbers, {4 * given.dim} bytes\n")
    print("| of one row | bytes |\n|---|--:|")
    for name, number in measured.items():
        print(f"| {name} | {number:,.0f} |")
    torch.set_num_threads(1)
    scan = seconds_a_row(given.scanned, given.dim)
    scan |= floats_seconds_a_row(given.scanned, given.dim)
    print(f"\nmeasured on {given.scanned:,} vectors, in processor time of one thread\n")
    print("| scan | rows a second and vCPU, for each query |\n|---|--:|")
    for name, seconds in scan.items():
        print(f"| {name} | {1 / seconds / 1e6:,.0f} million |")
    measured |= scan
    columns = {name: sized(n, measured, given) for name, n in SIZES.items()}
    print(f"\n{vars(given)}\n\n| rows | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    for row in next(iter(columns.values())):
        print(f"| {row} | {' | '.join(column[row] for column in columns.values())} |")


if __name__ == "__main__":
    main()
