"""Rows of all processes, and gradients back to the process that owes them.

`accelerate.gather` carries no gradient and `torch.distributed.nn.all_gather` multiplies it by the
number of processes. Here nothing is differentiated: the losses say themselves what goes where.

Axes: n rows here, N rows of all processes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Processes:
    """The processes that share a loss; a group of None is this one alone."""

    group: dist.ProcessGroup | None

    @property
    def size(self) -> int:
        return 1 if self.group is None else dist.get_world_size(self.group)

    def counts(self, n: int, device: torch.device) -> list[int]:
        """The n of every process, in rank order."""
        if self.group is None:
            return [n]
        counts = torch.zeros(self.size, dtype=torch.int64, device=device)
        counts[dist.get_rank(self.group)] = n
        dist.all_reduce(counts, group=self.group)
        return counts.tolist()

    def own(self, counts: list[int]) -> slice:
        """The rows of this process among all."""
        rank = 0 if self.group is None else dist.get_rank(self.group)
        start = sum(counts[:rank])
        return slice(start, start + counts[rank])

    def gather(self, x: Tensor, counts: list[int]) -> Tensor:
        """`(n, …)` of every process to `(N, …)`, in rank order; n may differ between them."""
        most = max(counts)
        if self.group is None or most == 0:
            return x
        padded = x if len(x) == most else x.new_zeros(most, *x.shape[1:])
        if padded is not x:
            padded[: len(x)] = x
        everything = x.new_empty(len(counts) * most, *x.shape[1:])
        parts = list(everything.split(most))
        dist.all_gather(parts, padded.contiguous(), group=self.group)
        if min(counts) == most:
            return everything
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    def scatter_sum(self, total: Tensor, counts: list[int]) -> Tensor:
        """Each process's `(N, …)`, summed, back to the `(n, …)` of this one."""
        if self.group is None:
            return total
        own = counts[dist.get_rank(self.group)]
        received = total.new_empty(self.size * own, *total.shape[1:])
        dist.all_to_all_single(
            received, total.contiguous(), [own] * self.size, counts, group=self.group
        )
        return received.view(self.size, own, *total.shape[1:]).sum(0)

    def merge_log_sums(self, logs: Tensor) -> Tensor:
        """The log of the sum over the processes of `exp(logs)`."""
        if self.group is None:
            return logs
        most = logs.clone()
        dist.all_reduce(most, dist.ReduceOp.MAX, group=self.group)
        most.clamp_(min=torch.finfo(most.dtype).min)
        sums = (logs - most).exp_()
        dist.all_reduce(sums, group=self.group)
        return sums.log_().add_(most)
