from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from omnialign_protein import Protein

from omnialign.testing import ModalityConformance


class TestProtein(ModalityConformance):
    modality = Protein()
    encoder_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "conv": {"width": 32, "depth": 2},
        "transformer": {"width": 32, "depth": 1, "num_heads": 2},
    }

    def files(self, folder: Path) -> Sequence[Path]:
        paths = [folder / f"ubiquitin{suffix}" for suffix in (".fasta", ".fa", ".faa")]
        for path in paths:
            path.write_text(
                ">ubiquitin\nMQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQ\nRLIFAGKQLEDGR\n"
            )
        return paths

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any] | None:
        return tiny_esm(folder) if encoder == "esm" else None


def tiny_esm(folder: Path) -> Mapping[str, Any]:
    """An ESM-2 of a few thousand weights with the family's vocabulary, saved in `folder`."""
    import torch
    from transformers import EsmConfig, EsmModel, EsmTokenizer

    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=260,
        pad_token_id=1,
        mask_token_id=tokens.index("<mask>"),
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
    )
    EsmModel(config).save_pretrained(folder)
    return {"model": str(folder), "max_residues": 200}
