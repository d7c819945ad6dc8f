"""Training steps in bf16 autocast against float32, both sides in turn in one run.

uv run python benchmarks/precision.py

Axes: n samples of a batch.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from omnialign.registry import registry

ENCODERS = (("image", "conv", 64), ("audio", "conv", 32), ("video", "frames", 32))
ROUNDS = 7


def step(encoder: Any, batch: Any, bf16: bool) -> float:
    """Seconds of one forward and backward."""
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = encoder(batch)
    features.float().square().mean().backward()
    return time.perf_counter() - started


def main() -> None:
    print(f"{torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}")
    for modality, name, n in ENCODERS:
        encoder = registry().encoder(modality, name)()
        samples = registry().modality(modality).example_samples(n)
        batch = encoder.collate([encoder.preprocess(sample) for sample in samples])
        for bf16 in (False, True):
            step(encoder, batch, bf16)
        pairs = [(step(encoder, batch, False), step(encoder, batch, True)) for _ in range(ROUNDS)]
        plain = statistics.median(a for a, _ in pairs)
        ratio = statistics.median(b / a for a, b in pairs)
        print(
            f"{modality} {name}, {n} samples: float32 {plain * 1000:.0f} ms, bf16 {ratio:.2f} of it"
        )


if __name__ == "__main__":
    main()
