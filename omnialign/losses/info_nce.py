"""Symmetric InfoNCE.

Axes: n pairs here, N pairs of all processes, D dim.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from omnialign.losses.gather import gather_rows, row_offset


def info_nce(
    x: Tensor,
    y: Tensor,
    logit_scale: Tensor | float,
    *,
    x_ids: Tensor | None = None,
    y_ids: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Mean over pairs and both directions of `-log softmax` of the true partner's similarity.

    Van den Oord et al. 2018 (arXiv:1807.03748), in the symmetric form of Radford et al. 2021
    (arXiv:2103.00020).

    Args:
        x: unit vectors `(n, D)`.
        y: unit vectors `(n, D)`; `y[i]` is the partner of `x[i]`.
        logit_scale: the inverse temperature, a positive scalar.
        x_ids: integers `(n,)`, equal for equal items.
        y_ids: integers `(n,)`, likewise. Two pairs that share an item on either side are no
            negatives of each other: their similarity leaves the denominators.
        group: processes whose pairs are negatives too. Each holds its own pairs, and all call it.
            The value is scaled so that gradients averaged over the processes, as DDP does, are
            those of one process that holds all N pairs.

    Returns:
        A scalar, in float32 at least.
    """
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"wants x and y of one shape (n, D); got {(*x.shape,)} and {(*y.shape,)}")
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    with torch.autocast(x.device.type, enabled=False):
        return _info_nce(x, y, logit_scale, x_ids, y_ids, group)


def _info_nce(
    x: Tensor,
    y: Tensor,
    logit_scale: Tensor | float,
    x_ids: Tensor | None,
    y_ids: Tensor | None,
    group: dist.ProcessGroup | None,
) -> Tensor:
    all_x, all_y = gather_rows(x, group), gather_rows(y, group)
    if len(all_x) == 0:
        raise ValueError("wants at least one pair")
    start = row_offset(len(x), group, x.device)
    own = torch.arange(start, start + len(x), device=x.device)
    x_logits = logit_scale * (x @ all_y.T)
    y_logits = logit_scale * (y @ all_x.T)
    duplicates = _duplicates(x_ids, own, group) | _duplicates(y_ids, own, group)
    if isinstance(duplicates, Tensor):
        x_logits = x_logits.masked_fill(duplicates, -torch.inf)
        y_logits = y_logits.masked_fill(duplicates, -torch.inf)
    positives = x_logits.gather(1, own[:, None]).sum()
    normalisers = x_logits.logsumexp(1).sum() + y_logits.logsumexp(1).sum()
    num_processes = 1 if group is None else dist.get_world_size(group)
    return (normalisers / 2 - positives) * (num_processes / len(all_x))


def _duplicates(ids: Tensor | None, own: Tensor, group: dist.ProcessGroup | None) -> Tensor | bool:
    """`(n, N)`: true where another pair has the same item; False without ids."""
    if ids is None:
        return False
    everywhere = gather_rows(ids, group)
    equal = ids[:, None] == everywhere[None, :]
    equal[torch.arange(len(ids), device=ids.device), own] = False
    return equal
