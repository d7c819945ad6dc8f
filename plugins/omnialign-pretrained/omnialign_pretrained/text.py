"""Texts through the models of `transformers`.

Axes: n samples, T tokens, W width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer

from omnialign import ModelError
from omnialign_pretrained.adapter import INPUT_MASK, PretrainedEncoder, first, stack
from omnialign_pretrained.checkpoint import Origin
from omnialign_pretrained.families import Pooling, family_of

MOST_TOKENS = 512
"""Unless the user says more, of a model that takes more."""
PROBE = "  Déjà-vu: 3 RED circles, don't (two\nlines) … 赤い円 🙂 <s>[SEP]"
"""Case, accents, spaces, marks, scripts and special tokens: where tokenizers differ."""
COUNT_FROM_PADDING = {"camembert", "clap_text_model", "esm", "mpnet", "roberta", "xlm-roberta"}
"""Types of model whose positions begin behind the number of their padding token."""


@dataclass(frozen=True, eq=False)
class Tokenize:
    """A text to token ids `(T,)`, with the tokenizer's special tokens, at most `max_tokens`.

    Text of which the tokenizer leaves nothing is its token 0.
    """

    tokenizer: Any = field(repr=False)
    max_tokens: int
    vocabulary: str
    """A hash that identifies the tokenizer."""

    def __call__(self, text: str) -> Tensor:
        ids = self.tokenizer(text, truncation=True, max_length=self.max_tokens)["input_ids"]
        return torch.tensor(ids or [0])


@dataclass(frozen=True, eq=False)
class TokenizeAndPad:
    """As `Tokenize`, always to `max_tokens` tokens, for models whose features depend on padding."""

    tokenizer: Any = field(repr=False)
    max_tokens: int
    vocabulary: str

    def __call__(self, text: str) -> dict[str, Tensor]:
        given = self.tokenizer(
            [text],
            padding="max_length",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return {k: v for k, v in first(given).items() if k in ("input_ids", INPUT_MASK)}


@dataclass(frozen=True)
class PadTokens:
    """Token ids to `input_ids` and `attention_mask`, both `(n, T)`, padded at the end."""

    pad_id: int

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(ids) for ids in inputs])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        ids = pad_sequence(list(inputs), batch_first=True, padding_value=self.pad_id)
        return {"input_ids": ids, "attention_mask": mask.long()}


def most_tokens(config: Any, tokenizer: Any) -> int:
    """How many tokens a model takes, special ones too."""
    positions = getattr(config, "max_position_embeddings", None) or 10**9
    if config.model_type in COUNT_FROM_PADDING:
        positions -= config.pad_token_id + 1
    return min(tokenizer.model_max_length, positions)


class PretrainedText(PretrainedEncoder):
    """A text model of `transformers`, by hub name or folder.

    Of a model with several towers, or with a decoder, it is the text encoder.

    Args:
        model: a name on the hub, or a folder.
        revision: a branch, tag or commit on the hub.
        pooling: from tokens, special ones too, to one vector; by default what the family does.
        max_tokens: with special tokens; the tokenizer leaves out what a text has more. By default
            what the model takes, at most 512.
        window_bytes: of UTF-8, into which a long text is cut with `long_input = "windows"`.
        trust_remote_code: whether code that comes with the model is run.

    Raises:
        ModelError: there is no such model, or it has no such part or pooling.
    """

    modality = "text"
    processors: ClassVar = (AutoTokenizer,)
    preparation = "tokenizer"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling | None = None,
        max_tokens: int | None = None,
        window_bytes: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        origin = Origin(model, revision, trust_remote_code)
        self._load(origin, pooling, max_tokens=max_tokens, window_bytes=window_bytes)

    def _prepare(self, settings: Any) -> None:
        tokenizer, wanted = self.processor, self.options["max_tokens"]
        if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
            raise self.origin.error("the tokenizer", OSError("it has no vocabulary"))
        longest = most_tokens(settings, tokenizer)
        if wanted is not None and not 4 <= wanted <= longest:
            raise ModelError(
                f"text encoder 'transformers': max_tokens is 4 to {longest} for this "
                f"{settings.model_type} model; got {wanted}"
            )
        padded = family_of(self.config).padded_text
        kept = min(wanted or padded or MOST_TOKENS, longest)
        self.window = self.options["window_bytes"]
        kind = TokenizeAndPad if padded else Tokenize
        self.preprocess = kind(tokenizer, kept, vocabulary_hash(tokenizer))
        self.collate = stack if padded else PadTokens(tokenizer.pad_token_id or 0)


def vocabulary_hash(tokenizer: Any) -> str:
    """Identifies a tokenizer by what it does: its vocabulary, and its ids for a probing text."""
    does = [tokenizer.get_vocab(), tokenizer(PROBE, verbose=False)["input_ids"]]
    return hashlib.sha256(json.dumps(does, sort_keys=True).encode()).hexdigest()[:16]
