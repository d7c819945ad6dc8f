"""Questions of one's own, and the rows that answer them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnialign.data.rows import PairRows
from omnialign.errors import DataError
from omnialign.recipe import Queries, Recipe, ZeroShot


@dataclass(frozen=True)
class Query:
    """A question, and for each column the values of the rows that answer it."""

    words: str
    wanted: Mapping[str, Sequence[Any]]
    place: str
    """Its file and line, for errors."""

    def answers(self, rows: PairRows) -> list[int]:
        """The rows that answer it; raises `DataError` where there are none."""
        rows.check_columns(list(self.wanted))
        found = [
            i
            for i in range(len(rows))
            if all(rows.value(i, column) in values for column, values in self.wanted.items())
        ]
        if not found:
            raise DataError(
                f"{self.place}: no row of data '{rows.name}' has {dict(self.wanted)}; the question "
                "has no answer among the rows that are searched"
            )
        return found


def read_queries(file: Path) -> list[Query]:
    """Questions of a JSON Lines file: `{"query": "eggplant", "label": ["aubergine"]}`.

    Raises `DataError` that names the file and the line.
    """
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"queries '{file}' cannot be read: {error}") from None
    found: dict[str, Query] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{file}:{number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise DataError(f"{place}: no JSON ({error}); a line is one object") from None
        if not isinstance(entry, dict) or not _asks(entry):
            raise DataError(
                f"{place}: wants an object with 'query' and at least one column, as in "
                f'{{"query": "eggplant", "label": "aubergine"}}; got {line.strip()[:80]}'
            )
        words = entry.pop("query")
        wanted = {c: v if isinstance(v, list) else [v] for c, v in entry.items()}
        if words in found:
            raise DataError(f"{place}: '{words}' is asked already, at {found[words].place}")
        found[words] = Query(words, wanted, place)
    if not found:
        raise DataError(f"queries '{file}' holds no question")
    return list(found.values())


def _asks(entry: dict[str, Any]) -> bool:
    words = entry.get("query")
    return isinstance(words, str) and bool(words.strip()) and len(entry) > 1


def check_held_out(recipe: Recipe) -> None:
    """Opens what will be evaluated, so that a slip in it is found before training.

    Raises `DataError` that names the table and the column, or the file and the line.
    """
    for pair in recipe.pairs:
        if pair.test is not None:
            PairRows(recipe, pair.test, pair.modalities)
    for task in recipe.evaluations:
        rows = PairRows(recipe, task.rows, task.needs)
        if isinstance(task, ZeroShot):
            rows.value(0, task.label)
        if isinstance(task, Queries):
            for query in read_queries(Path(task.path)):
                query.answers(rows)
