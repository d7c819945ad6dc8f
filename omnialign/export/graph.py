"""The graph of a tower: from a collated batch of any size and length to unit vectors.

Axes: n encoder inputs, L places of a padded one, D dim.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from omnialign.data.buckets import mask_of
from omnialign.errors import ModelError, PluginError
from omnialign.tower import Tower, prefix

ONLY_INPUT = "inputs"
"""The name of a batch that is one tensor."""
OUTPUT = "embeddings"
_ADVICE = re.compile(r"[^.!?]*\bTORCH_LOGS=.*")
"""Of torch to those who look for a fault within it."""
TRACED_ROWS = 3
"""More than one, which torch.export would take for a constant."""


@dataclass(frozen=True)
class Input:
    """A named tensor of the batch; an axis of any size has a name in the place of a number."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class TowerGraph(nn.Module):
    """Encoder, projection and the cut to `dim`, without length buckets, which belong to training.

    The batch is as `collate` gives it: a tensor, or a dict of tensors.
    """

    def __init__(self, tower: Tower, dim: int) -> None:
        super().__init__()
        self.encoder = tower.encoder
        self.projection = tower.projection
        self.dim = dim

    def forward(self, batch: Any) -> Tensor:
        vectors = self.projection(self.encoder(batch)).float()
        return prefix(nn.functional.normalize(vectors, dim=-1), self.dim)


def named(batch: Any) -> dict[str, Tensor]:
    """The tensors of a collated batch by name; raises `PluginError` for anything else."""
    found = dict(batch) if isinstance(batch, Mapping) else {ONLY_INPUT: batch}
    if not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise PluginError(
            "export wants an encoder whose batches are a tensor or a dict of tensors; this one's "
            f"collate gives {type(batch).__name__} of "
            f"{', '.join(sorted({type(tensor).__name__ for tensor in found.values()}))}"
        )
    return found


def describe_inputs(tower: Tower, inputs: Sequence[Any]) -> list[Input]:
    """What the graph takes: an axis is free where masks say so, or where these inputs differ."""
    collate = tower.pipeline.collate
    batches = [collate([one]) for one in inputs]
    padded = mask_of(batches[0]) is not None
    described: list[Input] = []
    for name, first in named(batches[0]).items():
        shape: list[int | str] = ["n", *first.shape[1:]]
        for axis in range(1, first.ndim):
            sizes = {named(batch)[name].shape[axis] for batch in batches}
            if padded and axis == 1:
                shape[axis] = "length"
            elif len(sizes) > 1:
                shape[axis] = f"{name}_{axis}"
        described.append(Input(name, str(first.dtype).removeprefix("torch."), tuple(shape)))
    return described


def trace(
    tower: Tower, dim: int, inputs: Sequence[Any], described: Sequence[Input]
) -> ExportedProgram:
    """The program of `TowerGraph`; raises `ModelError` where the encoder cannot be traced.

    `inputs` are the encoder's, one at least; `described` is what `describe_inputs` says of them.
    """
    collate = tower.pipeline.collate
    largest = max(inputs, key=lambda one: sum(t.numel() for t in named(collate([one])).values()))
    batch = collate([largest] * TRACED_ROWS)
    mask = mask_of(batch)
    if mask is not None and mask.shape[1] == 1:  # a constant to torch.export
        batch = {
            k: torch.cat([t, torch.zeros_like(t)], 1) if t.ndim > 1 else t for k, t in batch.items()
        }
    axes = {
        one.name: {i: Dim.DYNAMIC for i, size in enumerate(one.shape) if isinstance(size, str)}
        for one in described
    }
    shapes = axes if isinstance(batch, Mapping) else axes[ONLY_INPUT]
    graph = TowerGraph(tower, dim).eval()
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(graph, (batch,), dynamic_shapes=(shapes,))
    except Exception as error:  # torch.export raises many types, its own and those of Python
        name = tower.config["encoder"]["name"]
        said = next(iter(str(error).strip().splitlines()), "")
        cause = _ADVICE.sub("", said).strip() or type(error).__name__
        raise ModelError(
            f"the {tower.modality.name} encoder '{name}' cannot be exported, because its forward "
            f"decides something by the values or the size of a batch: {cause}"
        ) from error


@contextmanager
def quiet() -> Generator[None]:
    """Without the warnings and logs of exporters, which are about their own insides."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
