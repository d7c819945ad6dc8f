"""How much memory a graph holds, how much there is, and whether it ran out."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn

from omnialign.engine.sharding import is_sharded

CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """What is free on a device now; on a CPU, of what a container may use."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available, _left_in_container())


def _left_in_container() -> int:
    try:
        limit = int((CGROUP / "memory.max").read_text())  # or "max", where there is none
        return max(0, limit - int((CGROUP / "memory.current").read_text()))
    except (OSError, ValueError):
        return sys.maxsize


@dataclass
class Saved:
    """What autograd keeps for the backward, in bytes; weights, which are there anyway, left out."""

    num_bytes: int = 0


@contextmanager
def saved_bytes(module: nn.Module) -> Generator[Saved]:
    """Counts what is kept for the backward by what runs inside; gathered weights too."""
    found = Saved()
    whole = [p for p in module.parameters() if not is_sharded(p)]
    seen = {p.untyped_storage().data_ptr() for p in whole}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            found.num_bytes += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield found


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; on a CPU torch says so in words only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextmanager
def all_or_none(group: dist.ProcessGroup | None, device: torch.device) -> Generator[None]:
    """Makes an allocation that fails in one process of a group fail in all, which then agree."""
    failure: BaseException | None = None
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if group is None or not is_out_of_memory(error):
            raise
        failure = error
    if group is None:
        return
    failed = torch.tensor(float(failure is not None), device=device)
    dist.all_reduce(failed, dist.ReduceOp.MAX, group=group)
    if failed:
        raise failure or torch.OutOfMemoryError("out of memory in another process")
