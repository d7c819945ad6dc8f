"""Indexing over a Ray cluster: one node, two nodes, and the local engine, a core each.

    OMP_NUM_THREADS=1 uv run --no-sync python benchmarks/ray_indexing.py

A node is a raylet with one CPU whose processes, readers and encoder alike, are pinned to one core;
the local engine and its reader are pinned to one core too. What is counted is files a second from
the first fragment to the last, so that starting (also measured) is left out; of the local engine,
all of its time. Nothing else should run meanwhile: two nodes take two cores.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from omnialign.building import build
from omnialign.index import Index, ray_engine
from omnialign.index.ray_session import import_ray
from omnialign.recipe import parse_recipe

CORES = sorted(os.sched_getaffinity(0))


def save_model(folder: Path) -> Path:
    """Pictures as ViT-S sees them, of 224 pixels; the weights are random."""
    source = {"name": "scenes", "modalities": ["image"], "num_scenes": 4}
    encoder = {"name": "vit", "image_size": 224, "patch_size": 16, "width": 384, "depth": 12}
    recipe = {
        "space": {"dim": 384},
        "data": {"scenes": {"source": source}},
        "pairs": [{"modalities": ["image", "text"], "train": "scenes"}],
        "towers": {"image": {"encoder": {**encoder, "num_heads": 6}}},
        "train": {"num_steps": 1, "batch_size": 4},
    }
    torch.manual_seed(0)
    build(parse_recipe(recipe)).save(folder)
    return folder


def draw(folder: Path, num: int) -> Path:
    folder.mkdir()
    for i in range(num):
        noise = np.random.default_rng(i).integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480)).save(folder / f"{i}.jpg", quality=90)
    return folder


class Clock:
    """Called with files done and of all."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.told: list[tuple[float, int]] = []

    def __call__(self, done: int, total: int) -> None:
        self.told.append((time.perf_counter(), done))

    def say(self, side: str) -> float:
        (first, some), (last, every) = self.told[0], self.told[-1]
        rate = (every - some) / (last - first)
        start = first - self.began
        print(f"{side:24} {rate:6.1f} files/s, the first fragment after {start:.0f} s", flush=True)
        return rate


def pin(process: psutil.Process, core: int) -> None:
    for one in (process, *process.children(recursive=True)):
        one.cpu_affinity([core])


def local(model: Path, media: Path, folder: Path) -> float:
    pin(psutil.Process(), CORES[0])
    try:
        index, clock = Index.create(folder, model), Clock()
        index.add(media, workers=1, batch_size=32, progress=clock)
        clock.told = [(clock.began, 0), clock.told[-1]]  # it tells of files as it begins to read
        return clock.say("local engine, one core")
    finally:
        psutil.Process().cpu_affinity(CORES)


def over_cluster(model: Path, media: Path, folder: Path, num_nodes: int) -> float:
    ray = import_ray()
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    nodes: list[Any] = [
        cluster.add_node(num_cpus=1, include_dashboard=False) for _ in range(num_nodes)
    ]
    for node, core in zip(nodes, CORES, strict=False):
        pin(psutil.Process(node.all_processes["raylet"][0].process.pid), core)
    try:
        index, clock = Index.create(folder, model), Clock()
        index.add(media, engine="ray", ray_address=cluster.address, batch_size=32, progress=clock)
        return clock.say(f"Ray, {num_nodes} node(s) of one core")
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    num = parser.parse_args().files
    warnings.simplefilter("ignore")
    ray_engine.FILES_AT_ONCE = ray_engine.ROWS_AT_ONCE = 32
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, media = save_model(folder / "model"), draw(folder / "media", num)
        alone = local(model, media, folder / "local")
        one = over_cluster(model, media, folder / "one", 1)
        two = over_cluster(model, media, folder / "two", 2)
    print(f"two nodes to one: {two / one:.2f}; one node to the local engine: {one / alone:.2f}")


if __name__ == "__main__":
    main()
