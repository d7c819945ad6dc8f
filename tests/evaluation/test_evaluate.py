"""Evaluations of toy spaces, beside the same numbers worked out from the vectors by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from omnialign.building import build
from omnialign.engine import train
from omnialign.errors import DataError, OmniAlignError
from omnialign.evaluation import evaluate, evaluate_run
from omnialign.evaluation.metrics import best_ranks
from omnialign.recipe import Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
BY_TREND = {"task": "zero_shot", "modality": "toy_signal", "rows": "unseen", "label": "trend"}


def with_files(folder: Path, num_broken: int) -> Recipe:
    """Four files for test rows, of which some are broken, and a zero-shot task on them."""
    lines: list[str] = []
    for i in range(4):
        name = f"{i}.toy"
        toy.write_signal(folder / name, [i, 1.0, 2.0])
        if i < num_broken:
            (folder / name).write_bytes(b"broken")
        lines.append(json.dumps({"toy_signal": name, "toy_words": f"w{i}", "trend": f"t{i % 2}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    table = toy.recipe()
    path = str(folder / "rows.jsonl")
    table["data"]["unseen"] = {"source": {"name": "manifest", "path": path}}
    table["evaluations"] = [BY_TREND]
    return parse_recipe(table)


def unseen() -> list[Any]:
    source = toy.ToyPairs(27, split="test")
    return [source[i] for i in range(27)]


def tasks(recipe: Recipe) -> list[dict[str, Any]]:
    return evaluate(build(recipe), recipe)["tasks"]


def test_every_caption_of_a_row_is_a_partner() -> None:
    recipe = parse_recipe(toy.recipe())
    space = build(recipe)
    results = evaluate(space, recipe)
    assert results["fingerprint"] == space.fingerprint()
    (task,) = results["tasks"]
    assert task["modalities"] == ["toy_signal", "toy_words"]
    assert (task["num_pairs"], task["emergent"], task["unreadable"]) == (54, False, {})
    there, back = task["toy_signal_to_toy_words"], task["toy_words_to_toy_signal"]
    assert (there["num_queries"], there["num_gallery"]) == (27, 54)
    assert (back["num_queries"], back["num_gallery"]) == (54, 27)
    assert there["recall@1"]["chance"] == pytest.approx(2 / 54, abs=1e-6)
    assert back["recall@1"]["chance"] == pytest.approx(1 / 27, abs=1e-6)

    rows = unseen()
    signals = space.embed([row["toy_signal"] for row in rows], "toy_signal")
    words = space.embed([caption for row in rows for caption in row["toy_words"]], "toy_words")
    ranks = best_ranks(signals, words, [[2 * i, 2 * i + 1] for i in range(27)])
    assert there["recall@10"]["mean"] == pytest.approx(float((ranks <= 10).double().mean()))
    assert there["median_rank"] == ranks.median()
    ranks = best_ranks(words, signals, [[i // 2] for i in range(54)])
    assert back["recall@10"]["mean"] == pytest.approx(float((ranks <= 10).double().mean()))


def test_zero_shot_with_templates_and_classes() -> None:
    templates, classes = ["it is {}", "{} it is"], {"rising": "going up"}
    table = toy.recipe()
    table["evaluations"] = [{**BY_TREND, "templates": templates, "classes": classes}, BY_TREND]
    recipe = parse_recipe(table)
    space = build(recipe)
    _, task, plain = evaluate(space, recipe)["tasks"]
    assert (task["name"], task["num_items"], task["num_classes"]) == ("toy_signal-by-trend", 27, 3)
    assert task["accuracy"]["chance"] == pytest.approx(1 / 3)
    assert list(task["accuracy_by_template"]) == templates
    assert list(plain["accuracy_by_template"]) == ["a signal that is {}", "{}"]

    rows = unseen()
    signals = space.embed([row["toy_signal"] for row in rows], "toy_signal")
    names = ["falling", "flat", "rising"]
    for template, found in task["accuracy_by_template"].items():
        prompts = space.embed_prompts(["falling", "flat", "going up"], [template])
        best = (signals @ prompts.T).argmax(1).tolist()
        hits = [names[b] == row["trend"] for b, row in zip(best, rows, strict=True)]
        assert found["mean"] == pytest.approx(sum(hits) / 27)
    by_class = task["accuracy_by_class"]
    assert list(by_class) == names
    assert sum(by_class.values()) / 3 == pytest.approx(task["accuracy"]["mean"])  # 9 of each


def test_zero_shot_of_one_class_is_refused() -> None:
    table = toy.recipe()
    table["evaluations"] = [{**BY_TREND, "rows": {"data": "unseen", "where": {"trend": "flat"}}}]
    with pytest.raises(DataError, match=r"'trend' has the one value \['flat'\]"):
        tasks(parse_recipe(table))


def test_what_was_never_trained_together_is_emergent() -> None:
    table = toy.recipe()
    table["pairs"].append({"modalities": ["toy_echo", "toy_signal"], "train": "rows"})
    table["evaluations"] = [
        {"modalities": ["toy_words", other], "rows": "unseen", "task": "retrieval"}
        for other in ("toy_echo", "toy_signal")
    ] + [{**BY_TREND, "modality": "toy_echo"}, BY_TREND]
    emergent = [task["emergent"] for task in tasks(parse_recipe(table))]
    assert emergent == [False, True, False, True, False]


def test_unreadable_items_are_listed_and_left_out(tmp_path: Path) -> None:
    recipe = with_files(tmp_path, num_broken=1)
    found, zero_shot = tasks(recipe)
    for task in (found, zero_shot):
        assert list(task["unreadable"]) == [str(tmp_path / "0.toy")]
        assert "begins with 'toy-signal'" in task["unreadable"][str(tmp_path / "0.toy")]
    assert (found["num_pairs"], zero_shot["num_items"]) == (3, 3)
    assert found["toy_signal_to_toy_words"]["num_gallery"] == 3


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no readable pair.*0\.toy"):
        tasks(with_files(tmp_path, num_broken=4))


def test_nothing_to_evaluate_is_an_error() -> None:
    table = toy.recipe()
    del table["pairs"][0]["test"]
    with pytest.raises(OmniAlignError, match="names nothing to evaluate; give its pairs test rows"):
        tasks(parse_recipe(table))


def test_a_run_gives_the_same_digits_twice(tmp_path: Path) -> None:
    table = toy.recipe()
    table["evaluations"] = [BY_TREND]
    train(parse_recipe(table), tmp_path)
    seen: list[tuple[str, int, int]] = []
    first = evaluate_run(tmp_path, lambda *now: seen.append(now))
    written = (tmp_path / "results.json").read_bytes()
    assert json.loads(written) == first
    assert ("toy_signal-toy_words: toy_signal", 27, 27) in seen
    assert evaluate_run(tmp_path) == first
    assert (tmp_path / "results.json").read_bytes() == written
    found, zero_shot = first["tasks"]
    assert found["toy_signal_to_toy_words"]["recall@5"]["low"] > 5 / 54
    assert zero_shot["accuracy"]["low"] > 1 / 3


def test_a_smaller_size_has_results_of_its_own(tmp_path: Path) -> None:
    table = toy.recipe(num_steps=20)
    table["space"]["matryoshka"] = [4]
    train(parse_recipe(table), tmp_path)
    whole, small = evaluate_run(tmp_path), evaluate_run(tmp_path, dim=4)
    assert (whole["dim"], small["dim"]) == (16, 4)
    assert small["fingerprint"] != whole["fingerprint"]
    assert json.loads((tmp_path / "results-4.json").read_text()) == small
    assert json.loads((tmp_path / "results.json").read_text()) == whole
