"""Approximate indices beside the exact scan: LanceDB's own, and USearch's graph.

uv run python benchmarks/approximate.py --rows 100000

Each is built over the same vectors, asked one query at a time for 50 candidates, which are compared
in float32. Processor time stands beside wall time: it says more on a machine that others use too.

Axes: n rows, D dim, q queries.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scan import BLOCK, clustered

from omnialign.index.approximate import Approximate
from omnialign.index.scan import Scan

K = 10
CANDIDATES = 50
Search = Callable[[np.ndarray, bool], np.ndarray]
"""Places found for one query (D,), with the filter of 10 % or without."""


def size(path: Path) -> float:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files) / 1e6


def ours(folder: Path, scan: Scan, kept: np.ndarray) -> tuple[Search, float]:
    """USearch's graph over the codes of the scan; where the filter leaves few rows, the scan."""
    index = Approximate.build(folder, scan)

    def search(query: np.ndarray, filtered: bool) -> np.ndarray:
        return index.search(query[None], K, kept if filtered else None).places[0]

    return search, size(folder)


def usearch(folder: Path, scan: Scan, kept: np.ndarray) -> tuple[Search, float]:
    """A graph over float16; under a filter more is asked for, as it knows of none."""
    Index: Any = importlib.import_module("usearch.index").Index
    vectors = scan.vectors()
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", expansion_search=256)
    for start in range(0, len(vectors), BLOCK):
        index.add(np.arange(start, min(start + BLOCK, len(vectors))), vectors[start:][:BLOCK])
    index.save(folder / "graph")

    def search(query: np.ndarray, filtered: bool) -> np.ndarray:
        found = index.search(query, CANDIDATES * (10 if filtered else 1)).keys.astype(np.int64)
        found = found[kept[found]] if filtered else found
        return found[np.argsort(-(vectors[found] @ query))[:K]]

    return search, size(folder)


def lance(folder: Path, scan: Scan, kept: np.ndarray, kind: str) -> tuple[Search, float]:
    """The table's own index, with its filter before the search."""
    lancedb: Any = importlib.import_module("lancedb")
    config = getattr(importlib.import_module("lancedb.index"), kind)(distance_type="dot")
    vectors = scan.vectors()
    dim = vectors.shape[1]

    def batches() -> Iterator[Any]:
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            flat = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dim)
            place = pa.array(np.arange(start, start + len(block)))
            chosen = pa.array(kept[start : start + BLOCK])
            yield pa.RecordBatch.from_arrays([place, chosen, flat], ["place", "kept", "vector"])

    schema = pa.schema(
        {"place": pa.int64(), "kept": pa.bool_(), "vector": pa.list_(pa.float32(), dim)}
    )
    table = lancedb.connect(folder).create_table("vectors", batches(), schema=schema)
    before = size(folder)
    table.create_index("vector", config=config)

    def search(query: np.ndarray, filtered: bool) -> np.ndarray:
        asked = (
            table.search(query)
            .select(["place", "_distance"])
            .nprobes(20)
            .refine_factor(CANDIDATES // K)
        )
        asked = asked.where("kept", prefilter=True) if filtered else asked
        return asked.limit(K).to_arrow()["place"].to_numpy()

    return search, size(folder) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])  # pyright: ignore
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()
    sides: dict[str, Callable[..., tuple[Search, float]]] = {
        "USearch, the scan's codes": ours,
        "LanceDB IVF_PQ": lambda *rest: lance(*rest, kind="IvfPq"),
        "LanceDB IVF_HNSW_SQ": lambda *rest: lance(*rest, kind="HnswSq"),
        "USearch, float16": usearch,
    }
    with tempfile.TemporaryDirectory() as folder:
        scan = Scan.open(Path(folder) / "scan", arguments.dim)
        for block in clustered(arguments.rows, arguments.dim, 1):
            scan.append(block)
        (queries,) = clustered(arguments.queries, arguments.dim, 3)
        kept = np.random.default_rng(2).random(len(scan)) < 0.1
        exact = [found.places for found in scan.search(queries, K, [None, kept])]

        def scanned(*_: Any) -> tuple[Search, float]:
            def search(query: np.ndarray, filtered: bool) -> np.ndarray:
                return scan.search(query[None], K, [kept if filtered else None])[0].places[0]

            return search, size(Path(folder) / "scan" / "codes.int8")

        for number, (name, build) in enumerate({"exact scan": scanned, **sides}.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            started, spent = time.perf_counter(), time.process_time()
            search, megabytes = build(place, scan, kept)
            wall, spent = time.perf_counter() - started, time.process_time() - spent
            print(f"{name:<26} built in {wall:6.1f} s ({spent:6.1f} s of processors),", end=" ")
            print(f"{megabytes:5.0f} MB", flush=True)
            for filtered in (False, True):
                started, spent = time.perf_counter(), time.process_time()
                found = [search(query, filtered) for query in queries]
                wall, spent = time.perf_counter() - started, time.process_time() - spent
                hits = [
                    len(set(a) & set(b)) / K
                    for a, b in zip(exact[int(filtered)], found, strict=True)
                ]
                print(
                    f"  {'filter of 10 %' if filtered else 'no filter':<16}"
                    f"recall {np.mean(hits):.3f}, {wall / len(queries) * 1e3:7.2f} ms a query "
                    f"({spent / len(queries) * 1e3:7.2f} ms of processors)",
                    flush=True,
                )


if __name__ == "__main__":
    main()
