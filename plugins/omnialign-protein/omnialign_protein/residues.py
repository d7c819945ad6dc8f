"""Residues as ids, and how features of residues become features of a protein.

Axes: n proteins, T residues with a mark at either end, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnialign_protein.fasta import ALPHABET

START, END = 1, 2
NUM_IDS = 3 + len(ALPHABET)
_IDS = {letter: i for i, letter in enumerate(ALPHABET, start=3)}


@dataclass(frozen=True)
class ResidueIds:
    """Residues to `(T,)` int16: a start mark, at most `max_residues` residues, an end mark."""

    max_residues: int
    alphabet: str = ALPHABET

    def __call__(self, sample: str) -> Tensor:
        ids = [_IDS[residue] for residue in sample[: self.max_residues]]
        return torch.tensor([START, *ids, END], dtype=torch.int16)


class MeanAndMax(nn.Module):
    """Pools `(n, T, W)` to `(n, W)`: the residues on the whole, and the strongest motif."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * width)
        self.mix = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`mask` `(n, T)` is true where there is data."""
        kept = mask[..., None]
        mean = (x * kept).sum(1) / kept.sum(1)
        strongest = x.masked_fill(~kept, -torch.inf).amax(1)
        return self.mix(self.norm(torch.cat([mean, strongest], dim=-1)))
