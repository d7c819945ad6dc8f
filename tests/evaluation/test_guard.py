"""Before and after: what was lost is seen, and fails the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import omnialign as oa
from omnialign.cli.app import app
from omnialign.engine import train
from omnialign.errors import RecipeError, TrainingError
from omnialign.evaluation.guard import Change, changes, check, measure, shared
from omnialign.recipe import parse_recipe, to_toml
from omnialign.results import headlines
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("before") / "run"
    with toy.installed():
        train(parse_recipe(toy.recipe()), path)
    return path


def table(before: Path, **train: Any) -> dict[str, Any]:
    """A run that starts from the one before, with captions that say the wrong thing."""
    made = {**toy.recipe(**train), "start_from": str(before), "guard": {"tolerance": 0.05}}
    made["evaluations"] = [
        {"task": "zero_shot", "modality": "toy_signal", "rows": "unseen", "label": "trend"}
    ]
    return made


def test_a_model_beside_itself_has_lost_nothing(before: Path) -> None:
    space = oa.load(before)
    figures = measure(space, parse_recipe(table(before)), space.modalities)
    same = changes(figures, figures)
    assert [c.question for c in same] == [
        "unseen: toy_signal → toy_words recall@1",
        "unseen: toy_words → toy_signal recall@1",
        "unseen: toy_signal-by-trend accuracy",
    ]
    assert all(c.drop == 0 for c in same)
    assert all(c.before["mean"] > 0.3 for c in same)
    check(same, 0)


def test_only_what_both_models_can_do_is_compared(before: Path) -> None:
    alone, whole = oa.load(before, modalities=["toy_signal"]), oa.load(before)
    both = shared(alone.modalities, whole.modalities)
    with pytest.raises(RecipeError, match="nothing to compare: the models share toy_signal, and"):
        measure(alone, parse_recipe(toy.recipe()), both)


def test_questions_that_are_called_alike_are_all_kept() -> None:
    def task(mean: float) -> dict[str, Any]:
        found = {"recall@1": {"mean": mean}}
        return {"task": "retrieval", "data": "d", "modalities": ["a", "b"], "a_to_b": found}

    found = headlines({"tasks": [task(0.9), task(0.1), task(0.5)]})
    assert {name: e["mean"] for name, e in found.items()} == {
        "d: a → b recall@1": 0.9,
        "d: a → b recall@1 (2)": 0.1,
        "d: a → b recall@1 (3)": 0.5,
    }


def test_a_drop_beyond_the_tolerance_names_itself() -> None:
    figures = {"a": (0.9, 0.88), "b": (0.5, 0.7), "c": (0.8, 0.6)}
    found = [Change(name, {"mean": x}, {"mean": y}) for name, (x, y) in figures.items()]
    check(found, 0.2)
    with pytest.raises(TrainingError, match=r"tolerance of 0\.1: c 0\.800 → 0\.600\. Train less"):
        check(found, 0.1)


def test_training_that_destroys_fails_and_keeps_its_model(before: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "destroys.toml"
    wild = table(before, num_steps=20, learning_rate=3.0, warmup_steps=0, gradient_clip_norm=1e6)
    recipe.write_text(to_toml(parse_recipe(wild)))
    done = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert isinstance(done.exception, TrainingError)
    assert "more is lost than the tolerance of 0.05" in str(done.exception)
    told = json.loads((tmp_path / "run" / "guard.json").read_text())
    assert told["tolerance"] == 0.05
    assert max(c["before"]["mean"] - c["after"]["mean"] for c in told["changes"]) > 0.05
    assert oa.load(tmp_path / "run").modalities == ["toy_signal", "toy_words"]
    again = ["compare", str(before), str(tmp_path / "run"), "--evaluate", str(tmp_path / "run")]
    shown = CliRunner().invoke(app, [*again, "--json"])
    assert json.loads(shown.stdout)["changes"] == told["changes"]
    assert CliRunner().invoke(app, [*again, "--tolerance", "1"]).exit_code == 0


def test_a_gentle_run_passes(before: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "gentle.toml"
    gentle = table(before, num_steps=2, learning_rate=1e-6, warmup_steps=0)
    recipe.write_text(to_toml(parse_recipe(gentle)))
    done = CliRunner().invoke(app, ["train", str(recipe), "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.exception
    assert "before" in done.stdout
    assert "after" in done.stdout


def test_a_run_that_goes_on_needs_no_model_to_start_from(before: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(before, start)
    recipe = tmp_path / "gentle.toml"
    for steps in (2, 3):
        gentle = table(start, num_steps=steps, learning_rate=1e-6, warmup_steps=0)
        recipe.write_text(to_toml(parse_recipe(gentle)))
        command = ["train", str(recipe), "--output", str(tmp_path / "run"), "--resume", "--json"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.exception
        assert len(json.loads(done.stdout)["changes"]) == 3
        shutil.rmtree(start, ignore_errors=True)


def test_a_guard_wants_a_start() -> None:
    with pytest.raises(RecipeError, match=r"^recipe: guard compares with the model at"):
        parse_recipe({**toy.recipe(), "guard": {}})
