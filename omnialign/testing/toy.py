"""Toy modalities, tiny and fast, for tests and docs: words, signals, and rows that pair them.

with toy.installed():
    space = build(parse_recipe(toy.recipe()))

Axes: n samples, L words or buckets, T numbers of a signal, w width.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from omnialign.contract import (
    Augmentation,
    Claim,
    Modality,
    Preview,
    Segment,
    Source,
    hookimpl,
)
from omnialign.encoder import Encoder, pad_and_stack
from omnialign.errors import ReadError
from omnialign.registry import Registry, registry

MAGIC = b"toy-signal\n"
MAX_FILE_BYTES = 2**20


@dataclass(frozen=True)
class WordBuckets:
    """A string to the bucket of each of its words, `(L,)` int64; 0 stands for no words."""

    num_buckets: int

    def __call__(self, sample: str) -> Tensor:
        words = sample.lower().split()
        hashed = [1 + zlib.crc32(word.encode()) % (self.num_buckets - 1) for word in words]
        return torch.tensor(hashed or [0])


class HashedWords(Encoder):
    """The mean of an embedding of each word."""

    def __init__(self, width: int = 16, num_buckets: int = 512) -> None:
        super().__init__()
        self.width = width
        self.preprocess = WordBuckets(num_buckets)
        self.collate = pad_and_stack
        self.table = nn.Embedding(num_buckets, width)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        mask = batch["mask"][..., None]
        return (self.table(batch["values"]) * mask).sum(1) / mask.sum(1)


class ToyWords(Modality[str]):
    """Words: a string as it is, of any length."""

    name = "toy_words"
    inline_strings = True
    templates = ("{}", "a signal that is {}")
    encoders: ClassVar[Mapping[str, str | type[Encoder]]] = {"hashed": HashedWords}
    default_encoder = "hashed"

    def read(self, source: Any) -> str:
        if not isinstance(source, str):
            raise ReadError(source, "toy_words wants a string; pass the words themselves")
        return source

    def claim(self, source: Any) -> Claim:
        return Claim.COULD if isinstance(source, str) else Claim.NO

    def preview(self, sample: str) -> Preview:
        return Preview("text/plain", sample.encode())

    def example_samples(self, n: int) -> list[str]:
        return [f"{k} high {'rising ' * k}calm" for k in range(n)]


@dataclass(frozen=True)
class Resample:
    """A signal `(T,)` to `num_points` numbers, evenly spaced over it."""

    num_points: int

    def __call__(self, sample: Tensor) -> Tensor:
        return nn.functional.interpolate(
            sample[None, None], self.num_points, mode="linear", align_corners=True
        )[0, 0]


class Mlp(Encoder):
    """Two layers over evenly spaced numbers of the signal."""

    def __init__(
        self,
        width: int = 16,
        num_points: int = 12,
        dropout: float = 0.0,
        window_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.width = width
        self.window = window_seconds
        self.preprocess = Resample(num_points)
        self.layers = nn.Sequential(
            nn.Linear(num_points, 32), nn.GELU(), nn.Dropout(dropout), nn.Linear(32, width)
        )

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch)


class Noise:
    """Adds normal noise."""

    def __init__(self, standard_deviation: float = 0.1) -> None:
        self._standard_deviation = standard_deviation

    def __call__(self, sample: Tensor, generator: torch.Generator) -> Tensor:
        return sample + self._standard_deviation * torch.randn(sample.shape, generator=generator)


class ToySignal(Modality[Tensor]):
    """A signal of one number a second: float32 `(T,)`.

    Files hold the line `toy-signal` and one number a line. In memory: a list of numbers or a tensor
    `(T,)`. No numbers, other words and non-finite numbers are refused.
    """

    name = "toy_signal"
    suffixes = frozenset({".toy"})
    long_input = "windows"
    templates = ("a signal that is {}", "{}")
    augmentations: ClassVar[Mapping[str, str | type[Augmentation[Any]]]] = {"noise": Noise}
    encoders: ClassVar[Mapping[str, str | type[Encoder]]] = {"mlp": Mlp}
    default_encoder = "mlp"

    def read(self, source: Any) -> Tensor:
        if isinstance(source, Tensor | list):
            return self._checked(source, torch.as_tensor(source, dtype=torch.float32))
        data = _first_bytes(source)
        if not data.startswith(MAGIC):
            raise ReadError(source, f"{self.name} wants a file that begins with 'toy-signal'")
        try:
            numbers = [float(line) for line in data[len(MAGIC) :].decode().splitlines()]
        except ValueError as error:
            raise ReadError(source, f"{self.name} wants one number a line: {error}") from None
        return self._checked(source, torch.tensor(numbers))

    def _checked(self, source: Any, sample: Tensor) -> Tensor:
        if sample.ndim != 1 or len(sample) == 0 or not sample.isfinite().all():
            raise ReadError(source, f"{self.name} wants a row of at least one finite number")
        return sample

    def claim(self, source: Any) -> Claim:
        if isinstance(source, bytes):
            return Claim.OWNS if source.startswith(MAGIC) else Claim.NO
        return super().claim(source)

    def segments(self, sample: Tensor, window: float) -> list[Segment[Tensor]]:
        length = max(1, int(min(window, len(sample))))
        starts = range(0, len(sample), length)
        return [Segment(sample[s : s + length], s, min(s + length, len(sample))) for s in starts]

    def preview(self, sample: Tensor) -> Preview:
        return Preview("text/plain", " ".join(f"{x:.2f}" for x in sample.tolist()).encode())

    def example_samples(self, n: int) -> list[Tensor]:
        return [torch.linspace(-1, k, 5 + k) for k in range(n)]


class ToyEcho(ToySignal):
    """A signal that was recorded backwards: as `toy_signal`, in `.echo` files."""

    name = "toy_echo"
    suffixes = frozenset({".echo"})

    def claim(self, source: Any) -> Claim:
        return Claim.NO if isinstance(source, bytes) else super().claim(source)


def _first_bytes(source: Any) -> bytes:
    try:
        if isinstance(source, str | PathLike):
            with Path(source).open("rb") as file:
                return file.read(MAX_FILE_BYTES)
        data = source if isinstance(source, bytes) else source.read(MAX_FILE_BYTES)
    except (OSError, AttributeError) as error:
        raise ReadError(source, f"wants a file, bytes or numbers: {error}") from None
    return data


def write_signal(path: Path, numbers: Sequence[float] | Tensor) -> Path:
    """Writes a `.toy` (or `.echo`) file and gives its path back."""
    path.write_bytes(MAGIC + "".join(f"{float(x)!r}\n" for x in numbers).encode())
    return path


LEVELS = {"low": -1.0, "middle": 0.0, "high": 1.0}
TRENDS = {"falling": -1.0, "flat": 0.0, "rising": 1.0}
WOBBLES = {"calm": 0.0, "trembling": 0.5, "shaking": 1.0}
KINDS = tuple(product(LEVELS, TRENDS, WOBBLES))


class ToyPairs(Source):
    """Signals, their echoes and two captions each, over all levels, trends and wobbles."""

    def __init__(
        self, num_rows: int = 54, seed: int = 0, split: Literal["train", "test"] = "train"
    ) -> None:
        self._num_rows = num_rows
        self._seed = [seed, int(split == "test")]

    @property
    def columns(self) -> Sequence[str]:
        return ["toy_words", "toy_signal", "toy_echo", "trend", "number"]

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        level, trend, wobble = KINDS[index % len(KINDS)]
        generator = np.random.default_rng([*self._seed, index])
        time = np.linspace(-1, 1, int(generator.integers(12, 20)))
        signal = LEVELS[level] + TRENDS[trend] * time
        signal += WOBBLES[wobble] * np.sin(8 * time) + 0.05 * generator.standard_normal(len(time))
        tensor = torch.from_numpy(signal).float()
        return {
            "toy_words": [f"{level} {trend} {wobble}", f"a {wobble} signal {trend} from {level}"],
            "toy_signal": tensor,
            "toy_echo": tensor.flip(0),
            "trend": trend,
            "number": index,
        }


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    return [ToyWords(), ToySignal(), ToyEcho()]


@hookimpl
def omnialign_sources() -> Mapping[str, type[Source] | str]:
    return {"toy_pairs": ToyPairs}


@contextmanager
def installed() -> Generator[Registry]:
    """Inside, the registry of what is installed has the toys too."""
    plugins = registry()
    before = plugins.plugins[:], plugins.modalities.copy(), plugins.sources.copy()
    plugin = plugins.add(sys.modules[__name__], "toy")
    assert plugin.problem is None, plugin.problem
    try:
        yield plugins
    finally:
        plugins.plugins, plugins.modalities, plugins.sources = before


def recipe(**train: Any) -> dict[str, Any]:
    """A recipe's table that aligns signals with words in seconds; `train` overrides `[train]`."""
    return {
        "space": {"dim": 16},
        "data": {
            "rows": {"source": {"name": "toy_pairs", "split": "train"}},
            "unseen": {"source": {"name": "toy_pairs", "split": "test", "num_rows": len(KINDS)}},
        },
        "pairs": [
            {"modalities": ["toy_signal", "toy_words"], "train": "rows", "test": "unseen"},
        ],
        "train": {
            "num_steps": 60,
            "batch_size": 27,
            "learning_rate": 0.01,
            "warmup_steps": 5,
            "checkpoint_every": 1000,
            "precision": "float32",
            "trackers": [],
            **train,
        },
    }
