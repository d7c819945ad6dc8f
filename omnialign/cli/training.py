"""`train` and `evaluate`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from json import dumps, loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnialign.cli.comparison import interval, measured, print_changes
from omnialign.cli.output import (
    Dim,
    Json,
    err,
    is_main_process,
    note,
    percent,
    print_json,
    progress,
    table,
)

if TYPE_CHECKING:
    from omnialign.engine.diagnostics import StepReport
    from omnialign.engine.frozen import FeatureReport
    from omnialign.evaluation.guard import Change, Figures
    from omnialign.recipe import Recipe
    from omnialign.space import SharedSpace

SECONDS_PER_LINE = 5.0
"""Between two lines on a long pass over frozen features."""


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in train.num_steps=100.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --output.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a recipe into a run folder.

    Example: `omnialign train image-text --output runs/image-text --set train.num_steps=200`

    On several processes, CPUs too:
    `accelerate launch --multi_gpu --num_processes 2 -m omnialign train …`
    """
    from omnialign.recipe import load_recipe

    checked = load_recipe(recipe, overrides or [])
    if resume and is_main_process() and not any(output.glob("checkpoints/step-*")):
        note(f"no checkpoint in {output}: starting at step 0")
    before = _before(checked, output) if checked.guard and is_main_process() else {}
    with training_progress() as (show, last):
        from omnialign.engine import train as run

        space = run(
            checked, output, resume=resume, listener=show, feature_listener=feature_progress()
        )
    if not is_main_process():
        return
    changes = _changes(checked, before, space, output)
    if json:
        print_json(
            {
                "run": str(output),
                "modalities": space.modalities,
                "fingerprint": space.fingerprint(),
                "last_step": last[0].record() if last else None,
                "changes": [vars(change) for change in changes],
            }
        )
    else:
        if changes:
            print_changes(changes)
        note(f"The run is in {output}. Next: omnialign evaluate {shlex.quote(str(output))}")
    if checked.guard:
        from omnialign.evaluation.guard import check

        check(changes, checked.guard.tolerance)


def _before(recipe: Recipe, output: Path) -> Figures:
    """What the model at start_from can do; kept in the run, so that one that goes on has it."""
    import omnialign as oa
    from omnialign.evaluation.guard import shared

    file = output / "before.json"
    if file.is_file() and any(output.glob("checkpoints/step-*")):
        return loads(file.read_text("utf-8"))
    assert recipe.start_from is not None
    start = oa.load(recipe.start_from)
    figures = measured(start, recipe, shared(start.modalities, recipe.modalities()))
    output.mkdir(parents=True, exist_ok=True)
    file.write_text(dumps(figures, indent=2) + "\n", "utf-8")
    return figures


def _changes(recipe: Recipe, before: Figures, space: SharedSpace, output: Path) -> list[Change]:
    """What the guard of a recipe has found; also in `guard.json` of the run."""
    if recipe.guard is None:
        return []
    from omnialign.evaluation.guard import changes

    found = changes(before, measured(space, recipe, recipe.modalities()))
    told = {"tolerance": recipe.guard.tolerance, "changes": [vars(c) for c in found]}
    (output / "guard.json").write_text(dumps(told, indent=2) + "\n", "utf-8")
    return found


@contextmanager
def training_progress() -> Generator[tuple[Callable[[StepReport], None], list[StepReport]]]:
    """A live line on a terminal, else a line now and then; and the last report."""
    last: list[StepReport] = []
    if err.is_terminal:
        from rich.live import Live

        with Live(console=err, refresh_per_second=4) as live:

            def show(report: StepReport) -> None:
                last[:] = [report]
                _warn(report)
                live.update(_described(report))

            yield show, last
        return

    def print_some(report: StepReport) -> None:
        _warn(report)
        every = max(1, report.num_steps // 20)
        if not last or report.step - last[0].step >= every or report.step == report.num_steps:
            last[:] = [report]
            err.print(_described(report), highlight=False, soft_wrap=True)

    yield print_some, last


def feature_progress() -> Callable[[FeatureReport], None]:
    """A line now and then on the features of each frozen tower, and one at its end."""
    said = time.monotonic()

    def show(report: FeatureReport) -> None:
        nonlocal said
        if not report.done and time.monotonic() - said < SECONDS_PER_LINE:
            return
        said = time.monotonic()
        counts = f"{report.found} found in the cache, {report.computed} computed"
        aside = f", {report.unreadable} unreadable" if report.unreadable else ""
        place = "" if report.done else f"row {report.rows_done}/{report.num_rows}: "
        note(f"features of the frozen {report.modality} tower: {place}{counts}{aside}")
        if report.done and report.problem:
            note(report.problem)

    return show


def _warn(report: StepReport) -> None:
    for text in report.warnings:
        note(f"step {report.step}: {text}")


def _described(report: StepReport) -> str:
    left = timedelta(seconds=round(report.seconds_left))
    pairs = "  ".join(
        f"{name} loss {v['loss']:.3f} acc {v['accuracy']:.2f} τ {v['temperature']:.3f}"
        for name, v in report.pairs.items()
    )
    aside = f"  unreadable {report.unreadable}" if report.unreadable else ""
    aside += f"  skipped {report.skipped}" if report.skipped else ""
    return (
        f"step {report.step}/{report.num_steps}  loss {report.loss:.3f}  {pairs}  "
        f"{report.samples_per_second:.0f} samples/s  {left} left{aside}"
    )


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run folder.")],
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Evaluate a run on its recipe's test rows; also written to `results.json`.

    With `--dim 64`, to `results-64.json`.

    Example: `omnialign evaluate runs/image-text`
    """
    from omnialign.evaluation import evaluate_run

    with progress("evaluating") as bar:
        results = evaluate_run(run, lambda _, done, total: bar(done, total), dim=dim)
    if json:
        print_json(results)
    else:
        print_results(results)


def print_results(results: dict[str, Any]) -> None:
    """Tables of retrieval and zero-shot results, chance beside each."""
    from omnialign.results import directions

    rows: list[list[str]] = []
    for task in results["tasks"]:
        for a, b in directions(task):
            metrics = task[f"{a}_to_{b}"]
            recalls = [_interval(metrics[f"recall@{k}"]) for k in (1, 5, 10)]
            rows.append(
                [
                    f"{a} → {b}"
                    + (" (questions)" if task["task"] == "queries" else "")
                    + (" (emergent)" if task["emergent"] else ""),
                    *recalls,
                    f"{metrics['median_rank']:.0f} of {metrics['num_gallery']}",
                    str(metrics["num_queries"]),
                ]
            )
    if rows:
        columns = ["retrieval", "recall@1", "recall@5", "recall@10", "median rank", "queries"]
        table("", columns, rows)
    shot = [task for task in results["tasks"] if task["task"] == "zero_shot"]
    if shot:
        table(
            "",
            ["zero-shot", "accuracy (all templates)", "best single template", "classes", "items"],
            [
                [
                    task["name"] + (" (emergent)" if task["emergent"] else ""),
                    _interval(task["accuracy"]),
                    percent(max(e["mean"] for e in task["accuracy_by_template"].values())),
                    str(task["num_classes"]),
                    str(task["num_items"]),
                ]
                for task in shot
            ],
        )
    unreadable = sum(len(task["unreadable"]) for task in results["tasks"])
    if unreadable:
        note(f"{unreadable} items could not be read; --json lists them")


def _interval(estimate: dict[str, float]) -> str:
    return f"{interval(estimate)} chance {percent(estimate['chance'])}"
