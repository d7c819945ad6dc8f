"""Random changes of a sequence. Both can touch a motif that a caption names: keep them small."""

from __future__ import annotations

import torch

from omnialign import OmniAlignError


class Mask:
    """Replaces each residue by X, the unknown one, with a probability."""

    def __init__(self, probability: float = 0.1) -> None:
        if not 0 <= probability <= 1:
            raise OmniAlignError(f"mask.probability is {probability}; wanted a number from 0 to 1")
        self.probability = probability

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        hidden = torch.rand(len(sample), generator=generator) < self.probability
        return "".join(
            "X" if hide else residue for residue, hide in zip(sample, hidden.tolist(), strict=True)
        )


class Crop:
    """Keeps one stretch, of a share of the residues drawn between `min_share` and 1."""

    def __init__(self, min_share: float = 0.8) -> None:
        if not 0 < min_share <= 1:
            raise OmniAlignError(f"crop.min_share is {min_share}; wanted more than 0, at most 1")
        self.min_share = min_share

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        share, place = torch.rand(2, generator=generator).tolist()
        kept = max(1, round((self.min_share + share * (1 - self.min_share)) * len(sample)))
        start = round(place * (len(sample) - kept))
        return sample[start : start + kept]
