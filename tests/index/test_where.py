"""Filters: what is read and what is refused. What they mean is in `test_conditions.py`."""

from __future__ import annotations

import random
import string
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omnialign.errors import OmniAlignError
from omnialign.index.where import MAX_CHARACTERS, Where


def matching(text: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> list[int]:
    arrays = {name: [row.get(name) for row in rows] for name in columns}
    return np.flatnonzero(Where.parse(text, columns).mask(pa.table(arrays))).tolist()


PETS = [
    {"label": "dog", "year": 2019, "checked": True, "my note": "it's a 100% dog"},
    {"label": "cat", "year": 2021, "checked": False, "my note": None},
    {"label": None, "year": None, "checked": None, "my note": "a_b\n\\c"},
]
KINDS = {"label": "string", "year": "number", "checked": "boolean", "my note": "string"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("label = 'dog'", [0]),
        ("label == 'dog'", [0]),
        ("label <> 'dog'", [1]),
        ("not label = 'dog'", [1]),
        ("label is null", [2]),
        ("not (label is null)", [0, 1]),
        ("label is not null and not checked", [1]),
        ("checked or year > 2020.5", [0, 1]),
        ("not checked = true", [1]),
        ("checked in (true, false)", [0, 1]),
        ("year between 2019 and 2020", [0]),
        ("year not between 2019 and 2020", [1]),
        ("2020 < year", [1]),
        ("year > -1e3 and year < +99999999999999999999", [0, 1]),
        ("year in (2019, 2021.0, 2022.5)", [0, 1]),
        ("label not in ('dog', 'fox')", [1]),
        ("\"my note\" = 'it''s a 100% dog'", [0]),
        ("\"my note\" like '%100\\% d_g'", [0]),
        ("\"my note\" like 'a\\_b_\\\\c'", [2]),
        ("\"my note\" not like 'a%'", [0]),
        ("label like 'D%'", []),
        ("label = 'dog' -- and nothing else", [0]),
    ],
)
def test_filters_keep_the_rows_of_which_they_are_true(text: str, expected: list[int]) -> None:
    assert matching(text, PETS, KINDS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty; write something like label = 'dog'"),
        (" -- only a remark", "it is empty"),
        ("lable = 'dog'", "no column 'lable'; did you mean 'label'\\? valid: checked, label"),
        ("label.size = 1", "no column 'label.size'"),
        ("lower(label) = 'dog'", r"there are no functions, found 'LOWER\(label\)'"),
        ("now() > 3", "there are no functions"),
        ("year = '2020'", "column 'year' holds numbers, and is compared with '2020'"),
        ("label = 3", "column 'label' holds strings, and is compared with 3"),
        ("label in ('dog', 3)", "is compared with 3"),
        ("year = true", "is compared with True"),
        ("label", "column 'label' holds strings, wanted true or false"),
        ("year like '2%'", "column 'year' holds numbers, wanted strings"),
        ("checked > false", "column 'checked' is true or false; it has no >"),
        ("label = null", "never true; write label is null"),
        ('label = "dog"', "a string stands in single quotes"),
        ("label = 'dog", "it is no condition; write something like"),
        ("label = ", "it is no condition"),
        ("label = 'dog' label", "it is no condition"),
        ("label = 'dog'; drop table rows", "it is no condition"),
        ("checked; checked", "a ';' ends a statement"),
        ("select 1", "it is no condition"),
        ("drop table rows", "it is no condition"),
        ("year in (select 1)", r"says more \(query\) than is known here"),
        ("year between symmetric 1 and 2", r"says more \(symmetric\)"),
        ("label ilike 'd%'", "wanted a condition like"),
        ("label like 'd!%' escape '!'", "wanted a condition like"),
        ("label like 'a\\b'", "a backslash stands before %, _ or a backslash"),
        ("label like 'a\\'", "a backslash stands before %, _ or a backslash"),
        ("year = 1e999", "'1e999' is no number"),
        ("year * 2 > 3", "where a column was wanted"),
        ("1 = 1", "where a column was wanted"),
        ("true", "wanted a condition like"),
        ("(" * 5000 + "checked" + ")" * 5000, "its brackets are too deep"),
        ("checked or " * 200 + "checked", "more than 200 conditions"),
        ("checked or " * 2000 + "checked", f"at most {MAX_CHARACTERS} are read"),
    ],
)
def test_what_is_no_filter_is_one_error(text: str, message: str) -> None:
    with pytest.raises(OmniAlignError, match=message) as caught:
        Where.parse(text, KINDS)
    assert "\n" not in str(caught.value)
    assert "label" in str(caught.value)


def test_columns_of_other_types_can_be_asked_for_null_only() -> None:
    where = Where.parse("box is not null", {"box": "list"})
    assert where.mask(pa.table({"box": [[1], None]})).tolist() == [True, False]
    with pytest.raises(OmniAlignError, match="column 'box' holds list"):
        Where.parse("box = 1", {"box": "list"})


def test_a_filter_names_its_columns() -> None:
    assert Where.parse("label = 'a' or not checked", KINDS).columns == {"label", "checked"}


def test_whatever_is_typed_is_a_filter_or_one_error() -> None:
    rng = random.Random(0)
    words = [
        "label",
        "year",
        "checked",
        "and",
        "or",
        "not",
        "in",
        "is",
        "null",
        "like",
        "between",
        "'a'",
        "1",
    ]
    for _ in range(2000):
        pieces = rng.choices([*words, *string.punctuation], k=8)
        text = rng.choice(["", " "]).join(pieces)
        try:
            Where.parse(text, KINDS).milvus()
        except OmniAlignError:
            continue
