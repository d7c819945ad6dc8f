"""Filters as users write them: a small part of SQL, checked against the columns there are."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from omnialign.errors import OmniAlignError, choices, describe
from omnialign.index.conditions import (
    Comparison,
    Condition,
    IsNull,
    Joined,
    Like,
    Mask,
    OneOf,
    Table,
    Value,
)

if TYPE_CHECKING:
    from sqlglot import exp

ROW_COLUMNS = {
    "id": "string",
    "path": "string",
    "content": "string",
    "modality": "string",
    "segment": "number",
    "start_seconds": "number",
    "end_seconds": "number",
}
"""What every row of a library has and can be filtered by; all else is metadata."""
MAX_CHARACTERS = 20_000
"""Of a filter: a service takes them from anybody."""
MAX_CONDITIONS = 200
"""Of a filter, each of which looks at every row."""
EXAMPLE = "label = 'dog' and (year >= 2020 or note is null)"
UNDERSTOOD = {
    "this",
    "expression",
    "expressions",
    "low",
    "high",
    "negate",
    "table",
    "db",
    "catalog",
}
"""What is looked at in a parsed condition; if there is more, it would be left out unseen."""
OPPOSITES = {"=": "!=", "<": ">=", ">": "<="} | {"!=": "=", ">=": "<", "<=": ">"}
FLIPPED = {"=": "=", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
TYPES = {str: "string", bool: "boolean", int: "number", float: "number"}
PLURALS = {"string": "strings", "number": "numbers", "boolean": "true or false"}


@dataclass(frozen=True)
class Where:
    """A filter that fits the columns of a library.

    There are comparisons (`=`, `!=`, `<`, `<=`, `>`, `>=`, `in (…)`, `between … and …`, `like`,
    `is null`), a column of true and false by itself, and `and`, `or`, `not` and brackets between
    them. Strings stand in single quotes (`'it''s'`); names of columns with spaces, or that are
    words of SQL, in double quotes. In `like`, which minds case, `%` is any text and `_` any one
    character; a backslash before one of them, or before another, takes its meaning away. A
    comparison with null is not true, nor is its `not`.
    """

    text: str
    condition: Condition

    @classmethod
    def parse(cls, text: str, columns: Mapping[str, str]) -> Where:
        """Reads a filter.

        `columns` are names and types: `"string"`, `"number"` or `"boolean"`; other types can only
        be asked for null. Raises `OmniAlignError` for what is no filter, or asks for a column that
        is not there, a function or a value of another type than the column's.
        """
        return cls(text, _Reader(text, columns).read())

    def mask(self, table: Table) -> Mask:
        """Of which of the N rows it is true, (N,). Strings may be dictionary-encoded."""
        return self.condition.mask(table)

    def milvus(self) -> str:
        """The same as a filter of Milvus, where metadata is the JSON field `metadata`."""
        return self.condition.milvus(
            lambda name: name if name in ROW_COLUMNS else f"metadata[{json.dumps(name)}]"
        )

    @property
    def columns(self) -> frozenset[str]:
        """The columns that it looks at."""
        return self.condition.columns()


class _Reader:
    def __init__(self, text: str, columns: Mapping[str, str]) -> None:
        self.text = text
        self.columns = columns
        self._num_conditions = 0

    def read(self) -> Condition:
        try:
            from sqlglot import Dialect, exp
            from sqlglot.errors import SqlglotError
        except ImportError as error:
            raise OmniAlignError(
                f"filters want sqlglot, which is not installed ({error}): "
                "pip install 'omnialign[index]'"
            ) from error
        if len(self.text) > MAX_CHARACTERS:
            self._refuse(f"{len(self.text)} characters; at most {MAX_CHARACTERS} are read")
        try:
            parsed = Dialect.get_or_raise(None).parse_into(exp.Condition, self.text)
            if not any(parsed):
                self._refuse(f"it is empty; write something like {EXAMPLE}")
            if len(parsed) > 1 or parsed[0] is None:
                self._refuse("a ';' ends a statement; a filter is one condition")
            return self._condition(parsed[0])
        except SqlglotError:
            self._refuse(
                f"it is no condition; write something like {EXAMPLE}, with double quotes around "
                "names of columns that are words of SQL"
            )
        except RecursionError:
            self._refuse("its brackets are too deep")

    def _refuse(self, problem: str) -> NoReturn:
        listed = ", ".join(f"{name} ({kind})" for name, kind in self.columns.items())
        raise OmniAlignError(
            f"cannot filter by {describe(self.text)}: {problem}; columns: {listed}"
        ) from None

    def _condition(self, node: exp.Expr, negated: bool = False) -> Condition:
        from sqlglot import exp

        unknown = [key for key, value in node.args.items() if value and key not in UNDERSTOOD]
        if unknown:
            self._refuse(f"{describe(node.sql())} says more ({unknown[0]}) than is known here")
        if not isinstance(node, exp.Paren | exp.Not | exp.And | exp.Or):
            self._num_conditions += 1
        if self._num_conditions > MAX_CONDITIONS:
            self._refuse(
                f"it has more than {MAX_CONDITIONS} conditions; many values of one column are "
                "written column in (…)"
            )
        negated ^= bool(node.args.get("negate"))  # a `not like`; a `not in` comes as a `not`
        match node:
            case exp.Paren():
                return self._condition(node.this, negated)
            case exp.Not():
                return self._condition(node.this, not negated)
            case exp.And() | exp.Or():
                parts = tuple(self._condition(part, negated) for part in node.flatten())
                return Joined("and" if isinstance(node, exp.And) != negated else "or", parts)
            case exp.Column():
                return Comparison(self._column(node, "boolean"), "=", not negated)
            case exp.EQ() | exp.NEQ() | exp.LT() | exp.LTE() | exp.GT() | exp.GTE():
                return self._comparison(node, negated)
            case exp.Between():
                low = self._compare(node.this, "<" if negated else ">=", node.args["low"])
                high = self._compare(node.this, ">" if negated else "<=", node.args["high"])
                return Joined("or" if negated else "and", (low, high))
            case exp.In(this=this, expressions=[_, *_] as listed):
                return self._one_of(this, listed, negated)
            case exp.Like(this=this, expression=exp.Literal() as pattern):
                return self._like(this, pattern, negated)
            case exp.Is(this=exp.Column() as this, expression=exp.Null()):
                return IsNull(self._column(this), negated)
            case exp.Func():
                self._refuse(f"there are no functions, found {describe(node.sql())}")
            case _:
                self._refuse(f"found {describe(node.sql())}, wanted a condition like {EXAMPLE}")

    def _comparison(self, node: exp.Binary, negated: bool) -> Condition:
        from sqlglot import exp

        names = {exp.EQ: "=", exp.NEQ: "!=", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">="}
        operator = next(name for kind, name in names.items() if isinstance(node, kind))
        operator = OPPOSITES[operator] if negated else operator
        if isinstance(node.left, exp.Column) or not isinstance(node.right, exp.Column):
            return self._compare(node.left, operator, node.right)
        return self._compare(node.right, FLIPPED[operator], node.left)

    def _compare(self, column: exp.Expr, operator: str, literal: exp.Expr) -> Condition:
        name = self._column(column)
        value = self._value(literal, name)
        if isinstance(value, bool) and operator not in ("=", "!="):
            self._refuse(f"column '{name}' is true or false; it has no {operator}")
        return Comparison(name, operator, value)

    def _one_of(self, column: exp.Expr, listed: Sequence[exp.Expr], negated: bool) -> Condition:
        name = self._column(column)
        values = [self._value(literal, name) for literal in listed]
        if any(isinstance(value, float) for value in values):
            values = [float(value) for value in values]
        return OneOf(name, tuple(values), negated)

    def _like(self, column: exp.Expr, literal: exp.Literal, negated: bool) -> Condition:
        name = self._column(column, "string")
        pattern = str(self._value(literal, name))
        if not _is_well_escaped(pattern):
            self._refuse("in a pattern of like, a backslash stands before %, _ or a backslash")
        return Like(name, pattern, negated)

    def _column(self, node: exp.Expr, wanted: str | None = None) -> str:
        from sqlglot import exp

        if isinstance(node, exp.Func):
            self._refuse(f"there are no functions, found {describe(node.sql())}")
        if not isinstance(node, exp.Column):
            self._refuse(f"found {describe(node.sql())} where a column was wanted")
        name = ".".join(part.name for part in node.parts)
        if name not in self.columns:
            raise OmniAlignError(
                f"cannot filter by {describe(self.text)}: no column '{name}'; "
                f"{choices(name, self.columns)}"
            )
        kind = self.columns[name]
        if wanted is not None and kind != wanted:
            self._refuse(
                f"column '{name}' holds {PLURALS.get(kind, kind)}, wanted {PLURALS[wanted]}"
            )
        return name

    def _value(self, node: exp.Expr, column: str) -> Value:
        """A literal of the type that the column has."""
        from sqlglot import exp

        value: Value
        match node:
            case exp.Null():
                self._refuse(f"a comparison with null is never true; write {column} is null")
            case exp.Column():
                self._refuse(
                    f"found {describe(node.sql())} where a value was wanted; a string stands in "
                    "single quotes"
                )
            case exp.Literal(this=this, is_string=True):
                value = this
            case exp.Boolean(this=this):
                value = this
            case exp.Literal(this=this):
                value = self._number(this)
            case exp.Neg(this=exp.Literal(this=this, is_string=False)):
                value = -self._number(this)
            case _:
                self._refuse(f"found {describe(node.sql())} where a value was wanted")
        kind = self.columns[column]
        found = TYPES[type(value)]
        if found != kind:
            self._refuse(
                f"column '{column}' holds {PLURALS.get(kind, kind)}, and is compared with {value!r}"
            )
        return value

    def _number(self, text: str) -> int | float:
        try:
            number = int(text) if text.isdecimal() else float(text)
        except ValueError:
            number = math.inf
        if not math.isfinite(number):
            self._refuse(f"{describe(text)} is no number")
        return number if abs(number) < 2**63 else float(number)


def _is_well_escaped(pattern: str) -> bool:
    rest = pattern.replace("\\\\", "").replace("\\%", "").replace("\\_", "")
    return "\\" not in rest
