"""Symmetric InfoNCE, exact at any batch size.

Two passes over the similarity matrix, a tile at a time: the forward reduces each tile to log-sums
of its rows and columns and drops it, the backward computes it again. Memory is `O((N + m) D)`.

Axes: n pairs here, N pairs of all processes, m hard negatives, M = N + m columns, D dim.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from omnialign.losses import triton_tiles
from omnialign.losses.pairing import Duplicates, Options, Pairing, pair_up, scalar
from omnialign.losses.tiles import Tile, derivative_by_scale, own_cosines, tiles

LOG2_E = math.log2(math.e)
"""Exponentials are taken of base 2, which torch has in a third of the time on a CPU."""
LEAST_SUM = 1e-28
"""Of a column's exponentials relative to the tile's largest; below, float32 has lost terms."""
MOST_SPREAD = 86.0
"""Of binary log-sums in a tile, for one exponential to serve rows and columns."""


def info_nce(
    x: Tensor,
    y: Tensor,
    logit_scale: Tensor | float,
    *,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    duplicates: Duplicates = "mask",
    negatives: Tensor | None = None,
    negative_ids: Tensor | None = None,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Mean over pairs and both directions of `-log softmax` of the true partner's similarity.

    Van den Oord et al. 2018 (arXiv:1807.03748), in the symmetric form of Radford et al. 2021
    (arXiv:2103.00020).

    Args:
        x: unit vectors `(n, D)`; float32, float64, or 16 bits, which are summed in float32 (on a
            CPU each similarity is then rounded to 16 bits).
        y: unit vectors `(n, D)`; `y[i]` is the partner of `x[i]`.
        logit_scale: the inverse temperature, a positive scalar.
        x_ids: integers `(n,)`, equal for equal items.
        y_ids: integers `(n,)`, likewise. Two pairs that share an item on either side are no
            negatives of each other.
        duplicates: what such pairs are instead. `mask` takes their similarity out of the
            denominators; `positive` makes each a partner of the other, and a row's loss the mean
            over its partners (Khosla et al. 2020, arXiv:2004.11362, eq. 2).
        negatives: unit vectors `(m, D)` of y's kind that belong to no pair: further columns for
            every row of x (Karpukhin et al. 2020, arXiv:2004.04906). m may be any number.
        negative_ids: integers `(m,)`; a hard negative with the id of a row's `y` is left out of
            that row.
        weights: non-negative `(n,)`, the share of each pair in the mean; of zeros alone the loss
            is zero.
        label_smoothing: from 0 to 1; what each pair gives up of its target, to be spread evenly
            over the columns that are not left out (Szegedy et al. 2016, arXiv:1512.00567).
        group: processes whose pairs are negatives too. Each holds its own pairs, and all call it.
            The value is scaled so that gradients averaged over the processes, as DDP does, are
            those of one process that holds all N pairs.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: shapes, dtypes or values that the above excludes.
    """
    options = Options(
        x_ids, y_ids, duplicates, negatives, negative_ids, weights, label_smoothing, group
    )
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        pairing = pair_up(x, y, options, normalised=True)
    scale = scalar("logit_scale", logit_scale, x)
    if not 0 < scale < math.inf:
        raise ValueError(f"wants a positive, finite logit_scale; got {scale.item()}")
    loss = _InfoNCE.apply(x, y, negatives, scale, pairing)
    assert isinstance(loss, Tensor)
    return loss


class _InfoNCE(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, negatives: Tensor | None, scale: Tensor, pairing: Pairing
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            keys = pairing.gather_keys(y, negatives)
            row_logs, column_logs, due_total = _log_sums(x, keys, scale.item(), pairing)
            column_logs = pairing.processes.merge_log_sums(column_logs)
            own = own_cosines(x, y, rounded=not triton_tiles.usable(x)) * scale
        ctx.save_for_backward(x, keys, scale, row_logs, column_logs)
        ctx.pairing = pairing
        logs = pairing.weights[pairing.own] * (row_logs + column_logs[pairing.own])
        return ((logs - pairing.own_target * own).sum() - due_total) * (pairing.processes.size / 2)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, keys, scale, row_logs, column_logs = ctx.saved_tensors
        pairing: Pairing = ctx.pairing
        wants_x, wants_y, wants_negatives, wants_scale, _ = ctx.needs_input_grad
        wants_keys = wants_y or wants_negatives
        wants_rows = wants_x or (wants_scale and not wants_keys)
        with torch.autocast(x.device.type, enabled=False):
            d_x, d_keys = _gradients(
                x, keys, scale.item(), pairing, row_logs, column_logs, wants_rows, wants_keys
            )
            factor = grad_outputs[0] * (pairing.processes.size / 2)
            d_scale = d_y = d_negatives = None
            if wants_scale:
                d_scale = derivative_by_scale(d_x, d_keys, x, keys) * factor
            if d_keys is not None:
                d_keys.mul_(factor * scale)
                d_y, d_negatives = pairing.scatter_keys(d_keys, wants_negatives, x.dtype)
            d_x = d_x.mul_(factor * scale).to(x.dtype) if d_x is not None else None
        return d_x, d_y, d_negatives, d_scale, None


def _log_sums(
    x: Tensor, keys: Tensor, scale: float, pairing: Pairing
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sums of rows `(n,)` and columns `(N,)`, and the sum of target times S but for own pairs.

    One exponential an entry: relative to the largest of its row, from where a weighted sum leads to
    the columns.
    """
    if triton_tiles.usable(x):
        return triton_tiles.log_sums(x, keys, scale, pairing)
    N = pairing.num_partners
    tile = Tile(x)
    row_logs = pairing.weights.new_full((len(x),), -torch.inf)
    column_logs = pairing.weights.new_full((N,), -torch.inf)
    due_total = pairing.weights.new_zeros(())
    lowest = torch.finfo(row_logs.dtype).min
    for r, c in tiles(len(x), N, len(keys)):
        S = tile.similarities(x[r], keys[c], scale * LOG2_E)
        excluded, due = pairing.tile(r, c)
        if due is not None:
            due_total += torch.einsum("nm,nm->", S, due)
        if excluded is not None:
            S.masked_fill_(excluded, -torch.inf)
        row_tops = S.amax(1).clamp_(min=lowest)
        S.sub_(row_tops[:, None]).exp2_()
        row_logs[r] = torch.logaddexp2(row_logs[r], S.sum(1).log2_().add_(row_tops))
        if c.start >= N:
            continue
        tile_top = row_tops.max()
        sums = torch.mv(S.T, (row_tops - tile_top).exp2_())
        logs = sums.log2().add_(tile_top)
        if bool((sums < LEAST_SUM).any()):
            again = tile.similarities(x[r], keys[c], scale)
            if excluded is not None:
                again.masked_fill_(excluded, -torch.inf)
            logs = again.logsumexp(0).mul_(LOG2_E)
        column_logs[c] = torch.logaddexp2(column_logs[c], logs)
    return row_logs.div_(LOG2_E), column_logs.div_(LOG2_E), due_total / LOG2_E


def _gradients(
    x: Tensor,
    keys: Tensor,
    scale: float,
    pairing: Pairing,
    row_logs: Tensor,
    column_logs: Tensor,
    wants_x: bool,
    wants_keys: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Twice the derivative by `x` `(n, D)` and by `keys` `(M, D)`, over the scale.

    Of an entry S it is `w_i exp(S - row_log_i) + w_j exp(S - column_log_j) - target`; the second is
    the first times a product of what belongs to the row and what belongs to the column.
    """
    if triton_tiles.usable(x):
        return triton_tiles.info_nce_gradients(
            x, keys, scale, pairing, row_logs, column_logs, wants_x, wants_keys
        )
    N = pairing.num_partners
    tile = Tile(x)
    weights = pairing.weights[pairing.own]
    row_logs, column_logs = row_logs * LOG2_E, column_logs * LOG2_E
    d_x = weights.new_zeros(x.shape) if wants_x else None
    d_keys = weights.new_zeros(keys.shape) if wants_keys else None
    for r, c in tiles(len(x), N, len(keys)):
        S = tile.similarities(x[r], keys[c], scale * LOG2_E)
        excluded, due = pairing.tile(r, c)
        if excluded is not None:
            S.masked_fill_(excluded, -torch.inf)
        of_rows = row_logs[r, None]
        if c.start >= N:
            S.sub_(of_rows).exp2_().mul_(weights[r, None])
        else:
            of_columns = column_logs[c]
            top = of_rows.max()
            factors = tile.beside(S)
            if bool(top - torch.minimum(of_rows.min(), of_columns.min()) < MOST_SPREAD):
                torch.add(
                    (top - of_rows).exp2_().mul_(weights[r, None]),
                    (top - of_columns).exp2_().mul_(pairing.weights[c]),
                    out=factors,
                )
                S.sub_(top).exp2_().mul_(factors)
            else:
                torch.sub(S, of_columns, out=factors).exp2_().mul_(pairing.weights[c])
                S.sub_(of_rows).exp2_().mul_(weights[r, None]).add_(factors)
        if due is not None:
            S.sub_(due)
        tile.accumulate(S, r, c, x, keys, d_x, d_keys)
    pairing.subtract_own(d_x, d_keys, x, keys)
    return d_x, d_keys
