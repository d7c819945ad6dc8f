"""Proteins through the language models of `transformers`.

Axes: n proteins, T tokens (residues between marks), W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import AutoTokenizer

from omnialign import ModelError
from omnialign_pretrained.adapter import PretrainedEncoder
from omnialign_pretrained.checkpoint import Origin
from omnialign_pretrained.families import Pooling
from omnialign_pretrained.text import PadTokens, most_tokens

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
RESIDUES = AMINO_ACIDS + "BJOUXZ"
"""IUPAC one-letter codes."""
WORD_STARTS = ("", "▁")
"""What vocabularies write before the letter of a residue."""


@dataclass(frozen=True)
class ResidueTokens:
    """Residues to the ids of a model's vocabulary, `(T,)`: marks, at most `max_residues`, marks."""

    max_residues: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    ids: tuple[int, ...]
    """Of each letter of `RESIDUES`."""

    def __call__(self, sample: str) -> Tensor:
        of = dict(zip(RESIDUES, self.ids, strict=True))
        kept = [of[residue] for residue in sample[: self.max_residues]]
        return torch.tensor([*self.before, *kept, *self.after])


class PretrainedProtein(PretrainedEncoder):
    """A protein language model of `transformers` (ESM-2, ESM-C), by hub name or folder.

    Any other of whose vocabulary every amino acid is a token will do. Letters that the vocabulary
    lacks become its X.

    Args:
        model: a name on the hub, or a folder.
        revision: a branch, tag or commit on the hub.
        pooling: from residues, without the marks at the ends, to one vector; by default their
            mean. `cls` is the first mark.
        max_residues: that are seen at once.
        trust_remote_code: whether code that comes with the model is run.

    Raises:
        ModelError: there is no such model, or it does not read residues.
    """

    modality = "protein"
    processors: ClassVar = (AutoTokenizer,)
    preparation = "tokenizer"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        max_residues: int = 512,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self._load(Origin(model, revision, trust_remote_code), pooling, max_residues=max_residues)

    def _prepare(self, settings: Any) -> None:
        tokenizer, max_residues = self.processor, self.options["max_residues"]
        vocabulary = tokenizer.get_vocab()
        found = [
            next((vocabulary[s + r] for s in WORD_STARTS if s + r in vocabulary), None)
            for r in RESIDUES
        ]
        unknown = found[RESIDUES.index("X")]
        marked: list[int] = tokenizer(RESIDUES[0])["input_ids"]
        if unknown is None or None in found[: len(AMINO_ACIDS)] or found[0] not in marked:
            raise ModelError(
                f"'{self.origin.model}' does not read proteins: the tokenizer of this "
                f"{settings.model_type} model has no token for each amino acid"
            )
        place = [i == found[0] for i in marked].index(True)
        self.before, self.after = tuple(marked[:place]), tuple(marked[place + 1 :])
        longest = most_tokens(settings, tokenizer) - len(marked) + 1
        if not 1 <= max_residues <= longest:
            raise ModelError(
                f"protein encoder 'transformers': max_residues is 1 to {longest} for this "
                f"{settings.model_type} model; got {max_residues}"
            )
        self.window = max_residues
        ids = tuple(unknown if i is None else i for i in found)
        self.preprocess = ResidueTokens(max_residues, self.before, self.after, ids)
        self.collate = PadTokens(tokenizer.pad_token_id or 0)

    def _held(self, inputs: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Residues only."""
        place = torch.arange(x.shape[1], device=x.device)
        ends = inputs["attention_mask"].sum(1, keepdim=True) - len(self.after)
        return (place >= len(self.before)) & (place < ends)
