"""Random changes of a text that keep most of its meaning."""

from __future__ import annotations

import torch

from omnialign import OmniAlignError


def _checked(name: str, probability: float) -> float:
    if not 0 <= probability <= 1:
        raise OmniAlignError(f"{name}.probability is {probability}; wanted a number from 0 to 1")
    return probability


class WordDropout:
    """Drops each word with a probability (Iyyer et al. 2015, "Deep unordered composition rivals
    syntactic methods", ACL); at least one stays. Whitespace becomes single spaces."""

    def __init__(self, probability: float = 0.1) -> None:
        self.probability = _checked("word_dropout", probability)

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        words = sample.split()
        draws = torch.rand(len(words), generator=generator).tolist()
        kept = [word for word, draw in zip(words, draws, strict=True) if draw >= self.probability]
        return " ".join(kept) or words[draws.index(max(draws))]


class Case:
    """With a probability writes the whole text in lower case, in capitals or as a sentence."""

    def __init__(self, probability: float = 0.5) -> None:
        self.probability = _checked("case", probability)

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        draw = torch.rand((), generator=generator).item()
        change = int(torch.randint(3, (), generator=generator))
        if draw >= self.probability:
            return sample
        return (sample.lower(), sample.upper(), sample[:1].upper() + sample[1:])[change]


class Typos:
    """With a probability for each letter drops it, doubles it or swaps it with the next one.

    Digits, marks and spaces stay, and so does the first letter of each word.
    """

    def __init__(self, probability: float = 0.02) -> None:
        self.probability = _checked("typos", probability)

    def __call__(self, sample: str, generator: torch.Generator) -> str:
        hits = torch.rand(len(sample), generator=generator) < self.probability
        letters = list(sample)
        for i in hits.nonzero()[:, 0].tolist():
            if i == 0 or not (sample[i].isalpha() and sample[i - 1].isalpha()):
                continue
            change = int(torch.randint(3, (), generator=generator))
            if change == 0:
                letters[i] = ""
            elif change == 1:
                letters[i] *= 2
            elif i + 1 < len(sample) and sample[i + 1].isalpha():
                letters[i], letters[i + 1] = letters[i + 1], letters[i]
        return "".join(letters)
