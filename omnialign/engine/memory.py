"""How much memory a graph holds, how much there is, what becomes of it, and whether it ran out."""

from __future__ import annotations

import ctypes
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
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Of glibc's `mallopt`, in bytes: how much freed memory at the end of the heap is given back, and
from what size on a block is mapped by itself and given back as soon as it is freed."""


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


@contextmanager
def freed_memory_kept() -> Generator[None]:
    """Lets a Linux process keep the memory that it frees for what comes next, until the end.

    A training step asks for the same blocks as the step before. Where each was given back, the
    system maps it anew and fills it with zeros, page by page.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "malloc_trim"):  # not glibc
        yield
        return
    assert libc is not None
    libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(MMAP_THRESHOLD, 2**30)
    try:
        yield
    finally:  # as glibc itself sets them once it has seen large blocks
        libc.mallopt(TRIM_THRESHOLD, 2**26)
        libc.mallopt(MMAP_THRESHOLD, 2**25)
        libc.malloc_trim(0)


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
