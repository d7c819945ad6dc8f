"""Seconds from the start of `omnialign search` to its first hit, beside those of `import torch`.

    uv run python benchmarks/first_hit.py [--rows 100000] [--rounds 5]

The library has random vectors of 512 dimensions under names of files that are not there, and the
small model of the recipe `image-text` with random weights. Each measurement is a process of its
own; both sides take turns, after one of each that is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

DIM = 512
BLOCK = 10_000


def fill(folder: Path, count: int) -> Path:
    """A library of `count` rows."""
    import numpy as np
    import pyarrow as pa

    import omnialign as oa
    from omnialign.building import build
    from omnialign.index.rows import schema
    from omnialign.recipe import load_recipe

    build(load_recipe("image-text", [f"space.dim={DIM}"])).save(folder / "model")
    index = oa.Index.create(folder / "library", folder / "model")
    draw = np.random.default_rng(0)
    for start in range(0, count, BLOCK):
        vectors = draw.standard_normal((BLOCK, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows: list[dict[str, Any]] = [
            {
                "id": f"{start + i:016x}-0",
                "path": f"/photos/{(start + i) // 1000}/{start + i}.jpg",
                "content": f"{start + i:032x}",
                "signature": start + i,
                "modality": "image",
                "segment": 0,
                "metadata": '{"label": "a"}',
                "vector": vectors[i],
            }
            for i in range(BLOCK)
        ]
        index.rows.replace([], pa.Table.from_pylist(rows, schema=schema(DIM)))
    index.rows.settle()
    return folder / "library"


def seconds(*command: str) -> float:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        library = fill(Path(name), arguments.rows)
        importing = (sys.executable, "-c", "import torch")
        searching = (sys.executable, "-m", "omnialign", "search", str(library), "a red circle")
        for command in (importing, searching):
            seconds(*command)
        rounds = [(seconds(*importing), seconds(*searching)) for _ in range(arguments.rounds)]
    torch, search = (statistics.median(side) for side in zip(*rounds, strict=True))
    beyond = statistics.median(b - a for a, b in rounds)
    print(
        f"{arguments.rows} rows: import torch {torch:.2f} s, the first hit {search:.2f} s, "
        f"{beyond:.2f} s beyond it (medians of {arguments.rounds})"
    )


if __name__ == "__main__":
    main()
