"""What a run folder refuses, keeps and forgets."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.engine.run_folder import RunFolder, environment_versions
from omnialign.errors import RecipeError, TrainingError
from omnialign.recipe import Recipe, load_recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def recipe(**changes: Any) -> Recipe:
    table = toy.recipe()
    table["pairs"][0]["train"] = {"data": "rows", "where": {"trend": "rising"}}
    table["towers"] = {"toy_signal": {"augmentations": ["noise"]}}
    return parse_recipe({**table, **changes})


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run with a checkpoint at step 4 that was killed after step 6."""
    folder = RunFolder(tmp_path / "run")
    assert folder.start(recipe(), resume=False) == 0
    folder.checkpoint(4).mkdir()
    for step in range(1, 7):
        folder.append_metrics({"step": step, "loss": 1 / step})
    with folder.metrics.open("a") as file:
        file.write('{"step": 7, "lo')
    lines = [
        {"step": step, "data": "rows", "source": source} for step, source in ((4, "a"), (5, "b"))
    ]
    folder.quarantine.write_text(
        "".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 6, "da'
    )
    return folder.path


def test_a_new_run_is_described(tmp_path: Path) -> None:
    RunFolder(tmp_path / "a" / "b").start(recipe(), resume=False)
    assert load_recipe(tmp_path / "a" / "b" / "recipe.toml") == recipe()
    assert environment_versions()["omnialign"]


def test_a_resumed_run_forgets_what_it_does_again(begun: Path) -> None:
    folder = RunFolder(begun)
    assert folder.start(recipe(), resume=True) == 4
    assert [json.loads(line)["step"] for line in folder.metrics.read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]
    assert [json.loads(line)["source"] for line in folder.quarantine.read_text().splitlines()] == [
        "a"
    ]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(begun: Path) -> None:
    folder = RunFolder(begun)
    folder.checkpoint(4).rmdir()
    assert folder.start(recipe(), resume=True) == 0
    assert folder.metrics.read_text() == ""
    assert folder.quarantine.read_text() == ""


def test_a_half_written_checkpoint_does_not_count(begun: Path) -> None:
    folder = RunFolder(begun)
    (folder.checkpoints / "partial").mkdir()
    assert folder.last_step() == 4


def test_a_run_is_not_overwritten(begun: Path) -> None:
    with pytest.raises(TrainingError, match="already holds a run"):
        RunFolder(begun).start(recipe(), resume=False)


def test_a_run_that_never_took_a_step_may_be_started_again(tmp_path: Path) -> None:
    RunFolder(tmp_path).start(recipe(), resume=False)
    assert RunFolder(tmp_path).start(recipe(seed=3), resume=False) == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"space": {"dim": 8}}, r"space\.dim"),
        ({"train": {**toy.recipe()["train"], "batch_size": 9}}, r"train\.batch_size"),
        ({"towers": {}}, r"towers\.toy_signal\.augmentations\.0\.name"),
        (
            {"pairs": [{"modalities": ["toy_signal", "toy_words"], "train": "rows"}]},
            r"pairs\.0\.test\.data, pairs\.0\.train\.where\.trend",
        ),
    ],
)
def test_another_recipe_is_refused(begun: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TrainingError, match=f"differs from that of the run .* in: .*{named}"):
        RunFolder(begun).start(recipe(**changes), resume=True)


def test_a_licence_may_be_stated_later(begun: Path) -> None:
    table = toy.recipe()["data"]
    table["rows"]["licence"] = "MIT"
    assert RunFolder(begun).start(recipe(data=table), resume=True) == 4
    assert load_recipe(begun / "recipe.toml").data["rows"].licence == "MIT"


def test_what_does_not_change_the_result_may_change(begun: Path) -> None:
    settings = {"num_steps": 99, "num_workers": 2, "cache_mib": 1, "trackers": ["tensorboard"]}
    changed = recipe(train={**toy.recipe()["train"], **settings})
    assert RunFolder(begun).start(changed, resume=True) == 4


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(TrainingError, match="is a file; it wants a folder"):
        RunFolder(tmp_path / "run").start(recipe(), resume=False)
    with pytest.raises(TrainingError, match="cannot write to --output"):
        RunFolder(tmp_path / "run" / "below").start(recipe(), resume=False)


def test_old_checkpoints_are_pruned(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.start(recipe(), resume=False)
    (folder.checkpoints / "partial").mkdir()
    (folder.checkpoints / "partial" / "rest of a killed run").touch()
    for step in (5, 10, 100):
        folder.save_checkpoint(
            step, 2, {"weights.w": torch.full((3,), float(step))}, {"skipped": 1}
        )
    assert sorted(p.name for p in folder.checkpoints.iterdir()) == [
        "step-00000010",
        "step-00000100",
    ]
    assert folder.last_step() == 100
    assert not (folder.checkpoint(10) / "rest of a killed run").exists()
    tensors, counts = folder.load_checkpoint(10)
    assert tensors["weights.w"].tolist() == [10] * 3
    assert counts == {"skipped": 1}


def test_fewer_steps_than_are_done_are_refused(begun: Path) -> None:
    train = recipe().train.model_copy(update={"num_steps": 3})
    with pytest.raises(TrainingError, match="has done 4 steps"):
        RunFolder(begun).start(recipe().model_copy(update={"train": train}), resume=True)


@pytest.mark.parametrize("damage", ["not [toml", None])
def test_a_damaged_recipe_is_named(begun: Path, damage: str | None) -> None:
    file = begun / "recipe.toml"
    file.unlink()
    if damage:
        file.write_text(damage)
    with pytest.raises(RecipeError, match=r"recipe\.toml"):
        RunFolder(begun).start(recipe(), resume=True)


def test_foreign_folders_among_checkpoints_do_not_count(begun: Path) -> None:
    (begun / "checkpoints" / "step-best").mkdir()
    assert RunFolder(begun).last_step() == 4
