"""Temperatures, one a pair or one that all pairs share; and biases of pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

SHARED = "shared"
"""The key of the one temperature; that of a pair's own has a hyphen."""
FIRST_BIAS = -10.0
"""Of the sigmoid loss, which begins by taking no entry for a pair (Zhai et al. 2023,
arXiv:2303.15343)."""


def pair_key(x: str, y: str) -> str:
    """The name of a pair, the same in both orders."""
    return "-".join(sorted((x, y)))


class LogScales(nn.ParameterDict):
    """Logs of inverse temperatures.

    Args:
        pairs: pairs of modalities, with the initial temperature.
        shared: whether all pairs have one, or one each.
    """

    def __init__(self, pairs: Mapping[tuple[str, str], float], shared: bool) -> None:
        super().__init__(
            {
                SHARED if shared else pair_key(*pair): torch.tensor(1 / temperature).log()
                for pair, temperature in pairs.items()
            }
        )

    @property
    def is_shared(self) -> bool:
        return SHARED in self

    def of(self, x: str, y: str) -> Tensor:
        """Of a pair; of one never trained, the mean over those trained."""
        key = SHARED if self.is_shared else pair_key(x, y)
        if key in self or not len(self):
            return self[key] if key in self else torch.zeros(())
        return torch.stack(list(self.values())).mean()


class LogitBiases(nn.ParameterDict):
    """What is added to the logits of each of `pairs`."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        super().__init__({pair_key(*pair): torch.tensor(FIRST_BIAS) for pair in pairs})

    def of(self, x: str, y: str) -> Tensor | None:
        """Of a pair; None where it has none."""
        return self.get(pair_key(x, y))
