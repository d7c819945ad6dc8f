"""Files of questions: each fault is told by its line; each question knows its rows."""

from pathlib import Path
from typing import Any

import pytest

from omnialign.data.queries import check_held_out, read_queries
from omnialign.data.rows import PairRows
from omnialign.errors import DataError
from omnialign.recipe import Queries, Recipe, parse_recipe
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def recipe(file: Path) -> Recipe:
    asked = {"task": "queries", "modality": "toy_signal", "rows": "unseen", "path": str(file)}
    return parse_recipe({**toy.recipe(), "evaluations": [asked]})


def test_answers_are_the_rows_that_have_what_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"query": "both", "trend": ["rising", "falling"]}\n\n{"query": "x", "trend": "falling"}')
    wanted = recipe(file)
    task = wanted.evaluations[0]
    assert isinstance(task, Queries)
    rows = PairRows(wanted, task.rows, task.needs)
    both, one = read_queries(file)
    assert (both.words, both.place) == ("both", f"{file}:1")
    labels = [rows.value(i, "trend") for i in range(len(rows))]
    assert one.answers(rows) == [i for i, label in enumerate(labels) if label == "falling"]
    assert both.answers(rows) == [i for i, x in enumerate(labels) if x in ("rising", "falling")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"q\.jsonl' holds no question"),
        ('{"query": "a", "trend": "falling"', r"q\.jsonl:1: no JSON"),
        ('["a"]', r"q\.jsonl:1: wants an object with 'query' and at least one column"),
        ('{"query": "a"}', r"at least one column"),
        ('{"trend": "falling"}', r"wants an object with 'query'"),
        ('{"query": "a", "trend": "falling"}\n{"query": "a", "trend": "x"}', r":2: 'a' is asked alrea"),
        ('{"query": "a", "trend": "nobody"}', r"q\.jsonl:1: no row of data 'unseen' has .*nobody"),
        ('{"query": "a", "tredn": "falling"}', r"no column 'tredn'; did you mean 'trend'"),
    ],
)
def test_faults(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        check_held_out(recipe(tmp_path / "q.jsonl"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"queries '.*none\.jsonl' cannot be read"):
        check_held_out(recipe(tmp_path / "none.jsonl"))


DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data beside the checkout")
@pytest.mark.parametrize("name", ["fsdd", "grocery", "ldraw-parts", "noto-emoji", "uci-har"])
def test_no_shipped_question_is_a_caption_of_training(name: str) -> None:
    from omnialign.recipe import load_recipe

    wanted = load_recipe(name)
    check_held_out(wanted)
    pair = wanted.pairs[0]
    rows = PairRows(wanted, pair.train, pair.modalities)
    captions: set[Any] = {str(rows.value(i, "text")).lower() for i in range(len(rows))}
    tasks = [task for task in wanted.evaluations if isinstance(task, Queries)]
    asked = [query.words.lower() for task in tasks for query in read_queries(Path(task.path))]
    assert len(asked) >= 20
    assert captions.isdisjoint(asked)
