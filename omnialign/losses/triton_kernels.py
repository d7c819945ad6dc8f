# pyright: basic, reportGeneralTypeIssues=false
"""What a GPU does to one block of the similarity matrix, in Triton.

Each program takes a block of rows and columns: the products of its vectors, summed in float32, stay
in registers and go from there into log-sums, or into the derivative of each entry, which is all
that is written. `omnialign.losses.triton_tiles` launches them.

`x` `(n, D)`, `keys` `(m, D)` and `out` `(n, m)` are tensor descriptors, whose borders the hardware
keeps: beyond them it reads zeros and writes nothing. The rest are pointers to contiguous memory,
one number a row or a column; None says that there is nothing of that kind. A number of a row beyond
the last is that of another, and what comes of it is not stored. Entry `row + diagonal == column` is
a pair's own.

Axes: n rows, m columns, D dim.
"""

from __future__ import annotations

import triton
import triton.language as tl

LEAST = tl.constexpr(-60.0)
"""Of a column's largest entry against the block's; below, exponentials that serve rows and columns
both would lose terms of the column's sum."""
MOST_SPREAD = tl.constexpr(60.0)
"""Of log-sums in a block, for one exponential to serve rows and columns."""
LOWEST = tl.constexpr(-3.4e38)
SMALL = tl.constexpr(0.0625)
"""Below, `log(1 + e)` is taken from its series: float32 has too few digits of `1 + e`."""


@triton.jit
def _place(n, m, ROWS: tl.constexpr, COLUMNS: tl.constexpr, GROUP: tl.constexpr):
    """Where this program's block starts; GROUP blocks below each other run side by side, so that
    what they read is in the cache."""
    down, across = tl.cdiv(n, ROWS), tl.cdiv(m, COLUMNS)
    first = tl.program_id(0) // (GROUP * across) * GROUP
    height = tl.minimum(down - first, GROUP)
    inside = tl.program_id(0) % (GROUP * across)
    return (first + inside % height) * ROWS, inside // height * COLUMNS


@triton.jit
def _products(
    x, keys, top, left, D: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """`x @ keys.T` of a block, in float32."""
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, D, STEP):
        a, b = x.load([top, start]), keys.load([left, start])
        sums = tl.dot(a, b.T, sums, input_precision=PRECISION)
    return sums


@triton.jit
def _same(own, r, c, first_rows, first_columns, second_rows, second_columns):
    """Whether an entry that is no pair's own has equal items."""
    same = tl.load(first_rows + r)[:, None] == tl.load(first_columns + c)[None, :]
    if second_rows is not None:
        same |= tl.load(second_rows + r)[:, None] == tl.load(second_columns + c)[None, :]
    return same & ~own


@triton.jit
def _due(
    own, same, r, c, spread_rows, spread_columns, positive_rows, positive_columns,
    MASK: tl.constexpr,
):  # fmt: skip
    """What entries other than a pair's own are due."""
    due = tl.zeros(own.shape, tl.float32)
    if spread_rows is not None:
        due += tl.load(spread_rows + r)[:, None] + tl.load(spread_columns + c)[None, :]
        due = tl.where(own, 0.0, due)
        if MASK:
            due = tl.where(same, 0.0, due)
    if positive_rows is not None:
        both = tl.load(positive_rows + r)[:, None] + tl.load(positive_columns + c)[None, :]
        due += tl.where(same, both, 0.0)
    return due


@triton.jit
def log_sums(
    x, keys, scale, diagonal, n, m,
    first_rows, first_columns, second_rows, second_columns,
    spread_rows, spread_columns, positive_rows, positive_columns,
    row_logs, column_logs, dues,
    D: tl.constexpr, MASK: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Log-sums over each block of its rows and columns, and the sum of what is due times S.

    Stores into `row_logs` `(blocks across, n)`, `column_logs` `(blocks down, m)` and `dues`, a
    number a program.
    """
    top, left = _place(n, m, ROWS, COLUMNS, GROUP)
    S = _products(x, keys, top, left, D, PRECISION, ROWS, COLUMNS, STEP) * scale
    rows, columns = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    if first_rows is not None or spread_rows is not None:
        r, c = rows % n, columns % m
        own = rows[:, None] + diagonal == columns[None, :]
        same = own
        if first_rows is not None:
            same = _same(own, r, c, first_rows, first_columns, second_rows, second_columns)
        if dues is not None:
            due = _due(
                own, same, r, c, spread_rows, spread_columns, positive_rows, positive_columns, MASK
            )
            tl.store(dues + tl.program_id(0), tl.sum(tl.where(inside, S * due, 0.0)))
        if MASK:
            S = tl.where(same, float("-inf"), S)
    if (top + ROWS > n) | (left + COLUMNS > m):
        S = tl.where(inside, S, float("-inf"))
    row_tops = tl.maximum(tl.max(S, 1), LOWEST)
    if column_logs is None:
        row_sums = tl.sum(tl.exp(S - row_tops[:, None]), 1)
    else:
        column_tops = tl.maximum(tl.max(S, 0), LOWEST)
        block_top = tl.max(row_tops, 0)
        if tl.min(tl.where(columns < m, column_tops, block_top), 0) - block_top > LEAST:
            E = tl.exp(S - row_tops[:, None])
            row_sums = tl.sum(E, 1)
            column_sums = tl.sum(E * tl.exp(row_tops - block_top)[:, None], 0)
            column_tops = tl.zeros_like(column_tops) + block_top
        else:
            column_sums = tl.sum(tl.exp(S - column_tops[None, :]), 0)
            row_sums = tl.sum(tl.exp(S - row_tops[:, None]), 1)
        place = column_logs + (top // ROWS).to(tl.int64) * m + columns
        tl.store(place, column_tops + tl.log(column_sums), mask=columns < m)
    place = row_logs + (left // COLUMNS).to(tl.int64) * n + rows
    tl.store(place, row_tops + tl.log(row_sums), mask=rows < n)


@triton.jit
def info_nce_derivatives(
    x, keys, scale, diagonal, n, m,
    first_rows, first_columns, second_rows, second_columns,
    spread_rows, spread_columns, positive_rows, positive_columns,
    row_weights, column_weights, own_target, row_logs, column_logs, out,
    D: tl.constexpr, MASK: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Of each entry S: `row_weight exp(S - row_log) + column_weight exp(S - column_log) - target`.

    An own target is taken before the entry is rounded, since it leaves a small difference.
    """
    top, left = _place(n, m, ROWS, COLUMNS, GROUP)
    G = _products(x, keys, top, left, D, PRECISION, ROWS, COLUMNS, STEP) * scale
    rows, columns = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    r, c = rows % n, columns % m
    own = rows[:, None] + diagonal == columns[None, :]
    same = own
    if first_rows is not None:
        same = _same(own, r, c, first_rows, first_columns, second_rows, second_columns)
        if MASK:
            G = tl.where(same, float("-inf"), G)
    of_rows, weights = tl.load(row_logs + r), tl.load(row_weights + r)
    if column_weights is None:
        G = tl.exp(G - of_rows[:, None]) * weights[:, None]
    else:
        of_columns, others = tl.load(column_logs + c), tl.load(column_weights + c)
        highest = tl.max(of_rows, 0)
        if highest - tl.min(of_columns, 0) < MOST_SPREAD:
            others *= tl.exp(highest - of_columns)
            factors = weights[:, None] + tl.exp(of_rows - highest)[:, None] * others[None, :]
            G = tl.exp(G - of_rows[:, None]) * factors
        else:
            E = tl.exp(G - of_columns[None, :]) * others[None, :]
            G = tl.exp(G - of_rows[:, None]) * weights[:, None] + E
    if spread_rows is not None or positive_rows is not None:
        G -= _due(
            own, same, r, c, spread_rows, spread_columns, positive_rows, positive_columns, MASK
        )
    if (top + diagonal < left + COLUMNS) & (left < top + diagonal + ROWS):
        G -= tl.where(own, tl.load(own_target + r)[:, None], 0.0)
    out.store([top, left], G.to(out.dtype))


@triton.jit
def sigmoid_derivatives(
    x, keys, scale, diagonal, n, m,
    first_rows, first_columns, second_rows, second_columns,
    spread_rows, spread_columns, positive_rows, positive_columns,
    row_weights, column_weights, own_target, bias, costs, sums, out,
    D: tl.constexpr, MASK: tl.constexpr, PRECISION: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, STEP: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Of each entry S: `weight * sigmoid(S) - target`, where weights of row and column add up.

    The sum of that goes into `sums`, and that of `weight * softplus(S) - due * S` into `costs`, a
    number a program; what own entries are due is in the first alone.
    """
    top, left = _place(n, m, ROWS, COLUMNS, GROUP)
    S = _products(x, keys, top, left, D, PRECISION, ROWS, COLUMNS, STEP) * scale + bias
    rows, columns = top + tl.arange(0, ROWS), left + tl.arange(0, COLUMNS)
    r, c = rows % n, columns % m
    own = rows[:, None] + diagonal == columns[None, :]
    same = own
    e = tl.exp(-tl.abs(S))
    series = e * (1 - e * (1 / 2 - e * (1 / 3 - e * (1 / 4 - e * (1 / 5 - e / 6)))))
    cost = tl.maximum(S, 0.0) + tl.where(e < SMALL, series, tl.log(1 + e))
    G = tl.where(S > 0, 1.0, e) / (1 + e)
    weights = tl.load(row_weights + r)[:, None]
    if column_weights is not None:
        weights = weights + tl.load(column_weights + c)[None, :]
    cost *= weights
    G *= weights
    if first_rows is not None:
        same = _same(own, r, c, first_rows, first_columns, second_rows, second_columns)
        if MASK:
            cost = tl.where(same, 0.0, cost)
            G = tl.where(same, 0.0, G)
    if spread_rows is not None or positive_rows is not None:
        due = _due(
            own, same, r, c, spread_rows, spread_columns, positive_rows, positive_columns, MASK
        )
        cost -= due * S
        G -= due
    if (top + diagonal < left + COLUMNS) & (left < top + diagonal + ROWS):
        G -= tl.where(own, tl.load(own_target + r)[:, None], 0.0)
    if (top + ROWS > n) | (left + COLUMNS > m):
        inside = (rows < n)[:, None] & (columns < m)[None, :]
        cost = tl.where(inside, cost, 0.0)
        G = tl.where(inside, G, 0.0)
    tl.store(costs + tl.program_id(0), tl.sum(cost))
    tl.store(sums + tl.program_id(0), tl.sum(G))
    out.store([top, left], G.to(out.dtype))
