"""`compare`: two models on the same sets, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnialign.cli.output import Json, percent, print_json, progress, table

if TYPE_CHECKING:
    from omnialign.evaluation.guard import Change
    from omnialign.recipe import Recipe
    from omnialign.space import SharedSpace


def compare(
    before: Annotated[str, typer.Argument(help="A run, a saved model, or hf:NAME and the like.")],
    after: Annotated[str, typer.Argument(help="The other.")],
    evaluate: Annotated[
        Path, typer.Option(help="A run, or a recipe file, whose test rows both are measured on.")
    ],
    tolerance: Annotated[
        float | None, typer.Option(help="A larger drop of any figure fails the command.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure two models on the same sets, as before and after fine-tuning.

    Example: `omnialign compare runs/before runs/after --evaluate runs/before --tolerance 0.02`
    """
    import omnialign as oa
    from omnialign.evaluation.evaluate import run_recipe
    from omnialign.evaluation.guard import check
    from omnialign.recipe import load_recipe

    recipe = run_recipe(evaluate) if evaluate.is_dir() else load_recipe(evaluate)
    changes = measured(oa.load(before), oa.load(after), recipe)
    if json:
        print_json({"tolerance": tolerance, "changes": [vars(change) for change in changes]})
    else:
        print_changes(changes)
    if tolerance is not None:
        check(changes, tolerance)


def measured(before: SharedSpace, after: SharedSpace, recipe: Recipe) -> list[Change]:
    """The comparison, with a bar on a terminal."""
    from omnialign.evaluation.guard import compare

    with progress("comparing") as bar:
        return compare(before, after, recipe, lambda _, done, total: bar(done, total))


def print_changes(changes: list[Change]) -> None:
    rows = [[c.question, percent(c.before), percent(c.after), f"{-c.drop:+.3f}"] for c in changes]
    table("", ["", "before", "after", "change"], rows)
