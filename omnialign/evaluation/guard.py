"""Whether training has destroyed what a model could do before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from omnialign.errors import RecipeError, TrainingError
from omnialign.evaluation.evaluate import Progress, evaluate
from omnialign.recipe import Recipe
from omnialign.results import headlines
from omnialign.space import SharedSpace

Figures = Mapping[str, Mapping[str, float]]
"""By question, its estimate: `mean`, `low`, `high`, `chance`."""


@dataclass(frozen=True)
class Change:
    """One figure before and after: its estimates."""

    question: str
    before: Mapping[str, float]
    after: Mapping[str, float]

    @property
    def drop(self) -> float:
        return round(self.before["mean"] - self.after["mean"], 9)


def measure(
    space: SharedSpace, recipe: Recipe, among: Iterable[str], progress: Progress | None = None
) -> Figures:
    """Every figure of what `recipe` evaluates, as far as it needs only towers of `among`.

    Raises `RecipeError` where there is none.
    """
    return headlines(evaluate(space, _among(recipe, set(among)), progress))


def changes(before: Figures, after: Figures) -> list[Change]:
    """The figures that both have, side by side."""
    return [Change(name, before[name], after[name]) for name in before if name in after]


def shared(one: Iterable[str], other: Iterable[str]) -> list[str]:
    """The modalities of both."""
    return sorted(set(one) & set(other))


def _among(recipe: Recipe, modalities: set[str]) -> Recipe:
    """The recipe with only what needs no tower of other modalities."""
    pairs = [
        pair if modalities.issuperset(pair.modalities) else pair.model_copy(update={"test": None})
        for pair in recipe.pairs
    ]
    evaluations = [task for task in recipe.evaluations if modalities.issuperset(task.needs)]
    if not evaluations and not any(pair.test for pair in pairs):
        raise RecipeError(
            f"nothing to compare: the models share {', '.join(sorted(modalities)) or 'nothing'}, "
            "and the recipe evaluates nothing of that alone; give it [[evaluations]] of what the "
            "model could do before"
        )
    return recipe.model_copy(update={"pairs": pairs, "evaluations": evaluations})


def check(found: Iterable[Change], tolerance: float) -> None:
    """Raises `TrainingError` that names every figure that has dropped by more than `tolerance`."""
    lost = [change for change in found if change.drop > tolerance]
    if lost:
        said = "; ".join(
            f"{c.question} {c.before['mean']:.3f} → {c.after['mean']:.3f}" for c in lost
        )
        raise TrainingError(
            f"more is lost than the tolerance of {tolerance:g}: {said}. Train less of the model "
            "(lora.rank, train.learning_rate, train.num_steps), or find one between before and "
            "after: omnialign interpolate"
        )
