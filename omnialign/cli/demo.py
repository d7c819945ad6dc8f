"""`demo`: the whole product in a few minutes, with nothing but what is installed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from omnialign.cli.output import Json, note, print_json, progress, table
from omnialign.cli.training import print_results, training_progress

QUERIES_PER_MODALITY = 2
HITS = 3


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The run folder.")] = Path(
        "omnialign-demo"
    ),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as for train.")
    ] = None,
    json: Json = False,
) -> None:
    """Train on generated scenes, evaluate, ask in words, and write a report.

    A demo that was stopped goes on; of a finished one only the questions are asked again.

    Example: `omnialign demo --output runs/demo`
    """
    from omnialign.recipe import load_recipe

    started = time.perf_counter()
    recipe = load_recipe("demo", overrides or [])
    note(recipe.description)
    with training_progress() as (show, _):
        from omnialign.engine import train

        train(recipe, output, resume=True, listener=show)

    from omnialign.evaluation import evaluate_run
    from omnialign.evaluation.answers import ask, gather_shelves, sample_queries
    from omnialign.evaluation.report import write_report
    from omnialign.model_folder import load

    space = load(output)
    with progress("evaluating") as bar:
        results = evaluate_run(output, lambda _, done, total: bar(done, total))
    shelves = gather_shelves(space, recipe)
    answers = ask(space, shelves, sample_queries(shelves, QUERIES_PER_MODALITY), HITS)
    report = output / "report.html"
    write_report(report, space, recipe, results, shelves, answers, output / "metrics.jsonl")
    seconds = time.perf_counter() - started
    if json:
        queries: list[dict[str, Any]] = [
            {
                "query": answer.query,
                "hits": [
                    {
                        "modality": hit.modality,
                        "caption": hit.caption,
                        "score": hit.score,
                        "right": hit.right,
                    }
                    for hits in answer.found.values()
                    for hit in hits
                ],
            }
            for answer in answers
        ]
        print_json(
            {
                "run": str(output),
                "report": str(report),
                "seconds": seconds,
                "results": results,
                "queries": queries,
            }
        )
        return
    print_results(results)
    rows = [
        [answer.query if i == 0 else "", modality, hits[0].caption, "✓" if hits[0].right else ""]
        for answer in answers
        for i, (modality, hits) in enumerate(answer.found.items())
    ]
    table("Asked in words", ["query", "modality", "the best hit's own caption", "exact"], rows)
    note(f"{seconds:.0f} s. Look at {report}; ask more: omnialign classify … --model {output}")
