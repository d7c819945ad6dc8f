"""How long `--help` and `import omnialign` take, beside an empty Python.

uv run python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python, nothing": [sys.executable, "-c", "pass"],
    "import omnialign": [sys.executable, "-c", "import omnialign"],
    "omnialign --help": [sys.executable, "-m", "omnialign", "--help"],
    "omnialign train --help": [sys.executable, "-m", "omnialign", "train", "--help"],
    "omnialign recipes": [sys.executable, "-m", "omnialign", "recipes"],
    "import torch": [sys.executable, "-c", "import torch"],
}
ROUNDS = 7


def main() -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        middle, least = statistics.median(values), min(values)
        print(f"{name:24} median {middle:.2f} s, best {least:.2f} s of {ROUNDS}")


if __name__ == "__main__":
    main()
