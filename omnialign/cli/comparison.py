"""`compare`: two models on the same sets, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omnialign.cli.output import Json, percent, print_json, progress, table

if TYPE_CHECKING:
    from omnialign.evaluation.guard import Change, Figures
    from omnialign.recipe import Recipe
    from omnialign.space import SharedSpace


def compare(
    before: Annotated[str, typer.Argument(help="A run, a saved model, or hf:NAME and the like.")],
    after: Annotated[str, typer.Argument(help="The other.")],
    evaluate: Annotated[
        Path, typer.Option(help="A run, or a recipe file, whose test rows both are measured on.")
    ],
    tolerance: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="A larger drop of any figure fails the command."),
    ] = None,
    json: Json = False,
) -> None:
    """Measure two models on the same sets, as before and after fine-tuning.

    Example: `omnialign compare runs/before runs/after --evaluate runs/before --tolerance 0.02`
    """
    import omnialign as oa
    from omnialign.evaluation.evaluate import run_recipe
    from omnialign.evaluation.guard import changes, check, shared
    from omnialign.recipe import load_recipe

    recipe = run_recipe(evaluate) if evaluate.is_dir() else load_recipe(evaluate)
    spaces = oa.load(before), oa.load(after)
    both = shared(spaces[0].modalities, spaces[1].modalities)
    found = changes(*(measured(space, recipe, both) for space in spaces))
    if json:
        print_json({"tolerance": tolerance, "changes": [vars(change) for change in found]})
    else:
        print_changes(found)
    if tolerance is not None:
        check(found, tolerance)


def measured(space: SharedSpace, recipe: Recipe, among: list[str]) -> Figures:
    """The figures of a model, with a bar on a terminal."""
    from omnialign.evaluation.guard import measure

    with progress("evaluating") as bar:
        return measure(space, recipe, among, lambda _, done, total: bar(done, total))


def print_changes(found: list[Change]) -> None:
    """Before and after side by side, with their 95 % intervals."""
    rows = [[c.question, interval(c.before), interval(c.after), f"{-c.drop:+.3f}"] for c in found]
    table("", ["", "before", "after", "change"], rows)


def interval(estimate: Mapping[str, float]) -> str:
    """A mean and its 95 % interval, in percent."""
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{percent(estimate['mean'])} [{low:.1f}–{high:.1f}]"
