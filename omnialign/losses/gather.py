"""Gathering rows of all processes with exact gradients.

`accelerate.gather` carries no gradient and `torch.distributed.nn.all_gather` multiplies it by the
number of processes; here each row receives the sum of what all processes owe it.

Axes: n rows here, N rows of all processes, D dim.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather_rows(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """`(n, …)` of every process to `(N, …)`, in rank order; n may differ between processes.

    Without a group it is `x` itself. Integer tensors carry no gradient.
    """
    return x if group is None else _GatherRows.apply(x, group)


def row_offset(n: int, group: dist.ProcessGroup | None, device: torch.device) -> int:
    """Where this process's rows begin in the gathered tensor."""
    return 0 if group is None else sum(_counts(n, group, device)[: dist.get_rank(group)])


def _counts(n: int, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    counts = torch.zeros(dist.get_world_size(group), dtype=torch.int64, device=device)
    counts[dist.get_rank(group)] = n
    dist.all_reduce(counts, group=group)
    return counts.tolist()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        counts = _counts(len(x), group, x.device)
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded, group=group)
        ctx.group = group
        ctx.start = sum(counts[: dist.get_rank(group)])
        ctx.n = len(x)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        total = grad_outputs[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.start : ctx.start + ctx.n], None
