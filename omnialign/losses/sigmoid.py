"""The pairwise sigmoid loss, exact at any batch size.

An entry's gradient wants nothing of the other entries, so one pass over the similarity matrix, a
tile at a time, gives the value and the gradients. Memory is `O((N + m) D)`.

Axes: n pairs here, N pairs of all processes, m hard negatives, M = N + m columns, D dim.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from omnialign.losses import triton_tiles
from omnialign.losses.pairing import Duplicates, Options, Pairing, pair_up, scalar
from omnialign.losses.tiles import Tile, derivative_by_scale, own_cosines, tiles

LARGE = 4.0
"""Above, float32 has too few digits left of `1 - sigmoid` for its logarithm."""


def sigmoid(
    x: Tensor,
    y: Tensor,
    logit_scale: Tensor | float,
    bias: Tensor | float,
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
    """Every entry of the similarity matrix as a question of its own: a pair, or not.

    The sum over all entries of the binary cross-entropy of `logit_scale * cosine + bias`, over the
    number of pairs. Zhai et al. 2023 (arXiv:2303.15343), who start at a scale of 10 and a bias of
    -10.

    Args:
        x: unit vectors `(n, D)`; float32, float64, or 16 bits, which are summed in float32 (on a
            CPU each similarity is then rounded to 16 bits).
        y: unit vectors `(n, D)`; `y[i]` is the partner of `x[i]`.
        logit_scale: the inverse temperature, a positive scalar.
        bias: a scalar; negative, since most entries are no pairs.
        x_ids: as for `info_nce`.
        y_ids: as for `info_nce`.
        duplicates: what two pairs that share an item are to each other: `mask` leaves their entry
            out, `positive` makes it a pair.
        negatives: as for `info_nce`.
        negative_ids: as for `info_nce`.
        weights: non-negative `(n,)`, the share of each pair; an entry has the mean of its row's and
            its column's.
        label_smoothing: from 0 to 1; the label of a pair falls to one less that, which is spread
            over the labels of its row and its column.
        group: as for `info_nce`.

    Returns:
        A scalar, in float32 at least.

    Raises:
        ValueError: shapes, dtypes or values that the above excludes.
    """
    options = Options(
        x_ids, y_ids, duplicates, negatives, negative_ids, weights, label_smoothing, group
    )
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        pairing = pair_up(x, y, options, normalised=False)
    scale, offset = scalar("logit_scale", logit_scale, x), scalar("bias", bias, x)
    if not 0 < scale < math.inf:
        raise ValueError(f"wants a positive, finite logit_scale; got {scale.item()}")
    if not offset.isfinite():
        raise ValueError(f"wants a finite bias; got {offset.item()}")
    loss = _Sigmoid.apply(x, y, negatives, scale, offset, pairing)
    assert isinstance(loss, Tensor)
    return loss


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None,
        scale: Tensor,
        bias: Tensor,
        pairing: Pairing,
    ) -> Tensor:
        ctx.pairing, ctx.dtype = pairing, x.dtype
        wants_x, wants_y, wants_negatives, wants_scale = ctx.needs_input_grad[:4]
        wants_keys = wants_y or wants_negatives
        wants_rows = wants_x or (wants_scale and not wants_keys)
        with torch.autocast(x.device.type, enabled=False):
            keys = pairing.gather_keys(y, negatives)
            loss, d_bias, d_x, d_keys = _one_pass(
                x, keys, scale.item(), bias.item(), pairing, wants_rows, wants_keys
            )
            own = own_cosines(x, y, rounded=not triton_tiles.usable(x)) * scale + bias
            loss = loss - (pairing.own_target * own).sum() / 2
            d_scale = None
            if wants_scale:
                d_scale = derivative_by_scale(d_x, d_keys, x, keys)
        ctx.save_for_backward(scale, d_x, d_keys, d_scale, d_bias)
        return loss * pairing.processes.size

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        scale, d_x, d_keys, d_scale, d_bias = ctx.saved_tensors
        pairing: Pairing = ctx.pairing
        factor = grad_outputs[0] * pairing.processes.size
        d_y = d_negatives = None
        with torch.autocast(scale.device.type, enabled=False):
            if d_keys is not None:
                d_y, d_negatives = pairing.scatter_keys(
                    d_keys * (factor * scale), ctx.needs_input_grad[2], ctx.dtype
                )
            if d_x is not None:
                d_x = (d_x * (factor * scale)).to(ctx.dtype)
            d_scale = d_scale * factor if d_scale is not None else None
        return d_x, d_y, d_negatives, d_scale, d_bias * factor, None


def _one_pass(
    x: Tensor,
    keys: Tensor,
    scale: float,
    bias: float,
    pairing: Pairing,
    wants_x: bool,
    wants_keys: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The loss and its derivatives by the bias, and by `x` and `keys` over the scale.

    The loss lacks what own entries are due. An entry S costs `softplus(S) - target * S`, and its
    derivative is `sigmoid(S) - target`.
    """
    if triton_tiles.usable(x):
        return triton_tiles.sigmoid_one_pass(x, keys, scale, bias, pairing, wants_x, wants_keys)
    N = pairing.num_partners
    tile = Tile(x)
    halves = pairing.weights / 2
    own = pairing.own
    loss, d_bias = halves.new_zeros(()), halves.new_zeros(())
    d_x = halves.new_zeros(x.shape) if wants_x else None
    d_keys = halves.new_zeros(keys.shape) if wants_keys else None
    for r, c in tiles(len(x), N, len(keys)):
        S = tile.similarities(x[r], keys[c], scale).add_(bias)
        excluded, due = pairing.tile(r, c)
        if due is not None:
            loss -= torch.einsum("nm,nm->", S, due) / 2
        if excluded is not None:
            S.masked_fill_(excluded, -torch.inf)
        is_pair = c.start < N
        of_rows = halves[own][r] if is_pair else 2 * halves[own][r]
        of_columns = halves[c] if is_pair else halves.new_zeros(c.stop - c.start)
        beside = tile.beside(S)
        if bool(S.max() > LARGE):
            costs = torch.neg(logsigmoid(-S), out=beside)
            S.sigmoid_()
        else:
            costs = torch.neg(S.sigmoid_(), out=beside).log1p_().neg_()
        loss += torch.dot(costs.sum(1), of_rows) + torch.mv(costs, of_columns).sum()
        S.mul_(torch.add(of_rows[:, None], of_columns, out=beside))
        if due is not None:
            S.sub_(due, alpha=0.5)
        d_bias += S.sum()
        tile.accumulate(S, r, c, x, keys, d_x, d_keys)
    pairing.subtract_own(d_x, d_keys, x, keys, 0.5)
    return loss, d_bias - pairing.own_target.sum() / 2, d_x, d_keys
