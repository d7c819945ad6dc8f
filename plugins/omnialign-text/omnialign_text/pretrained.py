"""Any text model of the `transformers` library, from the hub or from a folder.

Axes: n texts, T tokens, W width.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, AutoTokenizer

from omnialign import Encoder, OmniAlignError

Pooling = Literal["mean", "cls", "last", "max"]
BYTES_PER_TOKEN = 4
"""Of the window that a long text is cut into: some nine tenths of `max_tokens` in European
languages. What a denser text has beyond `max_tokens` in one window is not seen."""
PROBE = "  Déjà-vu: 3 RED circles, don't (two\nlines) … 赤い円 🙂 <s>[SEP]"
"""Case, accents, spaces, marks, scripts and special tokens: where tokenizers differ."""


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


@dataclass(frozen=True)
class PadTokens:
    """Token ids to `input_ids` and `attention_mask`, both `(n, T)`, padded at the end."""

    pad_id: int

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(ids) for ids in inputs])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        ids = pad_sequence(list(inputs), batch_first=True, padding_value=self.pad_id)
        return {"input_ids": ids, "attention_mask": mask.long()}


class PretrainedText(Encoder):
    """A text model of `transformers`, by hub name or folder, pooled over its tokens.

    Of a model with several towers (CLIP, T5) it is the text encoder. Code that comes with a model
    is never run.

    `pooling`: `mean` over the tokens, `cls` the first, `last` the last (where CLIP and causal
    models keep the sentence), `max` over the tokens. `revision` fixes a version on the hub.
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
            whole, loaded = AutoModel.from_pretrained(
                model,
                revision=revision,
                dtype=torch.float32,
                trust_remote_code=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                model, revision=revision, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            raise OmniAlignError(_no_model(model, error)) from None
        if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
            raise OmniAlignError(_no_model(model, OSError("its tokenizer has no vocabulary")))
        self._build(whole, tokenizer, pooling, max_tokens)
        kept = {id(parameter) for parameter in self.model.parameters()}
        weights = dict(whole.named_parameters())
        lost = [n for n in loaded["missing_keys"] if n in weights and id(weights[n]) in kept]
        if lost:
            raise OmniAlignError(
                f"the checkpoint of the text model '{model}' lacks {len(lost)} weights of a "
                f"{whole.config.model_type} model ({min(lost)}, …); it belongs to another model"
            )

    def _build(self, whole: Any, tokenizer: Any, pooling: Pooling, max_tokens: int) -> None:
        self.config = whole.config
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.model = text_part(whole)
        own = self.model.config
        longest = min(
            tokenizer.model_max_length, getattr(own, "max_position_embeddings", None) or 10**9
        )
        if not 4 <= max_tokens <= longest:
            raise OmniAlignError(
                f"text encoder 'transformers': max_tokens is 4 to {longest} for this "
                f"{own.model_type} model; got {max_tokens}"
            )
        self.width = own.hidden_size
        self.window = max_tokens * BYTES_PER_TOKEN
        self.preprocess = Tokenize(tokenizer, max_tokens, vocabulary_hash(tokenizer))
        pad_id = tokenizer.pad_token_id
        self.collate = PadTokens(pad_id if pad_id is not None else 0)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        mask = batch["attention_mask"]
        x = self.model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return x[:, 0]
        if self.pooling == "last":
            return x[torch.arange(len(x), device=x.device), mask.sum(1) - 1]
        if self.pooling == "max":
            return x.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def save_files(self, folder: Path) -> None:
        """The model's configuration and its tokenizer."""
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_files(
        cls, folder: Path, *, pooling: Pooling = "mean", max_tokens: int = 128, **origin: Any
    ) -> Self:
        """Rebuilds it from `save_files`; where it came from (`model`, `revision`) is not used."""
        del origin
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        whole = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoder._build(whole, tokenizer, pooling, max_tokens)
        return encoder


def text_part(whole: Any) -> Any:
    """The text encoder of a model, without the pooling layer that ours takes the place of."""
    if getattr(whole.config, "is_encoder_decoder", False):
        whole = whole.get_encoder()
    part = getattr(whole, "text_model", whole)
    if getattr(part, "pooler", None) is not None:
        part.pooler = None
    return part


def vocabulary_hash(tokenizer: Any) -> str:
    """Identifies a tokenizer by what it does: its vocabulary, and its ids for a probing text."""
    does = [tokenizer.get_vocab(), tokenizer(PROBE)["input_ids"]]
    return hashlib.sha256(json.dumps(does, sort_keys=True).encode()).hexdigest()[:16]


def _no_model(model: str, error: Exception) -> str:
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if Path(model).is_dir():
        return (
            f"cannot load a text model from the folder '{model}': {cause}; it needs config.json, "
            "model.safetensors and the tokenizer's files, as save_pretrained writes them"
        )
    return (
        f"cannot load the text model '{model}': there is no such folder, and the hub did not give "
        f"it ({cause}); check the name, download it once while online, or pass a local folder"
    )
