"""How much a graph holds, how much there is, and what to do when there was not enough.

Axes: n rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

SHARE_OF_FREE = 0.5
"""What graphs may take of the memory that is free when training starts."""


def free_bytes(device: torch.device) -> int:
    """What is free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def fitting(rows: float, batch_size: int) -> int:
    """A size of micro-batch: a power of two, of the batch at most.

    It takes a quarter of the `rows` whose graphs fit into memory; the rest is for kept graphs.
    """
    most = max(1, min(int(rows / 4), batch_size))
    return 1 << (most.bit_length() - 1)


@dataclass
class Saved:
    """What autograd keeps for the backward, in bytes; weights, which are there anyway, left out."""

    num_bytes: int = 0


@contextmanager
def saved_bytes(module: nn.Module) -> Generator[Saved]:
    """Counts what is kept for the backward by what runs inside."""
    found = Saved()
    seen = {p.untyped_storage().data_ptr() for p in module.parameters()}

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
