"""Samples a second of loading alone, without a model, beside open_clip's and a plain PIL pipeline.

    uv run --with open_clip_torch python benchmarks/loader.py
    uv run python benchmarks/loader.py --photos my/photos --workers 4 --sides ours "plain PIL"
    uv run python benchmarks/loader.py --only text recordings

Pictures become 224 × 224 inputs in batches of 64: the photos of a folder, and generated JPEGs of
640 × 480 and 1920 × 1080. Every side reads the same files in a torch `DataLoader` with as many
workers, in turn with the others; medians over the rounds, after one that warms up. Ours hand uint8
over, which the encoder makes float; the others hand over normalised floats.

Texts: places processed to places that hold data, and the time of a step, with length buckets and
without. Recordings: a window drawn from a long file, against the same from the whole file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omnialign.data.buckets import Padding, length_buckets
from omnialign.data.pipeline import Pipeline
from omnialign.registry import registry

DATA = Path(__file__).parents[1] / "../shared/data"
SIZE, BATCH = 224, 64
PEER = "open_clip eval"
SIDES = (
    "ours",
    "ours scaled",
    "ours crop",
    "ours crop scaled",
    PEER,
    "open_clip train",
    "plain PIL",
)
Input = Callable[[Path], Tensor]


class Files(Dataset[Tensor]):
    """Inputs of files."""

    def __init__(self, paths: Sequence[Path], make: Input) -> None:
        self.paths, self.make = paths, make

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        torch.set_num_threads(1)
        return self.make(self.paths[index])


def our_input(pipeline: Pipeline, path: Path) -> Tensor:
    """As a run makes it, with a fixed seed."""
    return pipeline.training_input(pipeline.open(path), torch.Generator().manual_seed(0))[0]


def side(name: str) -> Input:
    if name.startswith("ours"):
        plugins = registry()
        encoder = plugins.encoder("image", "torchvision")(image_size=SIZE, fit="crop")
        crop = plugins.augmentation("image", "crop")(scale=(0.9, 1.0), ratio=(0.75, 4 / 3))
        augmentations = (crop,) if "crop" in name else ()
        zoom = crop.zoom if augmentations else 1.0
        return partial(
            our_input,
            Pipeline(
                plugins.modality("image"),
                encoder.preprocess,
                encoder.collate,
                None,
                "native",
                augmentations,
                SIZE * zoom if "scaled" in name else None,
            ),
        )
    if name == "plain PIL":
        return plain_pil
    from open_clip import image_transform  # pyright: ignore[reportMissingImports]

    return partial(opened, image_transform(SIZE, is_train=name.endswith("train")))


def opened(transform: Any, path: Path) -> Tensor:
    with Image.open(path) as picture:
        return transform(picture)


def plain_pil(path: Path) -> Tensor:
    with Image.open(path) as picture:
        square = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float().div_(127.5).sub_(1)


def generated(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEGs of coloured clouds with some grain, quality 90."""
    random = np.random.default_rng(0)
    paths: list[Path] = []
    for k in range(count):
        coarse = random.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8)
        clouds = np.asarray(
            Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        )
        grain = random.normal(0, 6, (height, width, 1))
        picture = Image.fromarray((clouds + grain).clip(0, 255).astype(np.uint8))
        paths.append(folder / f"{width}-{k}.jpg")
        picture.save(paths[-1], quality=90)
    return paths


def pictures(name: str, paths: list[Path], arguments: argparse.Namespace) -> None:
    loaders = {
        s: DataLoader(
            Files(paths, side(s)),
            BATCH,
            num_workers=arguments.workers,
            persistent_workers=arguments.workers > 0,
        )
        for s in arguments.sides
    }
    rates: dict[str, list[float]] = {s: [] for s in loaders}
    for round_ in range(arguments.rounds + 1):
        for s, loader in loaders.items():
            started = time.perf_counter()
            for _ in loader:
                pass
            if round_:
                rates[s].append(len(paths) / (time.perf_counter() - started))
    print(f"{name}: {len(paths)} files, {arguments.workers} workers")
    for s, values in rates.items():
        line = f"  {s:<18} {statistics.median(values):8.0f} samples a second"
        for peer in (PEER, "plain PIL"):
            if peer in rates and peer != s:
                ratio = statistics.median(a / b for a, b in zip(values, rates[peer], strict=True))
                line += f"  {ratio:5.2f} of {peer}"
        print(line, flush=True)


def texts(arguments: argparse.Namespace) -> None:
    rows = [
        json.loads(line)
        for path in sorted(arguments.data.glob("*/metadata.jsonl"))
        for line in path.read_text("utf-8").splitlines()
    ]
    captions = [text for row in rows for text in (row.get("texts") or [row["text"]])]
    encoder = registry().encoder("text", "transformer")()
    order = np.random.default_rng(0).permutation(len(captions))
    for size in (32, 256):
        batches = [
            encoder.collate([encoder.preprocess(captions[i]) for i in order[k : k + size]])
            for k in range(0, min(len(order), 20 * size), size)
        ]
        padding, ratios = Padding(), list[float]()
        for batch in batches:
            started = time.perf_counter()
            encoder(batch).sum().backward()
            middle = time.perf_counter()
            parts = length_buckets(batch, "cpu", padding)
            torch.cat([encoder(part) for _, part in parts]).sum().backward()
            ratios.append((time.perf_counter() - middle) / (middle - started))
        whole = sum(batch["mask"].numel() for batch in batches) / padding.real
        print(
            f"captions in batches of {size}: {whole:.2f} places processed for a real one, "
            f"{padding.ratio:.2f} in buckets; time of a step {statistics.median(ratios):.2f}",
            flush=True,
        )


def long_files(folder: Path) -> list[tuple[str, str, Path]]:
    """Five minutes of stereo noise at 48 kHz, and one of drifting noise at 25 frames a second."""
    import av
    import soundfile

    random = np.random.default_rng(0)
    made: list[tuple[str, str, Path]] = []
    noise = random.uniform(-0.3, 0.3, (300 * 48_000, 2)).astype(np.float32)
    for suffix in ("wav", "flac"):
        made.append(("audio", f"{suffix}, 5 min", folder / f"long.{suffix}"))
        soundfile.write(made[-1][2], noise, 48_000)
    ground = random.integers(0, 256, (60, 420, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    for seconds in (2, 10):
        made.append(
            ("video", f"mp4, 1 min, key frame every {seconds} s", folder / f"{seconds}.mp4")
        )
        with av.open(made[-1][2], "w") as file:
            options = {"g": str(25 * seconds), "preset": "veryfast"}
            stream = file.add_stream("libx264", rate=25, width=640, height=360, options=options)
            stream.pix_fmt = "yuv420p"
            for t in range(60 * 25):
                view = np.ascontiguousarray(ground[40:400, t : t + 640])
                file.mux(stream.encode(av.VideoFrame.from_ndarray(view)))
            file.mux(stream.encode(None))
    return made


def recordings(arguments: argparse.Namespace, folder: Path) -> None:
    plugins = registry()
    for name, what, path in long_files(folder):
        modality = plugins.modality(name)
        encoder = plugins.encoder(name, modality.default_encoder)()
        pipeline = Pipeline(
            modality, encoder.preprocess, encoder.collate, encoder.window, "windows"
        )
        started = time.perf_counter()
        kept = pipeline.open(path)
        first = time.perf_counter() - started
        ratios: list[float] = []
        ours: list[float] = []
        for seed in range(arguments.rounds * 3):
            started = time.perf_counter()
            stretch, _ = pipeline.training_input(kept, torch.Generator().manual_seed(seed))
            middle = time.perf_counter()
            read = pipeline.read(path)
            whole, _ = pipeline.training_input(read, torch.Generator().manual_seed(seed))
            ours.append(middle - started)
            ratios.append(ours[-1] / (time.perf_counter() - middle))
            assert torch.equal(stretch, whole)
        print(
            f"{what}: a window from the stretch {statistics.median(ours) * 1e3:.0f} ms, "
            f"1/{1 / statistics.median(ratios):.0f} of reading all (opening, once: "
            f"{first * 1e3:.0f} ms)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--photos", type=Path, help="default: the grocery photos in --data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=int, default=256, help="of each set")
    parser.add_argument("--sides", nargs="*", default=SIDES)
    parser.add_argument("--only", nargs="*", default=["photos", "generated", "text", "recordings"])
    arguments = parser.parse_args()
    only, count = arguments.only, arguments.pictures
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as made:
        if "photos" in only:
            folder = arguments.photos or arguments.data / "grocery_photos/images"
            pictures("photos", sorted(folder.glob("*.jp*g"))[:count], arguments)
        if "generated" in only:
            for width, height in ((640, 480), (1920, 1080)):
                name = f"{width} × {height}"
                pictures(name, generated(Path(made), width, height, count), arguments)
        if "text" in only:
            texts(arguments)
        if "recordings" in only:
            recordings(arguments, Path(made))


if __name__ == "__main__":
    main()
