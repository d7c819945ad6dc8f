"""Several processes give exactly the loss and the gradients of one.

Axes: N pairs of all processes, D dim.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.losses import info_nce
from omnialign.losses.gather import gather_rows, row_offset

COUNTS = {"two": [3, 5], "three": [4, 0, 3]}
"""Rows of each process."""


def problem(n: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([0, 1, 2, 3, 0, 4, 4, 5])[:n]
    return x.requires_grad_(), y.requires_grad_(), scale, ids, torch.arange(n) // 2


def loss_of(
    x: Tensor, y: Tensor, scale: Tensor, x_ids: Tensor, y_ids: Tensor, group: Any
) -> Tensor:
    x, y = normalize(x, dim=-1), normalize(y, dim=-1)
    return info_nce(x, y, scale, x_ids=x_ids, y_ids=y_ids, group=group)


def process(rank: int, folder: str) -> None:
    """One of three processes, of which the first two form a group of their own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=3)
    groups = {"two": dist.new_group([0, 1]), "three": dist.group.WORLD}
    for name, counts in COUNTS.items():
        if rank < len(counts):
            torch.save(share(rank, counts, groups[name]), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


def share(rank: int, counts: list[int], group: Any) -> dict[str, Tensor]:
    """The gradients of one process's rows; DDP averages, so they are divided by the processes."""
    x, y, scale, x_ids, y_ids = problem(sum(counts))
    start = row_offset(counts[rank], group, torch.device("cpu"))
    own = slice(start, start + counts[rank])
    x_own, y_own = x.detach()[own].requires_grad_(), y.detach()[own].requires_grad_()
    loss = loss_of(x_own, y_own, scale, x_ids[own], y_ids[own], group)
    loss.backward()
    z = x.detach()[own].requires_grad_()
    twice = gather_rows(z, group) + gather_rows(z, group)
    (twice * torch.arange(1.0, 1 + sum(counts))[:, None]).sum().backward()
    found = {"x": x_own.grad, "y": y_own.grad, "scale": scale.grad, "loss": loss.detach()}
    averaged = {name: value / len(counts) for name, value in found.items() if value is not None}
    return {**averaged, "twice": z.grad, "gathered": gather_rows(x_ids[own], group)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    mp.spawn(process, args=(str(made),), nprocs=3)
    return made


@pytest.mark.parametrize("name", ["two", "three"])
def test_processes_with_uneven_rows_are_exactly_one_process(name: str, folder: Path) -> None:
    num_processes = len(COUNTS[name])
    parts: list[dict[str, Tensor]] = [
        torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in range(num_processes)
    ]
    x, y, scale, x_ids, y_ids = problem(sum(COUNTS[name]))
    loss = loss_of(x, y, scale, x_ids, y_ids, None)
    loss.backward()
    weights = 2 * num_processes * torch.arange(1.0, 1 + len(x), dtype=torch.float64)
    expected = {"x": x.grad, "y": y.grad, "twice": weights[:, None].expand(-1, 5)}
    for key, gradient in expected.items():
        together = torch.cat([part[key] for part in parts])
        torch.testing.assert_close(together, gradient, rtol=1e-12, atol=1e-12)
    for key, value in (("loss", loss.detach()), ("scale", scale.grad)):
        together = torch.stack([part[key] for part in parts]).sum(0)
        torch.testing.assert_close(together, value, rtol=1e-12, atol=1e-12)
    for part in parts:
        assert torch.equal(part["gathered"], x_ids)


def test_without_a_group_there_is_nothing_to_gather() -> None:
    x = torch.randn(3, 2)
    assert gather_rows(x, None) is x
    assert row_offset(3, None, x.device) == 0
