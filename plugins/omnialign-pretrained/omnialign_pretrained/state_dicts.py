"""Weights from files: lazily, every name accounted for, never unpickled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from omnialign import ModelError

LazyState = dict[str, Callable[[], Tensor]]
"""What reads a tensor, by its name in the file."""
MOST_LISTED = 50
"""Names in an error."""


def read_lazily(path: Path) -> LazyState:
    """The tensors of a file, none of which is read before it is called for.

    Takes safetensors, and what `torch.save` wrote: mapped into memory, so that only the pages of
    tensors that are called for are read (files from before torch 1.6 are read whole). A training
    checkpoint's `state_dict` is taken out of it, and the `module.` of a model that was trained on
    several devices is taken off its names.

    Raises:
        ModelError: there is no such file, it is damaged, or it wants to run code when it is loaded.
    """
    if not path.is_file():
        raise ModelError(f"no file of weights at '{path}'; check the path")
    state = _safetensors(path) if path.suffix == ".safetensors" else _saved_by_torch(path)
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): read for name, read in state.items()}
    return state


def _safetensors(path: Path) -> LazyState:
    try:
        file: Any = safe_open(path, "pt")
        return {name: partial(file.get_tensor, name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"'{path}' is damaged ({error}); copy it again") from None


def _saved_by_torch(path: Path) -> LazyState:
    try:
        found = torch.load(path, "cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # torch.load raises many types on other files
        raise ModelError(f"'{path}' {refusal(error)}") from None
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(t, Tensor) for t in found.values()):
        raise ModelError(f"'{path}' holds no state_dict: wanted tensors by name")
    return {str(name): partial(_itself, tensor) for name, tensor in found.items()}


def refusal(error: Exception) -> str:
    """What to say of a file that `torch.load` does not take as plain weights.

    Its own advice, to load the file without that limit, is left out.
    """
    wanted = re.search(r"GLOBAL (\S+)", str(error))
    cause = f"it asks for {wanted[1]}" if wanted else type(error).__name__
    return (
        "does not load as plain weights, and nothing else is loaded, because it could run code "
        f"({cause}); take the model's safetensors, or save its state_dict alone"
    )


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def fill(
    path: Path,
    state: LazyState,
    networks: Sequence[tuple[nn.Module, Callable[[str], str]]],
    *,
    also: Iterable[str] = (),
    passed_over: tuple[str, ...] = (),
) -> dict[str, Tensor]:
    """Loads networks from a file of which every name is accounted for.

    Args:
        path: of the file, for errors.
        state: what is in it.
        networks: each with what turns a name of its own into the file's.
        also: names of further tensors that must be there; they are given back.
        passed_over: how the names of what is not wanted begin.

    Raises:
        ModelError: names are missing or unexpected, or shapes differ; it lists them.
    """
    names = [{own: named(own) for own in network.state_dict()} for network, named in networks]
    expected = {name for each in names for name in each.values()} | set(also)
    missing = expected - state.keys()
    unexpected = {x for x in state.keys() - expected if not x.startswith(passed_over)}
    if missing or unexpected:
        raise ModelError(
            f"'{path}' does not hold the weights of this model: "
            f"missing {listed(missing)}; unexpected {listed(unexpected)}"
        )
    for (network, _), each in zip(networks, names, strict=True):
        given = {own: state[name]() for own, name in each.items()}
        wanted = network.state_dict()
        differing = [
            f"{name} {tuple(given[own].shape)} for {tuple(wanted[own].shape)}"
            for own, name in each.items()
            if given[own].shape != wanted[own].shape
        ]
        if differing:
            raise ModelError(f"'{path}' holds weights of other shapes: {listed(differing)}")
        network.load_state_dict(given)
    return {name: state[name]() for name in also}


def listed(names: Iterable[str]) -> str:
    """Names in an error, in order: all up to `MOST_LISTED`, then a count."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - MOST_LISTED} more" if len(ordered) > MOST_LISTED else ""
    return (", ".join(ordered[:MOST_LISTED]) or "none") + rest
