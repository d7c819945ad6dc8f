"""Asks trained spaces in words that no caption used, and writes the answers into docs/results.md.

    uv run python benchmarks/other_words.py --output runs/other-words   # hours on 2 cores
    uv run python benchmarks/other_words.py --output runs/other-words --write   # only the page

The questions are those of `recipes/queries`. Each recipe is trained with its own text encoder, from
scratch, and with a frozen sentence encoder in whose own space everything else is put. A run that is
already in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path

from real_data import ROOT, SEEDS, Metric, Task, finished, read, run, variants

PLACE = re.compile(r"(<!-- other words -->\n).*?(<!-- end of other words -->)", re.DOTALL)
MODALITIES = {
    "fsdd": "audio",
    "uci-har": "timeseries",
    "grocery": "image",
    "noto-emoji": "image",
    "ldraw-parts": "pointcloud",
}


def metrics(recipe: str, modality: str) -> tuple[Metric, ...]:
    task = f"{modality}-by-{recipe}-queries"
    keys = f"text_to_{modality}"
    return tuple(Metric(f"R@{k}", task, (keys, f"recall@{k}")) for k in (1, 5, 10))


TASKS = [
    Task(recipe, "", metrics(recipe, modality), anchor="identity")
    for recipe, modality in MODALITIES.items()
]


def rows(output: Path, task: Task) -> list[str]:
    """A table row for each variant that has run."""
    lines: list[str] = []
    for variant in variants(task):
        done = finished(output, task, variant)
        if not done:
            continue
        cells: list[str] = []
        for metric in task.metrics:
            found = [read(folder, metric) for folder in done]
            means = [estimate["mean"] for estimate in found]
            low = statistics.mean(estimate["low"] for estimate in found)
            high = statistics.mean(estimate["high"] for estimate in found)
            cells.append(f"**{statistics.mean(means):.2f}** [{low:.2f}–{high:.2f}]")
        questions = (ROOT / "recipes" / "queries" / f"{task.recipe}.jsonl").read_text("utf-8")
        chance = read(done[0], task.metrics[0])["chance"]
        lines.append(
            f"| {task.recipe} | {len(questions.splitlines())} | {variant} | {' | '.join(cells)} "
            f"| {chance:.3f} | {len(done)} |"
        )
    return lines


def write(output: Path, page: Path) -> None:
    """Puts the table into its place on the page."""
    table = [
        "| data | questions | text tower | R@1 | R@5 | R@10 | chance @1 | seeds |",
        "|---|---|---|---|---|---|---|---|",
        *(row for task in TASKS for row in rows(output, task)),
    ]
    text = "\n".join(table) + "\n"
    page.write_text(PLACE.sub(rf"\g<1>{text}\g<2>", page.read_text("utf-8")), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=SEEDS)
    parser.add_argument("--write", action="store_true", help="only write the page")
    arguments = parser.parse_args()
    if not arguments.write:
        for seed in arguments.seeds:
            for task in TASKS:
                for variant in variants(task):
                    run(arguments.output, task, variant, seed)
    write(arguments.output, ROOT / "docs" / "results.md")


if __name__ == "__main__":
    main()
