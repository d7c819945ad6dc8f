"""Peak memory while a library is filled, by the number of files: flat, if all is well.

    uv run python benchmarks/indexing_memory.py [--files 10000 100000] [--workers 1]

Files are generated pictures of 16 pixels, all different; the model is the small one of the recipe
`image-text`, with random weights. Each number of files is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FILES_A_FOLDER = 1000
SIDE = 16


def pictures(folder: Path, count: int) -> None:
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for i in range(count):
        if i % FILES_A_FOLDER == 0:
            (folder / str(i // FILES_A_FOLDER)).mkdir(parents=True)
        pixels = draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / str(i // FILES_A_FOLDER) / f"{i}.png")


def indexed(folder: Path, workers: int) -> dict[str, Any]:
    """Fills a library in this process."""
    import psutil

    import omnialign as oa
    from omnialign.building import build
    from omnialign.recipe import load_recipe

    build(load_recipe("image-text", [])).save(folder / "model")
    index = oa.Index.create(folder / "library", folder / "model")
    before = psutil.Process().memory_info().rss
    started = time.perf_counter()
    report = index.add(folder / "pictures", workers=workers)
    return {
        "rows": report.rows,
        "seconds": time.perf_counter() - started,
        "before": before / 2**20,
        "peak": peak_mib(),
    }


def peak_mib() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        print(json.dumps(indexed(arguments.folder, arguments.workers)))
        return
    peaks: list[float] = []
    for count in arguments.files:
        with tempfile.TemporaryDirectory() as name:
            pictures(Path(name, "pictures"), count)
            command = [sys.executable, __file__, f"--workers={arguments.workers}"]
            done = subprocess.run(
                [*command, f"--folder={name}"], stdout=subprocess.PIPE, text=True, check=True
            )
        found = json.loads(done.stdout.splitlines()[-1])
        assert found["rows"] == count, found
        peaks.append(found["peak"])
        print(
            f"{count:7} files  {count / found['seconds']:6.0f} a second  "
            f"before {found['before']:5.0f} MiB  peak {found['peak']:5.0f} MiB  "
            f"{found['peak'] / peaks[0]:.2f} of the first"
        )


if __name__ == "__main__":
    main()
