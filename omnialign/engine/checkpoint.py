"""Checkpoints: what a run needs to go on, in files that are read without unpickling.

Tensors are whole and go by name, so a checkpoint fits any number of processes, and weights that are
copied to each or sharded over them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from omnialign.engine.optimizer import WeightAverage
from omnialign.engine.sharding import sharded_like, whole

TENSORS = "tensors.safetensors"
COUNTS = "counts.json"


def state_tensors(
    module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> dict[str, Tensor]:
    """Copies of all that training changes, on the CPU; with sharded weights all processes call."""
    found = {f"weights.{name}": tensor for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"optimizer.{key}.{name}"] = value
    if average:
        found |= {f"average.{name}": tensor for name, tensor in average.weights.items()}
    return {name: whole(tensor).cpu().clone() for name, tensor in found.items()}


def restore(
    tensors: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: WeightAverage | None,
) -> None:
    """Puts back what `state_tensors` gave; with sharded weights all processes call.

    Raises `KeyError` or `RuntimeError` where the tensors are of another model.
    """
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(sharded_like(tensor, tensors[f"weights.{name}"]))
        if average:
            for name, tensor in average.weights.items():
                tensor.copy_(sharded_like(tensor, tensors[f"average.{name}"]))
    names = {parameter: name for name, parameter in module.named_parameters()}
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for i, parameter in enumerate(ordered):
        steps = tensors.get(f"optimizer.step.{names[parameter]}")
        if steps is not None:  # else it has never had a gradient
            state[i] = {"step": steps}
            for key in ("exp_avg", "exp_avg_sq"):
                value = tensors[f"optimizer.{key}.{names[parameter]}"]
                state[i][key] = sharded_like(parameter, value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def write(folder: Path, tensors: Mapping[str, Tensor], counts: Mapping[str, Any]) -> None:
    """Writes the files into a new folder, and waits until the disk has them."""
    folder.mkdir(parents=True)
    save_file(dict(tensors), folder / TENSORS)
    (folder / COUNTS).write_text(json.dumps(counts) + "\n", "utf-8")
    for path in (folder / TENSORS, folder / COUNTS):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and counts of a checkpoint."""
    return load_file(folder / TENSORS), json.loads((folder / COUNTS).read_text("utf-8"))
