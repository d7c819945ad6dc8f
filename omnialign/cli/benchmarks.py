"""`mteb`: the benchmarks that others compare themselves by."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnialign.cli.output import Dim, Json, Model, note, print_json, table


def mteb(
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for mteb's results.")],
    task: Annotated[list[str] | None, typer.Option(help="One of mteb's tasks; repeatable.")] = None,
    benchmark: Annotated[str | None, typer.Option(help="All tasks of one of its lists.")] = None,
    name: Annotated[
        str | None,
        typer.Option(help="organization/model in the results; default: omnialign/FOLDER."),
    ] = None,
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Run tasks or a benchmark of mteb, whose data come from the hub.

    Results are files of mteb's own form. A task that has them is not run again, so a run that was
    cut goes on.

    Example: `omnialign mteb --model RUN --benchmark "MTEB(eng, v2)" --output leaderboard`
    """
    import omnialign as oa

    try:
        from omnialign.adapters.mteb import run
    except ImportError as error:
        raise oa.OmniAlignError(
            f"mteb is not installed ({error}): pip install 'omnialign[mteb]'"
        ) from None
    if bool(task) == bool(benchmark):
        raise oa.OmniAlignError("mteb wants --task NAME, once or more, or --benchmark NAME")
    name = name or f"omnialign/{Path(model).resolve().name}"
    scores, failed = run(
        oa.load(model, dim=dim), name, output, tasks=task or (), benchmark=benchmark
    )
    if json:
        print_json({"model": name, "scores": scores, "failed": failed})
    elif scores:
        rows = [[task, f"{score:.4f}"] for task, score in scores.items()]
        table(f"{name} (mteb)", ["task", "main score"], rows)
    if failed:
        first, reason = next(iter(failed.items()))
        raise oa.OmniAlignError(
            f"{len(failed)} of {len(failed) + len(scores)} tasks have no score; {first}: {reason}. "
            f"Those that have are in {output}; the same command goes on"
        )
    note(f"{output}/results: mteb's files for {len(scores)} tasks")
