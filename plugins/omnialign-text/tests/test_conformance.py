from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from omnialign_text import Text

from omnialign.testing import ModalityConformance


class TestText(ModalityConformance):
    modality = Text()
    encoder_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "transformer": {"width": 32, "depth": 1, "num_heads": 2},
        "ngrams": {"width": 32, "num_buckets": 512},
    }

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any] | None:
        return tiny_bert(folder) if encoder == "transformers" else None


def tiny_bert(folder: Path) -> Mapping[str, Any]:
    """A BERT of a few thousand weights whose tokens are letters, saved in `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(code) for code in range(33, 127)]
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = marks + letters + [f"##{letter}" for letter in letters]
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=96,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}).save_pretrained(folder)
    return {"model": str(folder), "max_tokens": 64}
