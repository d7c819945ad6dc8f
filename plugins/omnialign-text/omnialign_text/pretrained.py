"""Text models of the `transformers` library, by hub name or local folder.

Axes: n texts, T tokens, w width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from omnialign import Encoder, OmniAlignError

Pooling = Literal["mean", "cls", "last", "max"]
Batch = dict[str, Tensor]


@dataclass(frozen=True, repr=False)
class Tokenize:
    """A text to token ids and masks, each `(T,)`."""

    tokenizer: Any
    max_tokens: int

    def __call__(self, sample: str) -> Batch:
        encoded = self.tokenizer(sample, truncation=True, max_length=self.max_tokens)
        return {name: torch.tensor(values) for name, values in encoded.items()}

    def __repr__(self) -> str:
        vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()
        digest = hashlib.sha256(vocabulary).hexdigest()[:16]
        kind = type(self.tokenizer).__name__
        return f"Tokenize({kind}, vocabulary={digest}, max_tokens={self.max_tokens})"


@dataclass(frozen=True)
class PadTokens:
    """Pads at the end: ids with the tokenizer's own padding id, masks with zeros."""

    pad_id: int

    def __call__(self, inputs: Sequence[Batch]) -> Batch:
        return {
            name: nn.utils.rnn.pad_sequence(
                [entry[name] for entry in inputs],
                batch_first=True,
                padding_value=self.pad_id if name == "input_ids" else 0,
            )
            for name in inputs[0]
        }


class PretrainedEncoder(Encoder):
    """Any `transformers` text model with a tokenizer; the text part of a two-tower model.

    Args:
        model: hub name, or a local folder.
        revision: of the hub; pin it.
        pooling: of the last hidden states: `mean` over real tokens, the first token (`cls`), the
            last real token, or the maximum over real tokens.
        max_tokens: what is longer is cut by the tokenizer. A word is at least a token, so the
            window of as many words loses nothing that the tokenizer would keep.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling = "mean",
        max_tokens: int = 128,
    ) -> None:
        super().__init__()
        try:
            network = AutoModel.from_pretrained(model, revision=revision)
            tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
        except (OSError, ValueError) as error:
            where = "the folder" if Path(model).exists() else "neither a folder nor on the hub:"
            first_line = str(error).strip().split("\n")[0]
            raise OmniAlignError(
                f"cannot load the text model '{model}' ({where} {first_line}); give a local "
                "folder with config.json, weights and tokenizer, or a reachable hub name"
            ) from error
        self._set_up(network, tokenizer, pooling, max_tokens)

    def _set_up(
        self, network: nn.Module, tokenizer: Any, pooling: Pooling, max_tokens: int
    ) -> None:
        self.network: Any = getattr(network, "text_model", network)
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.width = int(self.network.config.hidden_size)
        self.window = float(max_tokens)
        pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self.preprocess = Tokenize(tokenizer, max_tokens)
        self.collate = PadTokens(pad_id)
        pooler = getattr(self.network, "pooler", None)
        if isinstance(pooler, nn.Module):
            pooler.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        hidden = self.network(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].bool()
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            last = mask.sum(1).squeeze(-1) - 1
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        if self.pooling == "max":
            return hidden.masked_fill(~mask, -torch.inf).amax(1)
        return (hidden * mask).sum(1) / mask.sum(1)

    def save_files(self, folder: Path) -> None:
        """The network's config and the tokenizer."""
        self.network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        network = AutoModel.from_config(AutoConfig.from_pretrained(folder))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        encoder._set_up(network, tokenizer, options["pooling"], options["max_tokens"])
        return encoder
