"""How much of a run's time goes into anything but the model.

    uv run python benchmarks/overhead.py [RECIPE] [--set key=value ...]

Counted as the model's: forward, loss, backward, clipping and the optimizer. The rest is waiting for
batches (reading, augmenting, collating), reports, trackers and checkpoints, from the second step
to the end of the last.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

from omnialign.engine import trainer
from omnialign.engine.batches import Batches
from omnialign.recipe import load_recipe

spent: dict[str, float] = {}


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    spent[name] = 0.0

    @wraps(call)
    def timing(*given: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*given, **named)
        finally:
            spent[name] += time.perf_counter() - started

    return timing


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", nargs="?", default="image-text")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    arguments = parser.parse_args()
    run: Any = trainer._Run  # pyright: ignore[reportPrivateUsage]
    for name in ("_step", "_report", "_save_checkpoint"):
        setattr(run, name, timed(name.strip("_"), getattr(run, name)))
    batches = Batches.__iter__
    marks: list[float] = []

    def waited(self: Any) -> Iterator[Any]:
        following = timed("batches", batches(self).__next__)
        while True:
            marks.append(time.perf_counter())
            if len(marks) == 2:  # the first step pays for starting workers
                spent.update(dict.fromkeys(spent, 0.0))
            try:
                yield following()
            except StopIteration:
                return

    Batches.__iter__ = waited
    recipe = load_recipe(arguments.recipe, ["train.num_steps=60", *arguments.overrides])
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(recipe, folder)
    total = marks[-1] - marks[1]
    model = spent["step"] - spent["report"]
    print(f"{arguments.recipe}, {recipe.train.num_workers} workers: {total:.1f} s")
    print(f"anything but the model: {(total - model) / total:.1%}")
    for name in ("batches", "report", "save_checkpoint"):
        print(f"  {name:<16}{spent[name] / total:.1%}")


if __name__ == "__main__":
    main()
