"""Whether training has destroyed what a model could do before."""

from __future__ import annotations

from dataclasses import dataclass

from omnialign.errors import RecipeError, TrainingError
from omnialign.evaluation.evaluate import Progress, evaluate
from omnialign.recipe import Recipe
from omnialign.results import headlines
from omnialign.space import SharedSpace


@dataclass(frozen=True)
class Change:
    """One figure before and after."""

    question: str
    before: float
    after: float

    @property
    def drop(self) -> float:
        return round(self.before - self.after, 9)


def compare(
    before: SharedSpace, after: SharedSpace, recipe: Recipe, progress: Progress | None = None
) -> list[Change]:
    """Every figure that both spaces can give on what `recipe` evaluates, side by side.

    Raises `RecipeError` where there is none.
    """
    shared = [m for m in before.modalities if m in after.modalities]
    common = _among(recipe, set(shared))
    was, now = (headlines(evaluate(space, common, progress)) for space in (before, after))
    return [Change(question, was[question]["mean"], now[question]["mean"]) for question in was]


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


def check(changes: list[Change], tolerance: float) -> None:
    """Raises `TrainingError` that names every figure that has dropped by more than `tolerance`."""
    lost = [change for change in changes if change.drop > tolerance]
    if lost:
        said = "; ".join(f"{c.question} {c.before:.3f} → {c.after:.3f}" for c in lost)
        raise TrainingError(
            f"training has destroyed more than the tolerance of {tolerance:g}: {said}. The model "
            "is kept; train less of it (lora.rank, train.learning_rate, train.num_steps), or find "
            "one between before and after: omnialign interpolate"
        )
