"""AdamW and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from omnialign.recipe import Train


def build_optimizer(module: nn.Module, train: Train) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) over what requires gradients.

    Weight decay pulls matrices only: no norms, biases or temperatures.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": train.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.learning_rate, betas=(0.9, 0.98))


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
