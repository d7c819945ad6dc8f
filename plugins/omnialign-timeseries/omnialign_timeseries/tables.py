"""CSV and Parquet: a column a channel, and perhaps one of time.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from omnialign import ReadError

PARQUET_MAGIC = b"PAR1"
TIME_COLUMNS = ("time_seconds", "time", "timestamp")
"""In seconds, or of a date and time type; lower case, compared without regard to case."""
MAX_TIME_SECONDS = 1e11
"""As a number: the year 5138 since 1970; what is beyond is milliseconds or finer."""
MAX_JITTER = 0.1
"""Of a step: where steps differ by more, the values are interpolated onto an even clock."""
MAX_GROWTH = 4
"""Times as many steps as there are rows, at most, when a gappy clock is made even."""

Array = np.ndarray[Any, Any]
Table = tuple[Array, float | None, tuple[str, ...]]
"""Values `(T, C)`, rate in Hz, names."""


def read_csv(source: Any, data: bytes, max_values: int) -> Table:
    """A header of channel names and rows of numbers; an empty cell is a gap."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(source, f"wanted CSV in UTF-8; {error}") from error
    options = arrow_csv.ConvertOptions()
    try:
        header = next(csv.reader(io.StringIO(text)), [])
        names = [name.strip() for name in header]
        check_header(source, names)
        if len(header) * text.count("\n") > max_values:
            raise ReadError(source, f"wanted at most {max_values} values, found more")
        options.column_types = {
            n: pa.float64() for n in header if n.strip().lower() not in TIME_COLUMNS
        }
        table = arrow_csv.read_csv(io.BytesIO(data), convert_options=options).rename_columns(names)
    except csv.Error as error:
        raise ReadError(source, f"wanted CSV; {error}") from error
    except pa.ArrowInvalid as error:
        fault = first_fault(text, options.null_values) or str(error)
        raise ReadError(source, fault) from error
    return from_table(source, table, max_values)


def check_header(source: Any, names: Sequence[str]) -> None:
    """Refuses equal and empty names, a first row that is values, and cells that no comma parts.

    Columns that are counted from 0, as pandas writes those of an array, have names.
    """
    check_names(source, names)
    if "" in names:
        raise ReadError(
            source,
            f"column {names.index('') + 1} has no name; take it out (pandas: "
            "to_csv(…, index=False)), or name it",
        )
    counted = list(names) == [str(i) for i in range(len(names))]
    if names and not counted and all(is_number(name) for name in names):
        raise ReadError(
            source, f"wanted a header of channel names, found the numbers {', '.join(names)}"
        )
    other = next((mark for mark in ";\t|" if len(names) == 1 and mark in names[0]), None)
    if other:
        raise ReadError(source, f"wanted commas between cells, found {other!r} in the header")


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def first_fault(text: str, gaps: Collection[str]) -> str | None:
    """What is wrong with the first cell or row that is not numbers under a header."""
    header, *rows = csv.reader(io.StringIO(text))
    for number, row in enumerate(rows, start=2):
        if row and len(row) != len(header):
            return f"row {number}: wanted {len(header)} cells, found {len(row)}"
        for name, cell in zip(header, row, strict=False):
            if cell not in gaps and not is_number(cell):
                return f"row {number}, column '{name}': wanted a number, found {cell!r}"
    return None


def read_parquet(source: Any, data: bytes, max_values: int) -> Table:
    """Columns of numbers; the file's metadata may declare `sample_rate_hz`."""
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        if file.metadata.num_rows * file.metadata.num_columns > max_values:
            raise ReadError(source, f"wanted at most {max_values} values, found more")
        check_names(source, file.schema_arrow.names)
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise ReadError(source, f"wanted a sound Parquet file; {error}") from error
    values, rate, names = from_table(source, table, max_values)
    declared = (table.schema.metadata or {}).get(b"sample_rate_hz")
    if declared is None:
        return values, rate, names
    try:
        return values, float(declared), names
    except ValueError:
        raise ReadError(source, f"its metadata says sample_rate_hz = {declared!r}") from None


def from_table(source: Any, table: pa.Table, max_values: int) -> Table:
    """An arrow table; only numbers, booleans and times are taken."""
    columns: dict[str, Array] = {}
    for name in table.column_names:
        column = table.column(name)
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("ns", column.type.tz))
        elif pa.types.is_boolean(column.type) or pa.types.is_integer(column.type):
            column = column.cast(pa.float64(), safe=False)
        elif not pa.types.is_floating(column.type):
            raise ReadError(source, f"column '{name}': wanted numbers, found {column.type}")
        columns[name] = column.to_numpy()
    return regular(source, columns, max_values)


def with_clock(columns: Mapping[str, Array], index: Any) -> dict[str, Array]:
    """Takes a data frame's index for the clock where it holds dates and no column is a clock."""
    holds_dates = getattr(getattr(index, "dtype", None), "kind", "") == "M"
    if not holds_dates or any(name.lower() in TIME_COLUMNS for name in columns):
        return dict(columns)
    return {TIME_COLUMNS[0]: index.to_numpy("datetime64[ns]"), **columns}


def regular(source: Any, columns: Mapping[str, Array], max_values: int) -> Table:
    """Columns on an even clock.

    Without a column of time there is no rate. With one, the step is the median of its steps; where
    the clock strays from that, the values are interpolated onto even steps.
    """
    clocks = [name for name in columns if name.lower() in TIME_COLUMNS]
    names = tuple(name for name in columns if name not in clocks[:1])
    if not names or not len(columns[names[0]]):
        raise ReadError(source, "wanted at least one channel and one row of values")
    for name in names:
        if columns[name].dtype.kind not in "fiub":
            raise ReadError(source, f"column '{name}': wanted numbers, found {columns[name].dtype}")
    values = np.stack([columns[name].astype(np.float64) for name in names], axis=1)
    if not clocks or len(values) < 2:
        return values, None, names
    seconds = as_seconds(source, clocks[0], columns[clocks[0]])
    steps = np.diff(seconds)
    if not (steps > 0).all():
        row = int(np.argmin(steps > 0)) + 2
        raise ReadError(source, f"column '{clocks[0]}': time does not go on at value {row}")
    step = float(np.median(steps))
    if np.abs(steps - step).max() <= MAX_JITTER * step:
        return values, float(len(steps) / seconds[-1]), names
    num_steps = round(seconds[-1] / step) + 1
    if num_steps > MAX_GROWTH * len(values) or num_steps * len(names) > max_values:
        raise ReadError(
            source,
            f"column '{clocks[0]}': an even clock of {step:g} s needs {num_steps} steps for "
            f"{len(values)} rows; cut the series at its gaps",
        )
    even = step * np.arange(num_steps)
    return np.stack([np.interp(even, seconds, c) for c in values.T], axis=1), 1 / step, names


def check_names(source: Any, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise ReadError(source, f"wanted columns of different names, found {', '.join(names)}")


def as_seconds(source: Any, name: str, clock: Array) -> Array:
    """Seconds since the first row."""
    if clock.dtype.kind not in "fiuM" or np.isnan(clock).any():
        raise ReadError(source, f"column '{name}': wanted a time in seconds in every row")
    if clock.dtype.kind != "M" and np.abs(clock).max() > MAX_TIME_SECONDS:
        raise ReadError(
            source,
            f"column '{name}': wanted seconds, found {np.abs(clock).max():.0f}, which would be "
            "milliseconds or finer; divide it (milliseconds by 1000)",
        )
    since = clock - clock[0]
    return since / np.timedelta64(1, "s") if clock.dtype.kind == "M" else since
