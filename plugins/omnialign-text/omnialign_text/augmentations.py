"""Random changes of a text that keep what it says, more or less."""

from __future__ import annotations

import torch

from omnialign import OmniAlignError


class WordDropout:
    """Leaves out each word with a probability, but never all of them (Iyyer et al., ACL 2015)."""

    def __init__(self, probability: float = 0.1) -> None:
        self.probability = _checked(probability)

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        words = sample.split()
        draws = torch.rand(len(words), generator=generator).tolist()
        kept = [w for w, draw in zip(words, draws, strict=True) if draw >= self.probability]
        return " ".join(kept or [words[draws.index(max(draws))]])


class LowerCase:
    """Writes the whole text in lower case with a probability."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _checked(probability)

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        lowers = torch.rand((), generator=generator).item() < self.probability
        return sample.lower() if lowers else sample


def _checked(probability: float) -> float:
    if not 0 <= probability <= 1:
        raise OmniAlignError(f"probability is {probability}; wanted a number from 0 to 1")
    return probability
