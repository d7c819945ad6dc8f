"""Training from files: ours beside open_clip's training loop and sentence-transformers' trainer.

    uv run --with open_clip_torch --with sentence-transformers --with datasets \
        python benchmarks/end_to_end.py [--picture-size 640 --cache-mib 0]

The same towers (a small ConvNet, a two-layer text transformer), the same photographs and names, the
same batch, precision and learning rate. Each side reads, augments and trains in its own way: ours
crops the decoded picture that it keeps in memory, open_clip decodes and crops with PIL in loader
workers, sentence-transformers gets the same transform in its collator. Every side runs in a process
of its own; time counts from step `--warm-up` on. Ratios are medians over rounds.

The photographs are 144 pixels a side and cost little to decode. `--picture-size` enlarges them
first, for all sides; they stay smoother, and so a little quicker to decode, than a camera's.

Axes: n pairs, D dim.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data" / "grocery_photos"
LOG_EVERY = 5
SIDES = ("ours", "open_clip", "sentence-transformers")


def recipe(arguments: argparse.Namespace) -> Any:
    from omnialign.recipe import parse_recipe

    rows = {"data": "photos"}
    return parse_recipe(
        {
            "space": {"dim": 256},
            "towers": {
                "text": {"encoder": "transformer"},
                "image": {
                    "encoder": "conv",
                    "augmentations": ["crop"],
                    "decode": arguments.decode,
                },
            },
            "data": {"photos": {"source": {"name": "manifest", "path": str(arguments.data)}}},
            "pairs": [{"modalities": ["image", "text"], "train": rows}],
            "train": {
                "num_steps": arguments.steps,
                "batch_size": arguments.batch_size,
                "precision": "float32",
                "log_every": LOG_EVERY,
                "cache_mib": arguments.cache_mib,
                "num_workers": arguments.workers if arguments.side == "ours" else 0,
                "checkpoint_every": arguments.steps,
            },
        }
    )


class Clock:
    """Notes when some steps ended."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._times: dict[int, float] = {}

    def tick(self, step: int) -> None:
        self._times[step] = time.perf_counter()

    def samples_per_second(self) -> float:
        """From the first step that was noted at or after the warm-up to the last."""
        steps = [step for step in self._times if step >= self._arguments.warm_up]
        seconds = self._times[steps[-1]] - self._times[steps[0]]
        return (steps[-1] - steps[0]) * self._arguments.batch_size / seconds


def ours(arguments: argparse.Namespace, clock: Clock) -> None:
    from omnialign.engine import train

    with tempfile.TemporaryDirectory() as folder:
        train(recipe(arguments), folder, listener=lambda report: clock.tick(report.step))


def peers_data(arguments: argparse.Namespace, space: Any) -> tuple[Any, Callable[..., Any], Any]:
    """Rows of path and name, open_clip's training transform, and the text tower's pipeline."""
    from open_clip import image_transform  # pyright: ignore[reportMissingImports]

    from omnialign.data.rows import PairRows

    wanted = recipe(arguments)
    pairs = PairRows(wanted, wanted.pairs[0].train, ("image", "text"))
    rows = [
        (str(pairs.items(i, "image")[0].value), pairs.items(i, "text")[0].value)
        for i in range(len(pairs))
    ]
    size = wanted.tower("image").encoder.options["image_size"]
    transform: Any = image_transform(size, is_train=True)
    return rows, transform, space.tower("text").pipeline


def open_clip(arguments: argparse.Namespace, clock: Clock) -> None:
    import torch
    from open_clip import ClipLoss  # pyright: ignore[reportMissingImports]
    from open_clip_train.train import train_one_epoch  # pyright: ignore[reportMissingImports]
    from PIL import Image
    from torch.utils.data import DataLoader
    from transformers import BatchEncoding

    from omnialign.building import build

    space = build(recipe(arguments))
    rows, transform, texts = peers_data(arguments, space)

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return arguments.steps * arguments.batch_size

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            path, name = rows[index % len(rows)]
            return transform(Image.open(path)), texts.preprocess(name)

    def collate(examples: list[tuple[Any, Any]]) -> tuple[Any, Any]:
        pictures, names = zip(*examples, strict=True)
        return torch.stack(pictures), BatchEncoding(texts.collate(names))

    class Clip(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.space = space
            self.step = 0
            self.logit_scale = torch.nn.Parameter(torch.tensor(1 / 0.07).log())

        def forward(self, pictures: Any, names: Any) -> dict[str, Any]:
            clock.tick(self.step)
            self.step += 1
            return {
                "image_features": space.tower("image")(pictures),
                "text_features": space.tower("text")({**names}),
                "logit_scale": self.logit_scale.exp(),
            }

    loader: Any = DataLoader(
        Pictures(),
        batch_size=arguments.batch_size,
        shuffle=True,
        num_workers=arguments.workers,
        collate_fn=collate,
        drop_last=True,
    )
    loader.num_batches, loader.num_samples = len(loader), len(loader) * arguments.batch_size
    model = Clip()
    settings = SimpleNamespace(
        device="cpu",
        precision="fp32",
        distill=False,
        accum_freq=1,
        skip_scheduler=True,
        horovod=False,
        grad_clip_norm=1.0,
        batch_size=arguments.batch_size,
        rank=0,
        local_rank=0,
        world_size=1,
        log_every_n_steps=LOG_EVERY,
        log_local=False,
        wandb=False,
    )
    data = SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    train_one_epoch(model, {"train": data}, ClipLoss(), 0, optimizer, None, None, None, settings)
    clock.tick(model.step)


def sentence_transformers(arguments: argparse.Namespace, clock: Clock) -> None:
    import torch
    from datasets import Dataset  # pyright: ignore[reportMissingImports]
    from PIL import Image
    from sentence_transformers import (  # pyright: ignore[reportMissingImports]
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.base.modules import (  # pyright: ignore[reportMissingImports]
        InputModule,
    )
    from sentence_transformers.sentence_transformer.losses import (  # pyright: ignore[reportMissingImports]
        MultipleNegativesRankingLoss,
    )
    from transformers import TrainerCallback

    from omnialign.building import build

    space = build(recipe(arguments))
    rows, transform, texts = peers_data(arguments, space)

    class Towers(InputModule):
        def __init__(self) -> None:
            super().__init__()
            self.space = space

        @property
        def modalities(self) -> list[Any]:
            return ["text", "image"]

        def preprocess(self, inputs: Any, prompt: Any = None, **_: Any) -> dict[str, Any]:
            if str(inputs[0]).endswith(".jpg"):
                pictures = [transform(Image.open(path)) for path in inputs]
                return {"pixel_values": torch.stack(pictures), "modality": "image"}
            batch = texts.collate([texts.preprocess(name) for name in inputs])
            return {"input_ids": batch, "modality": "text"}

        def forward(self, features: Any, **_: Any) -> Any:
            if "pixel_values" in features:
                vectors = space.tower("image")(features["pixel_values"])
            else:
                vectors = space.tower("text")(features["input_ids"])
            return {**features, "sentence_embedding": vectors}

        def save(self, *_: Any, **__: Any) -> None: ...

    class Ticks(TrainerCallback):
        def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            clock.tick(state.global_step)

    model = SentenceTransformer(modules=[Towers()], device="cpu")
    needed = arguments.steps * arguments.batch_size
    chosen = [rows[i % len(rows)] for i in range(needed)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                max_steps=arguments.steps,
                per_device_train_batch_size=arguments.batch_size,
                dataloader_num_workers=arguments.workers,
                learning_rate=1e-3,
                save_strategy="no",
                report_to=[],
                logging_steps=LOG_EVERY,
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=Dataset.from_dict(
                {"anchor": [path for path, _ in chosen], "positive": [name for _, name in chosen]}
            ),
            loss=MultipleNegativesRankingLoss(model, scale=14.3),
            callbacks=[Ticks()],
        )
        trainer.train()


def resized(data: Path, size: int, folder: Path) -> None:
    """Writes the photographs of `data` into `folder`, `size` pixels on the longer side, as JPEGs of
    quality 90 under the same names and with the same metadata."""
    from PIL import Image

    (folder / "metadata.jsonl").write_bytes((data / "metadata.jsonl").read_bytes())
    for path in sorted(data.rglob("*.jpg")):
        picture = Image.open(path).convert("RGB")
        share = size / max(picture.size)
        shape = round(picture.width * share), round(picture.height * share)
        to = folder / path.relative_to(data)
        to.parent.mkdir(parents=True, exist_ok=True)
        picture.resize(shape, Image.Resampling.BICUBIC).save(to, quality=90)


def measured(side: str, arguments: argparse.Namespace) -> float:
    """Samples a second of one side, in a process of its own; ours as `omnialign train` sets it."""
    given = [
        f"--{key.replace('_', '-')}={value}"
        for key, value in vars(arguments).items()
        if key not in ("rounds", "side", "picture_size")
    ]
    done = subprocess.run(
        [sys.executable, __file__, *given, "--side", side],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **({"OMP_WAIT_POLICY": "PASSIVE"} if side == "ours" else {})},
    )
    if done.returncode:
        raise SystemExit(f"{side}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(arguments: argparse.Namespace) -> None:
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            found[side].append(measured(side, arguments))
    for side, rates in found.items():
        ratios = [a / b for a, b in zip(found["ours"], rates, strict=True)]
        print(
            f"{side:<24}{statistics.median(rates):7.0f} samples/s   "
            f"ours {statistics.median(ratios):.2f} of it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warm-up", type=int, default=20, help="a pass over the photographs")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cache-mib", type=int, default=512, help="of ours")
    parser.add_argument("--picture-size", type=int, help="pixels of the longer side")
    parser.add_argument("--decode", choices=("whole", "scaled"), default="whole", help="of ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    arguments = parser.parse_args()
    if arguments.side:
        clock = Clock(arguments)
        sides = (ours, open_clip, sentence_transformers)
        dict(zip(SIDES, sides, strict=True))[arguments.side](arguments, clock)
        print(json.dumps(clock.samples_per_second()))
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.picture_size:
            resized(arguments.data, arguments.picture_size, Path(folder))
            arguments.data = folder
        compare(arguments)


if __name__ == "__main__":
    main()
