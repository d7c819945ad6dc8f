"""Weights of one model for another, and models between two."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from omnialign.errors import ModelError, OmniAlignError
from omnialign.space import SharedSpace
from omnialign.temperature import pair_key


@torch.no_grad()
def take_weights(
    space: SharedSpace,
    source: SharedSpace,
    name: str | Path,
    fixed: Iterable[tuple[str, str]] = (),
) -> None:
    """Gives the towers, temperatures and biases that both have the values of `source`.

    Temperatures of pairs in `fixed` stay.

    Raises `ModelError`, in which the source is called `name`, where they share no tower or a
    shared one differs.
    """
    shared = [m for m in space.modalities if m in source.modalities]
    if not shared:
        raise ModelError(
            f"start_from: {name} has {', '.join(source.modalities)}, the recipe trains "
            f"{', '.join(space.modalities)}; they share no tower"
        )
    found = _differences(source, space, shared)
    if found:
        raise ModelError(
            f"start_from: {name} has {found[0]} in the recipe; say in the recipe what the model "
            "has, or start from another"
        )
    for modality in shared:
        space.tower(modality).load_state_dict(source.tower(modality).state_dict())
    stay = {pair_key(*pair) for pair in fixed}
    for pair, scale in source.log_scales.items():
        if pair in space.log_scales and pair not in stay:
            space.log_scales[pair].copy_(scale)
    for pair, bias in source.logit_biases.items():
        if pair in space.logit_biases:
            space.logit_biases[pair].copy_(bias)


@torch.no_grad()
def interpolate(before: SharedSpace, after: SharedSpace, alpha: float) -> SharedSpace:
    """A model between one before fine-tuning and one after: its weights are the weighted mean.

    WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903): what lies between often keeps what the first
    could do and has most of what the second has learned. Sums are taken in float64.

    Args:
        before: the model that fine-tuning started from.
        after: what came of it.
        alpha: 0 gives the first, 1 the second.

    Raises:
        ModelError: they differ in more than the values of their weights.
    """
    if not 0 <= alpha <= 1:
        raise OmniAlignError(f"alpha is {alpha:g}; it lies between 0 (before) and 1 (after)")
    if set(before.modalities) != set(after.modalities):
        raise ModelError(
            f"the first model has {', '.join(before.modalities)}, the second "
            f"{', '.join(after.modalities)}; only models of the same towers have one between them"
        )
    found = _differences(before, after, before.modalities)
    if found:
        raise ModelError(
            f"the first model has {found[0]} in the second; only models that differ in nothing but "
            "weights have one between them"
        )
    mixed = copy.deepcopy(after)
    ours, theirs, result = (s.state_dict() for s in (before, after, mixed))
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in theirs or name not in ours or ours[name].shape != theirs[name].shape:
            shapes = [str(tuple(s[name].shape)) if name in s else "missing" for s in (ours, theirs)]
            raise ModelError(
                f"{name} is {shapes[0]} in the first model and {shapes[1]} in the second"
            )
        a, b = ours[name].to(theirs[name].device), theirs[name]
        if b.is_floating_point():
            mean = (1 - alpha) * a.double() + alpha * b.double()
            result[name].copy_(mean.to(b.dtype))
        elif not torch.equal(a, b):
            raise ModelError(f"{name} holds other whole numbers in the two models")
    return mixed


def _differences(one: SharedSpace, other: SharedSpace, modalities: list[str]) -> list[str]:
    """What differs besides weights, as `space.dim = 16, but 32`."""
    stated = [_stated(space, modalities) for space in (one, other)]
    return [
        f"{key} = {stated[0].get(key)!r}, but {stated[1].get(key)!r}"
        for key in stated[0] | stated[1]
        if stated[0].get(key) != stated[1].get(key)
    ]


def _stated(space: SharedSpace, modalities: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"space.dim": space.dim}
    for modality in modalities:
        tower = space.tower(modality)
        where = f"towers.{modality}"
        for key, value in tower.config.items():
            options = value if isinstance(value, dict) else {"": value}
            found |= {f"{where}.{key}.{name}".rstrip("."): v for name, v in options.items()}
        found[f"{where}'s preprocessing"] = tower.stated_preprocess()
    return found
