"""Encoders spread over the processes (FSDP2), for towers larger than one device.

Each process holds a part of every weight, its gradient and its optimizer state, and the whole of a
block's only while it runs (Zhao et al. 2023, arXiv:2304.11277). Projections, temperatures and
biases are small: each process has them whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from omnialign.recipe import Train
from omnialign.tower import Tower


def shards(train: Train, num_processes: int) -> bool:
    """Whether a run spreads its encoders; one process alone has all of them."""
    return train.shard_weights and num_processes > 1


def shard(towers: Iterable[Tower], device: torch.device, num_processes: int) -> None:
    """Spreads the encoders' weights over all processes, in place.

    All processes gather the same weights equally often, so no batch goes in length buckets.
    """
    mesh = init_device_mesh(device.type, (num_processes,))
    for tower in towers:
        scalars = {p for p in tower.encoder.parameters() if p.ndim == 0}
        for module in (*tower.encoder.list_blocks(), tower.encoder):
            fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
        tower.in_buckets = False


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered if it is sharded: then all processes call."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor.detach()


def sharded_like(model: Tensor, tensor: Tensor) -> Tensor:
    """A whole tensor, cut as `model` is: then all processes call."""
    if not isinstance(model, DTensor):
        return tensor
    placed = tensor.to(model.device)
    return distribute_tensor(placed, model.device_mesh, model.placements)


def is_sharded(parameter: Tensor) -> bool:
    return isinstance(parameter, DTensor)


@torch.no_grad()
def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The 2-norm of all entries together; with sharded ones all processes call."""
    parts = [
        whole(nn.utils.get_total_norm(some))
        for sharded in (False, True)
        if (some := [t for t in tensors if is_sharded(t) == sharded])
    ]
    return torch.stack(parts).norm() if parts else torch.zeros(())


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scales all gradients so that their norm is at most `most`; gives the norm before."""
    trained = [p for p in parameters if p.grad is not None]
    norm = total_norm([p.grad for p in trained if p.grad is not None])
    for sharded in (False, True):
        some = [p for p in trained if is_sharded(p) == sharded]
        nn.utils.clip_grads_with_norm_(some, most, norm)
    return norm
