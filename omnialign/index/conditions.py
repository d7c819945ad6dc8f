"""What a filter is once it is read: comparisons, joined by `and` and `or`.

A filter keeps the rows for which it is true. `not` is carried down to the comparisons when it is
read, where a comparison with null is not true either way round, as in SQL; so two values, true and
not true, are enough here.

N rows of a table, V values of a dictionary.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute

Table: TypeAlias = Any
Array: TypeAlias = Any
"""pyarrow's, which has no types."""
Value: TypeAlias = str | bool | int | float
Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

pc: Any = pyarrow.compute
KERNELS = {
    "=": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
"""The comparisons there are, and Arrow's names of them."""


class Condition(ABC):
    """True of some rows."""

    @abstractmethod
    def mask(self, table: Table) -> Mask:
        """Of which rows it is true, (N,)."""

    @abstractmethod
    def milvus(self, field: Callable[[str], str]) -> str:
        """The same as an expression of Milvus; `field` says how a column is called there."""

    @abstractmethod
    def columns(self) -> frozenset[str]:
        """The columns it looks at."""


@dataclass(frozen=True)
class Joined(Condition):
    """All of several conditions, or any of them."""

    word: str
    """`and` or `or`."""
    parts: Sequence[Condition]

    def mask(self, table: Table) -> Mask:
        join = np.logical_and if self.word == "and" else np.logical_or
        return join.reduce([part.mask(table) for part in self.parts])

    def milvus(self, field: Callable[[str], str]) -> str:
        return "(" + f" {self.word} ".join(part.milvus(field) for part in self.parts) + ")"

    def columns(self) -> frozenset[str]:
        return frozenset[str]().union(*(part.columns() for part in self.parts))


@dataclass(frozen=True)
class OfColumn(Condition):
    """Looks at one column."""

    column: str

    def mask(self, table: Table) -> Mask:
        chunks = table.column(self.column).chunks
        return np.concatenate([np.zeros(0, bool), *(self._of_chunk(chunk) for chunk in chunks)])

    def columns(self) -> frozenset[str]:
        return frozenset({self.column})

    def milvus(self, field: Callable[[str], str]) -> str:
        return self._expression(field(self.column))

    @abstractmethod
    def _of_chunk(self, chunk: Array) -> Mask: ...

    @abstractmethod
    def _expression(self, name: str) -> str: ...


@dataclass(frozen=True)
class IsNull(OfColumn):
    negated: bool

    def _of_chunk(self, chunk: Array) -> Mask:
        flags = chunk.is_valid() if self.negated else chunk.is_null()
        return flags.to_numpy(zero_copy_only=False)

    def _expression(self, name: str) -> str:
        return f"{name} is not null" if self.negated else f"{name} is null"


class OfValue(OfColumn):
    """Looks at the values of one column; is never true of null."""

    @abstractmethod
    def _of_values(self, values: Array) -> Array: ...

    def _of_chunk(self, chunk: Array) -> Mask:
        if pa.types.is_null(chunk.type):
            return np.zeros(len(chunk), bool)
        if not isinstance(chunk, pa.DictionaryArray):
            return _flags(self._of_values(chunk))
        of_value = np.append(_flags(self._of_values(chunk.dictionary)), False)  # (V + 1,)
        flags = of_value[chunk.indices.fill_null(0).to_numpy(zero_copy_only=False)]
        return flags & chunk.is_valid().to_numpy(zero_copy_only=False)


def _alike(literals: Sequence[Value], values: Array) -> tuple[Array, Array]:
    """Literals and the values of a column as arrays of one type, which has room for both."""
    if not pa.types.is_integer(values.type) and not pa.types.is_floating(values.type):
        return pa.array(literals, values.type), values
    numbers = [n for n in literals if isinstance(n, int | float)]
    if pa.types.is_floating(values.type) or any(isinstance(n, float) for n in numbers):
        return pa.array(map(float, numbers), pa.float64()), values.cast(pa.float64(), safe=False)
    return pa.array(numbers, pa.int64()), values.cast(pa.int64())


def _flags(answers: Array) -> Mask:
    return answers.fill_null(False).to_numpy(zero_copy_only=False)


@dataclass(frozen=True)
class Comparison(OfValue):
    operator: str
    value: Value

    def _of_values(self, values: Array) -> Array:
        (wanted,), values = _alike([self.value], values)
        return getattr(pc, KERNELS[self.operator])(values, wanted)

    def _expression(self, name: str) -> str:
        operator = "==" if self.operator == "=" else self.operator
        return _guarded(name, f"{name} {operator} {_literal(self.value)}", self.operator == "!=")


@dataclass(frozen=True)
class OneOf(OfValue):
    values: Sequence[Value]
    negated: bool

    def _of_values(self, values: Array) -> Array:
        wanted, values = _alike(self.values, values)
        found = pc.is_in(values, wanted)
        if not self.negated:
            return found
        return pc.and_(pc.invert(found), values.is_valid())

    def _expression(self, name: str) -> str:
        operator, word = ("!=", " and ") if self.negated else ("==", " or ")
        each = word.join(f"{name} {operator} {_literal(value)}" for value in self.values)
        return _guarded(name, f"({each})", self.negated)


@dataclass(frozen=True)
class Like(OfValue):
    pattern: str
    negated: bool

    def _of_values(self, values: Array) -> Array:
        if "\\" in self.pattern:  # where Arrow's match_like loses a backslash beside a %
            matches = pc.match_substring_regex(values, _regex(self.pattern))
        else:
            matches = pc.match_like(values, self.pattern)
        return pc.invert(matches) if self.negated else matches

    def _expression(self, name: str) -> str:
        like = f"{name} like {_literal(self.pattern)}"
        return _guarded(name, f"not ({like})", True) if self.negated else like


def _regex(pattern: str) -> str:
    """Of the whole of what a pattern of `like` matches, as RE2 has it."""
    wildcards = {"%": ".*", "_": "."}
    pieces: list[str] = re.findall(r"\\.|.", pattern, re.DOTALL)
    meanings = [wildcards.get(piece) or re.escape(piece[-1]) for piece in pieces]
    return rf"(?s)\A{''.join(meanings)}\z"


def _guarded(name: str, expression: str, is_negative: bool) -> str:
    """Milvus leaves open whether what is negative is true of a value that is not there."""
    return f"({name} is not null and {expression})" if is_negative else expression


def _literal(value: Value) -> str:
    return json.dumps(value, ensure_ascii=False)
