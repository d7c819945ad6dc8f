"""AdamW and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from omnialign.engine.sharding import is_sharded
from omnialign.errors import RecipeError
from omnialign.recipe import Recipe, Train
from omnialign.space import SharedSpace


def build_optimizer(
    module: nn.Module, train: Train, scales: Mapping[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over what requires gradients.

    Weight decay pulls matrices only: no norms, biases or temperatures. `scales` are the learning
    rates of parameters as shares of the run's, 1 where there is none; each group has its `scale`.
    """
    alike: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            key = ((scales or {}).get(parameter, 1.0), is_sharded(parameter))
            alike.setdefault(key, []).append(parameter)
    if not alike:
        raise RecipeError("nothing is left to train: every encoder is frozen, and so is the rest")
    groups = [
        {
            "params": [p for p in trained if (p.ndim >= 2) == matrices],
            "weight_decay": train.weight_decay if matrices else 0.0,
            "scale": scale,
        }
        for (scale, _), trained in alike.items()
        for matrices in (True, False)
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=(0.9, 0.98), fused=True)


def rate_scales(space: SharedSpace, recipe: Recipe) -> dict[nn.Parameter, float]:
    """The share of the learning rate at which each encoder's parameter learns, where it is not 1.

    What follows the blocks of an encoder learns at its `learning_rate_scale`, each block at
    `layer_decay` times the rate of what follows it, and what stands before the first block as one
    block more (Clark et al. 2020, arXiv:2003.10555). Parameters are in the order in which modules
    are registered.

    Raises `RecipeError` where `layer_decay` finds no blocks.
    """
    found: dict[nn.Parameter, float] = {}
    for modality in space.modalities:
        tower, encoder = recipe.tower(modality), space.tower(modality).encoder
        blocks = encoder.list_blocks() if tower.layer_decay < 1 else []
        if tower.layer_decay < 1 and not blocks:
            raise RecipeError(
                f"towers.{modality}.layer_decay: {type(encoder).__name__} has no blocks; leave it "
                "out, or let the encoder give its list_blocks()"
            )
        depths = {p: len(blocks) - i for i, block in enumerate(blocks) for p in block.parameters()}
        depth = len(blocks) + 1 if blocks else 0
        for parameter in encoder.parameters():
            if parameter in depths:
                depth = 0  # of what is not in a block from here on
            scale = tower.learning_rate_scale * tower.layer_decay ** depths.get(parameter, depth)
            if scale != 1:
                found[parameter] = scale
    return found


def learning_rate(train: Train, step: int) -> float:
    """Linear warm-up, then a half cosine that would reach zero at `num_steps`.

    A function of the step alone, so that there is no schedule to save.
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / (train.warmup_steps + 1)
    left = max(1, train.num_steps - train.warmup_steps)
    progress = min(1.0, (step - train.warmup_steps) / left)
    return train.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """An exponential moving average of trained weights (Polyak & Juditsky 1992).

    The decay rises from 0.1 so that the start is forgotten early.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self.num_steps = 0
        self.weights = {
            name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.num_steps += 1
        decay = min(self._decay, self.num_steps / (self.num_steps + 9))
        for name, parameter in module.named_parameters():
            if name in self.weights:
                self.weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if name in self.weights:
                parameter.copy_(self.weights[name])
