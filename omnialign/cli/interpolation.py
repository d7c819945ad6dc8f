"""`interpolate`: a model between one before fine-tuning and one after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from omnialign.cli.output import Json, note, percent, print_json, progress, table


def interpolate(
    before: Annotated[Path, typer.Argument(help="The model that fine-tuning started from.")],
    after: Annotated[Path, typer.Argument(help="What came of it.")],
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="The share of AFTER, 0 to 1; may be repeated. Default: 0.5."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the model of the one alpha here.")
    ] = None,
    evaluate: Annotated[
        list[Path] | None,
        typer.Option(help="A run on whose test rows each alpha is measured; may be repeated."),
    ] = None,
    json: Json = False,
) -> None:
    """Average the weights of a model before and after fine-tuning (WiSE-FT).

    Fine-tuning may destroy what a model could do before. Between the two lie models that keep most
    of both.

    Example: `omnialign interpolate runs/before runs/after --alpha 0.5 --output models/between`

    A table that shows where to stop:
    `omnialign interpolate A B --alpha 0 --alpha 0.5 --alpha 1 --evaluate A --evaluate B`
    """
    import omnialign as oa

    alphas = alpha or [0.5]
    if output is None and not evaluate:
        raise oa.OmniAlignError("interpolate wants --output MODEL, or --evaluate RUN")
    if output is not None and len(alphas) > 1:
        raise oa.OmniAlignError(f"--output takes the model of one --alpha; got {len(alphas)}")
    if output is not None and (output / "config.json").exists():
        raise oa.OmniAlignError(f"--output {output} holds a model already; choose another")
    spaces = oa.load(before), oa.load(after)
    measured: list[dict[str, float]] = []
    for share in alphas:
        mixed = oa.interpolate(*spaces, share)
        if evaluate:
            measured.append(_measured(mixed, evaluate))
        if output is not None:
            mixed.save(output)
    if json:
        told = [{"alpha": a, **m} for a, m in zip(alphas, measured, strict=False)]
        print_json({"output": str(output) if output else None, "measured": told})
        return
    if measured:
        rows = [
            [f"{a:g}", *map(percent, m.values())] for a, m in zip(alphas, measured, strict=True)
        ]
        table("", ["alpha", *measured[0]], rows)
    if output is not None:
        note(f"The model is in {output}.")


def _measured(space: Any, runs: list[Path]) -> dict[str, float]:
    """By run and task: recall@1, the mean of both directions, or zero-shot accuracy."""
    from omnialign.evaluation.evaluate import evaluate, run_recipe
    from omnialign.results import directions

    found: dict[str, float] = {}
    for run in runs:
        with progress(f"evaluating {run}") as bar:
            results = evaluate(
                space, run_recipe(run), lambda _, done, total, bar=bar: bar(done, total)
            )
        for task in results["tasks"]:
            if task["task"] == "zero_shot":
                found[f"{run}: {task['name']} accuracy"] = task["accuracy"]["mean"]
            else:
                each = [task[f"{a}_to_{b}"]["recall@1"]["mean"] for a, b in directions(task)]
                found[f"{run}: {task['name']} recall@1"] = sum(each) / len(each)
    return found
