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

from omnialign.losses import info_nce, sigmoid
from omnialign.losses.processes import Processes

COUNTS = {"two": [3, 5], "four": [2, 3, 0, 3], "none": [4, 4]}
"""Rows of each process; of "none", no process has a hard negative."""
NEGATIVES = {"two": [2, 1], "four": [1, 0, 2, 0], "none": [0, 0]}
"""Hard negatives of each process."""
LOSSES = {
    "info_nce": {},
    "info_nce with everything": {
        "duplicates": "positive",
        "label_smoothing": 0.1,
        "weights": True,
        "negatives": True,
    },
    "info_nce that masks": {"negatives": True},
    "sigmoid": {},
    "sigmoid with everything": {
        "duplicates": "positive",
        "label_smoothing": 0.1,
        "weights": True,
        "negatives": True,
    },
}


def problem(n: int, m: int) -> dict[str, Tensor]:
    """Everything that one process would be given for `n` pairs and `m` hard negatives."""
    generator = torch.Generator().manual_seed(0)
    like = {"generator": generator, "dtype": torch.float64}
    return {
        "x": torch.randn(n, 5, **like),
        "y": torch.randn(n, 5, **like),
        "negatives": torch.randn(m, 5, **like),
        "weights": torch.rand(n, **like),
        "x_ids": torch.tensor([0, 1, 2, 3, 0, 4, 4, 5])[:n],
        "y_ids": torch.arange(n) // 2,
        "negative_ids": torch.arange(m),
    }


def results(name: str, given: dict[str, Tensor], group: Any) -> dict[str, Tensor]:
    """The loss and its gradients by vectors, scale and bias."""
    options = dict(LOSSES[name])
    vectors = {k: given[k].clone().requires_grad_() for k in ("x", "y", "negatives")}
    x, y, negatives = (normalize(v, dim=-1) for v in vectors.values())
    for option in ("negatives", "weights"):
        if options.pop(option, False):
            options[option] = negatives if option == "negatives" else given["weights"]
    if "negatives" in options:
        options["negative_ids"] = given["negative_ids"]
    scale, bias = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (6.0, -1.0))
    ids = {"x_ids": given["x_ids"], "y_ids": given["y_ids"]}
    if name.startswith("info_nce"):
        loss = info_nce(x, y, scale, group=group, **ids, **options)
    else:
        loss = sigmoid(x, y, scale, bias, group=group, **ids, **options)
    loss.backward()
    found = {k: v.grad for k, v in {**vectors, "scale": scale, "bias": bias}.items()}
    return {"loss": loss.detach(), **{k: v for k, v in found.items() if v is not None}}


def process(rank: int, folder: str) -> None:
    """One of four processes, of which the first two form a group of their own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=4)
    two = dist.new_group([0, 1])
    groups = {"two": two, "four": dist.group.WORLD, "none": two}
    for world, counts in COUNTS.items():
        if rank < len(counts):
            given = problem(sum(counts), sum(NEGATIVES[world]))
            own = {
                key: value[_own(NEGATIVES[world] if key.startswith("neg") else counts, rank)]
                for key, value in given.items()
            }
            for name in LOSSES:
                found = results(name, own, groups[world])
                torch.save(found, f"{folder}/{world}-{name}-{rank}.pt")
    dist.destroy_process_group()


def _own(counts: list[int], rank: int) -> slice:
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("processes")
    mp.spawn(process, args=(str(made),), nprocs=4)
    return made


@pytest.mark.parametrize("world", COUNTS)
@pytest.mark.parametrize("name", LOSSES)
def test_processes_with_uneven_rows_are_exactly_one_process(
    name: str, world: str, folder: Path
) -> None:
    """DDP averages gradients, so each process's are divided by their number here."""
    num_processes = len(COUNTS[world])
    parts: list[dict[str, Tensor]] = [
        torch.load(folder / f"{world}-{name}-{rank}.pt", weights_only=True)
        for rank in range(num_processes)
    ]
    whole = results(name, problem(sum(COUNTS[world]), sum(NEGATIVES[world])), None)
    assert {"x", "y", "scale", "loss"} <= whole.keys()
    for key, value in whole.items():
        shares = [part[key] for part in parts if key in part]
        together = torch.cat(shares) if value.ndim else torch.stack(shares).sum(0)
        torch.testing.assert_close(together / num_processes, value, rtol=1e-12, atol=1e-12)


def test_alone_there_is_nothing_to_send() -> None:
    x, alone = torch.randn(3, 2), Processes(None)
    assert alone.gather(x, [3]) is x
    assert alone.scatter_sum(x, [3]) is x
    assert alone.merge_log_sums(x) is x
    assert (alone.size, alone.counts(3, x.device), alone.own([3])) == (1, [3], slice(0, 3))
