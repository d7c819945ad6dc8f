"""Protein language models of the ESM family, through the `transformers` library.

Axes: n proteins, T tokens (residues between two marks), W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoTokenizer, EsmModel

from omnialign import Encoder, OmniAlignError
from omnialign_protein.fasta import ALPHABET

Pooling = Literal["mean", "cls"]
NUM_MARKS = 2


@dataclass(frozen=True)
class EsmIds:
    """Residues to the ids of a model's vocabulary, `(T,)`: mark, at most `max_residues`, mark."""

    max_residues: int
    first: int
    last: int
    ids: tuple[int, ...]
    """Of each letter of `ALPHABET`."""

    def __call__(self, sample: str) -> Tensor:
        of = dict(zip(ALPHABET, self.ids, strict=True))
        ids = [of[residue] for residue in sample[: self.max_residues]]
        return torch.tensor([self.first, *ids, self.last])


@dataclass(frozen=True)
class PadResidues:
    """Ids to `input_ids` and `attention_mask`, both `(n, T)`, padded at the end."""

    pad_id: int

    def __call__(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(ids) for ids in inputs])
        mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        ids = pad_sequence(list(inputs), batch_first=True, padding_value=self.pad_id)
        return {"input_ids": ids, "attention_mask": mask.long()}


class EsmProtein(Encoder):
    """An ESM model (Lin et al. 2023, "Evolutionary-scale prediction of atomic-level protein
    structure with a language model", Science 379), by hub name or folder.

    `pooling`: `mean` over the residues without the marks, `cls` the first mark. `revision` fixes a
    version on the hub. Residues that the vocabulary lacks become its X.
    """

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        pooling: Pooling = "mean",
        max_residues: int = 512,
    ) -> None:
        super().__init__()
        try:
            config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
            if config.model_type != "esm":
                raise OmniAlignError(
                    f"protein encoder 'esm' wants a model of type 'esm'; '{model}' is of type "
                    f"'{config.model_type}'"
                )
            esm: Any = EsmModel
            network, loaded = esm.from_pretrained(
                model,
                revision=revision,
                dtype=torch.float32,
                add_pooling_layer=False,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(
                model, revision=revision, trust_remote_code=False
            )
        except OmniAlignError:
            raise
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise OmniAlignError(_no_model(model, error)) from None
        self._build(network, tokenizer, pooling, max_residues)
        lost = set(dict(self.model.named_parameters())) & set(loaded["missing_keys"])
        if lost:
            raise OmniAlignError(
                f"the checkpoint of '{model}' lacks {len(lost)} weights of an ESM model "
                f"({min(lost)}, …); it belongs to another model"
            )

    def _build(self, network: Any, tokenizer: Any, pooling: Pooling, max_residues: int) -> None:
        config = network.config
        longest = config.max_position_embeddings - config.pad_token_id - 1 - NUM_MARKS
        if not 1 <= max_residues <= longest:
            raise OmniAlignError(
                f"protein encoder 'esm': max_residues is 1 to {longest} for this model; got "
                f"{max_residues}"
            )
        network.contact_head = None
        self.model = network
        self.tokenizer = tokenizer
        self.pooling = pooling
        self.width = config.hidden_size
        self.window = max_residues
        vocabulary = tokenizer.get_vocab()
        unknown = vocabulary["X"]
        self.preprocess = EsmIds(
            max_residues,
            tokenizer.cls_token_id,
            tokenizer.eos_token_id,
            tuple(vocabulary.get(letter, unknown) for letter in ALPHABET),
        )
        self.collate = PadResidues(tokenizer.pad_token_id)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        ids, mask = batch["input_ids"], batch["attention_mask"]
        x = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.pooling == "cls":
            return x[:, 0]
        num_residues = mask.sum(1, keepdim=True) - NUM_MARKS
        place = torch.arange(x.shape[1], device=x.device)
        residue = (place >= 1) & (place <= num_residues)
        return (x * residue[..., None]).sum(1) / num_residues

    def save_files(self, folder: Path) -> None:
        """The model's configuration and its tokenizer."""
        self.model.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @classmethod
    def from_files(
        cls, folder: Path, *, pooling: Pooling = "mean", max_residues: int = 512, **origin: Any
    ) -> Self:
        """Rebuilds it from `save_files`; where it came from (`model`, `revision`) is not used."""
        del origin
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        network = EsmModel(config, add_pooling_layer=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        encoder._build(network, tokenizer, pooling, max_residues)
        return encoder


def _no_model(model: str, error: Exception) -> str:
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if Path(model).is_dir():
        return (
            f"cannot load an ESM model from the folder '{model}': {cause}; it needs config.json, "
            "model.safetensors and vocab.txt, as save_pretrained writes them"
        )
    return (
        f"cannot load the ESM model '{model}': there is no such folder, and the hub did not give "
        f"it ({cause}); check the name, download it once while online, or pass a local folder"
    )
