"""What filters mean: random filters over random rows with nulls, against the rules of SQL."""

from __future__ import annotations

import random
import re
from typing import Any

import pyarrow as pa
import pytest

from omnialign.index.where import Where

COLUMNS = {
    "path": "string",
    "start_seconds": "number",
    "label": "string",
    "year": "number",
    "weight": "number",
    "checked": "boolean",
    "of two words": "string",
}
STRINGS = ["dog", "cat", "Dog", "", "it's", "é_b", "a%c", "x\ny", '"', "100 dogs", "\\"]
TYPES = {"string": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}

Tree = tuple[Any, ...]
"""`("and" | "or", tree, tree)`, `("not", tree)` or `(operator, column, value)`."""


def random_rows(rng: random.Random, n: int) -> list[dict[str, Any]]:
    """`n` rows; a quarter of what they hold is null, and one of the paths never is."""
    return [
        {
            name: None if name != "path" and rng.random() < 0.25 else random_value(rng, kind)
            for name, kind in COLUMNS.items()
        }
        for _ in range(n)
    ]


def table_of(rows: list[dict[str, Any]], encoded: bool = False, pieces: int = 1) -> pa.Table:
    schema = pa.schema([(name, TYPES[kind]) for name, kind in COLUMNS.items()])
    step = -(-len(rows) // pieces) or 1
    batches = [
        pa.RecordBatch.from_pylist(rows[start : start + step], schema=schema)
        for start in range(0, max(len(rows), 1), step)
    ]
    table = pa.Table.from_batches(batches)
    for i, (name, kind) in enumerate(COLUMNS.items()):
        if encoded and kind == "string":
            table = table.set_column(i, name, table.column(name).dictionary_encode())
    return table


def random_filter(rng: random.Random, depth: int, escapes: bool = True) -> tuple[str, Tree]:
    """A filter as a user writes it, and its tree. `escapes`: backslashes in patterns of `like`."""
    kind = rng.choice(["and", "or", "not"]) if depth and rng.random() < 0.75 else "leaf"
    if kind == "leaf":
        return _leaf(rng, escapes)
    first_text, first = random_filter(rng, depth - 1, escapes)
    if kind == "not":
        return f"not ({first_text})", ("not", first)
    second_text, second = random_filter(rng, depth - 1, escapes)
    return f"({first_text}) {rng.choice([kind, kind.upper()])} ({second_text})", (
        kind,
        first,
        second,
    )


def _leaf(rng: random.Random, escapes: bool) -> tuple[str, Tree]:
    column = rng.choice([*COLUMNS])
    name = f'"{column}"' if " " in column or rng.random() < 0.2 else column
    kind = COLUMNS[column]
    operators = {
        "string": ["=", "!=", "<", ">=", "in", "not in", "like", "not like", "between", "is null"],
        "number": ["=", "!=", "<", "<=", ">", ">=", "in", "not in", "between", "is null"],
        "boolean": ["=", "!=", "in", "is null", "itself"],
    }[kind]
    operator = rng.choice(operators)
    if operator == "is null":
        negated = rng.choice(["", "not "])
        return f"{name} is {negated}null", ("is null" if not negated else "is not null", column, 0)
    if operator == "itself":
        return name, ("=", column, True)
    if operator.endswith("like"):
        pattern = rng.choice(["d%", "%o%", "_og", "%", "", "it's", "x_y", "%é_%"])
        pattern = rng.choice([pattern, r"%\_%", r"a\%c", r"%\\"]) if escapes else pattern
        return f"{name} {operator} {_sql(pattern)}", (operator, column, pattern)
    value = random_value(rng, kind)
    if operator.endswith("in"):
        values = [value, *(random_value(rng, kind) for _ in range(rng.randint(0, 3)))]
        listed = ", ".join(map(_sql, values))
        return f"{name} {operator} ({listed})", (operator, column, values)
    if operator == "between":
        other = random_value(rng, kind)
        text = f"{name} between {_sql(value)} and {_sql(other)}"
        return text, ("between", column, (value, other))
    return f"{name} {operator} {_sql(value)}", (operator, column, value)


def random_value(rng: random.Random, kind: str) -> Any:
    if kind == "string":
        return rng.choice(STRINGS)
    if kind == "number":
        return rng.choice([rng.randint(-3, 3), rng.randint(-6, 6) / 2])
    return rng.random() < 0.5


def _sql(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).lower()


def is_true(tree: Tree, row: dict[str, Any]) -> bool:
    return truth(tree, row) is True


def truth(tree: Tree, row: dict[str, Any]) -> bool | None:
    """True, false or unknown, as SQL has it."""
    operator, *rest = tree
    if operator == "not":
        inner = truth(rest[0], row)
        return None if inner is None else not inner
    if operator in ("and", "or"):
        both = [truth(part, row) for part in rest]
        decisive = operator == "or"
        if decisive in both:
            return decisive
        return None if None in both else not decisive
    column, value = rest
    found = row[column]
    if operator in ("is null", "is not null"):
        return (found is None) == (operator == "is null")
    if found is None:
        return None
    return _compare(operator, found, value)


def _compare(operator: str, found: Any, value: Any) -> bool:
    match operator:
        case "=" | "!=":
            return (found == value) == (operator == "=")
        case "<":
            return found < value
        case "<=":
            return found <= value
        case ">":
            return found > value
        case ">=":
            return found >= value
        case "in" | "not in":
            return (found in value) == (operator == "in")
        case "between":
            return value[0] <= found <= value[1]
        case _:
            return bool(re.fullmatch(_regex(value), found, re.DOTALL)) == (operator == "like")


def _regex(pattern: str) -> str:
    pieces = re.findall(r"\\.|.", pattern, re.DOTALL)
    meanings = {"%": ".*", "_": "."}
    return "".join(meanings.get(piece, re.escape(piece[-1])) for piece in pieces)


@pytest.mark.parametrize("seed", range(8))
def test_masks_mean_what_the_filter_says(seed: int) -> None:
    rng = random.Random(seed)
    rows = random_rows(rng, 200)
    tables = [table_of(rows), table_of(rows, encoded=True), table_of(rows, pieces=3)]
    kept = 0
    for _ in range(150):
        text, tree = random_filter(rng, depth=3)
        expected = [is_true(tree, row) for row in rows]
        kept += sum(expected)
        where = Where.parse(text, COLUMNS)
        for table in tables:
            mask = where.mask(table)
            assert mask.dtype == bool
            assert mask.tolist() == expected, text
    assert 0.1 < kept / (150 * 200) < 0.9


def test_a_table_without_rows_has_a_mask() -> None:
    table = table_of([]).slice(0, 0)
    assert Where.parse("label = 'dog' and not checked", COLUMNS).mask(table).shape == (0,)


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (pa.float64(), "number = 12345678901234567", [False, True]),
        (pa.float64(), "number in (12345678901234567, 5)", [True, True]),
        (pa.float64(), "number < 1e300", [True, True]),
        (pa.int32(), "number in (3000000000, 5)", [True, False]),
        (pa.int32(), "number <= 3000000000", [True, True]),
        (pa.int32(), "number > -9223372036854775807", [True, True]),
        (pa.int32(), "number not in (99999999999999999999)", [True, True]),
    ],
)
def test_numbers_beyond_the_type_of_the_column(kind: Any, text: str, wanted: list[bool]) -> None:
    large = 12345678901234567 if kind == pa.float64() else 7
    table = pa.table({"number": pa.array([5, large]).cast(kind, safe=False)})
    assert Where.parse(text, {"number": "number"}).mask(table).tolist() == wanted
