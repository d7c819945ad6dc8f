"""A step in micro-batches beside the whole batch at once and beside sentence-transformers.

    uv run --with sentence-transformers python benchmarks/gradient_cache.py
    uv run --with sentence-transformers python benchmarks/gradient_cache.py --keep-memory
    uv run python benchmarks/gradient_cache.py --memory      # a batch of 1,024 and of 32,768

A two-layer BERT with dropout embeds both sides of 512 pairs of 64 tokens. Each round runs every
side once; ratios are medians over rounds of two times in one round. `--keep-memory` lets all sides
keep the memory that they free, as our trainer does and theirs does not.

Axes: n pairs, L tokens, D dim.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

NUM_PAIRS, NUM_TOKENS = 512, 64
SCALE = 20.0


def bert() -> Any:
    """A two-layer BERT as a module of token ids `(n, L)` to unit vectors `(n, D)`."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=2000,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
    )
    model = BertModel(config, add_pooling_layer=False)
    model.train()
    return model


def embed(model: Any, ids: Any, mask: Any) -> Any:
    import torch

    states = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return torch.nn.functional.normalize(states.mean(1), dim=-1)


def sides(micro_batch: int) -> dict[str, Callable[[], Any]]:
    """One forward and backward each, from the same weights and tokens."""
    import torch

    from omnialign.data.loader import PairBatch, SideBatch
    from omnialign.engine.gradient_cache import GradientCache
    from omnialign.engine.objective import places
    from omnialign.losses import info_nce

    model = bert()
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(5, 2000, (NUM_PAIRS, NUM_TOKENS), generator=generator) for _ in range(2))
    mask = torch.ones_like(x)

    class Towers(torch.nn.Module):
        """What the cache asks of an objective, with one tower for both sides."""

        group = None
        space = SimpleNamespace(device=torch.device("cpu"))

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def embed(self, batches: Any, place: Any, key: Any) -> Any:
            torch.manual_seed(hash((*key, *place)) % 2**31)
            micro = batches[place.pair][place.micro_batch]
            ids = micro.sides[place.side].inputs
            return embed(self.model, ids, torch.ones_like(ids))

        def loss(self, vectors: Any, batches: Any, measure: bool) -> Any:
            del measure
            x, y = (
                torch.cat([vectors[place] for place in places(batches) if place.side == side])
                for side in (0, 1)
            )
            return info_nce(x, y, SCALE), []

    zeros = torch.zeros(NUM_PAIRS, dtype=torch.int64)
    whole = PairBatch([SideBatch(x, zeros), SideBatch(y, zeros)], None, [])
    starts = range(0, NUM_PAIRS, micro_batch)
    batches = [[whole.rows(slice(start, start + micro_batch)) for start in starts]]
    towers: Any = Towers()
    measured = GradientCache(towers, 0)
    graph = sum(measured.bytes_of(place, batches, (0, 0, 0)) for place in places(batches))

    def plain() -> None:
        info_nce(embed(model, x, mask), embed(model, y, mask), SCALE).backward()

    def cached(share: float) -> Callable[[], Any]:
        cache = GradientCache(towers, int(graph * share))
        cache(batches, (0, 0, 0))
        return lambda: cache(batches, (0, 1, 0))

    found: dict[str, Callable[[], Any]] = {
        "whole batch": plain,
        "no graph kept": cached(0.0),
        "half of the graphs kept": cached(0.5),
        "all graphs kept": cached(1.01),
    }
    try:
        from sentence_transformers.sentence_transformer.losses import (  # pyright: ignore[reportMissingImports]
            CachedMultipleNegativesRankingLoss,
        )
    except ImportError:
        return found

    class Sentences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: Any) -> Any:
            vectors = embed(self.model, features["input_ids"], features["attention_mask"])
            return {**features, "sentence_embedding": vectors}

    sentences: Any = torch.nn.Sequential(Sentences())
    theirs = CachedMultipleNegativesRankingLoss(sentences, scale=SCALE, mini_batch_size=micro_batch)
    features = [{"input_ids": ids, "attention_mask": mask} for ids in (x, y)]
    return found | {"sentence-transformers": lambda: theirs(features, None).backward()}


def compare(micro_batch: int, rounds: int, keep_memory: bool) -> None:
    import torch

    from omnialign.engine.memory import freed_memory_kept

    steps = sides(micro_batch)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    with freed_memory_kept() if keep_memory else nullcontext():
        for step in steps.values():
            step()
        for _ in range(rounds):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                seconds[name].append(time.perf_counter() - started)
    print(f"{NUM_PAIRS} pairs, micro-batches of {micro_batch}, {torch.get_num_threads()} threads")
    for name, values in seconds.items():
        line = f"{name:<24} {statistics.median(values):6.2f} s"
        for peer in ("whole batch", "sentence-transformers"):
            if peer in seconds and peer != name:
                pairs = zip(values, seconds[peer], strict=True)
                line += f"  {statistics.median(a / b for a, b in pairs):.2f} of {peer}"
        print(line)


TRAIN = """
import sys
from omnialign.engine import train
from omnialign.recipe import load_recipe

output, batch_size, scenes = sys.argv[1:]
settings = {
    "batch_size": batch_size, "micro_batch_size": 256, "kept_graphs_mib": 0, "num_steps": 1,
    "checkpoint_every": 1, "cache_mib": 0, "trackers": [],
}
recipe = load_recipe("image-text", [*(f"train.{k}={v}" for k, v in settings.items()), scenes])
train(recipe, output)
status = open("/proc/self/status").read().splitlines()
print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def memory() -> None:
    """The peak of a whole training process, by batch size (Linux)."""
    from omnialign.recipe import load_recipe

    data = load_recipe("image-text").pairs[0].train.data
    scenes = f"data.{data}.source.num_scenes=40000"
    peaks: dict[int, float] = {}
    for batch_size in (1024, 32768):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", TRAIN, f"{folder}/run", str(batch_size), scenes]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[batch_size] = int(done.stdout.split()[-1]) / 1024
        print(f"batch {batch_size}: peak {peaks[batch_size]:.0f} MiB", flush=True)
    print(f"ratio {peaks[32768] / peaks[1024]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--keep-memory", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
    else:
        compare(arguments.micro_batch, arguments.rounds, arguments.keep_memory)


if __name__ == "__main__":
    main()
