from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omnialign_protein.conv import ConvProtein
from omnialign_protein.esm import EsmProtein
from omnialign_protein.fasta import ALPHABET
from omnialign_protein.transformer import TransformerProtein, rotate, rotations

from omnialign import Encoder, OmniAlignError

RESIDUES = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQ"


def features(encoder: Encoder, proteins: list[str]) -> torch.Tensor:
    return encoder(encoder.collate([encoder.preprocess(protein) for protein in proteins]))


@pytest.mark.parametrize("kind", [ConvProtein, TransformerProtein])
def test_odd_sequences(kind: type[ConvProtein] | type[TransformerProtein]) -> None:
    torch.manual_seed(0)
    encoder = kind(width=32, max_residues=64).eval()
    odd = ["M", "X" * 64, ALPHABET, "A" * 5000]
    found = features(encoder, odd)
    assert found.isfinite().all()
    torch.testing.assert_close(found[3:], features(encoder, ["A" * 64]))
    torch.testing.assert_close(found[:1], features(encoder, ["M"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [ConvProtein, TransformerProtein])
def test_direction_and_place_count(kind: type[ConvProtein] | type[TransformerProtein]) -> None:
    torch.manual_seed(0)
    x, turned = features(kind(width=32).eval(), [RESIDUES, RESIDUES[::-1]])
    assert not torch.allclose(x, turned, atol=1e-3)


def test_rotary_attention_sees_distances_only() -> None:
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    turn = rotations(30, 8, torch.device("cpu"))
    everywhere = (query.expand(-1, -1, 30, -1), key.expand(-1, -1, 30, -1))
    scores = rotate(everywhere[0], turn)[0, 0] @ rotate(everywhere[1], turn)[0, 0].T
    for distance in (-7, 0, 3):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


@pytest.mark.parametrize("kind", [ConvProtein, TransformerProtein])
def test_learns_a_motif(kind: type[ConvProtein] | type[TransformerProtein]) -> None:
    """Tells sequences with a C-x(2)-C-H from those with its residues elsewhere."""
    torch.manual_seed(0)
    rng = random.Random(0)
    encoder = kind(width=32, depth=2)
    decide = torch.nn.Linear(32, 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *decide.parameters()], lr=3e-3)

    def batch(n: int) -> tuple[list[str], torch.Tensor]:
        proteins: list[str] = []
        for i in range(n):
            rest = rng.choices("ADEGIKLNSTV", k=24)
            place = rng.randrange(19)
            rest[place : place + 5] = "CAGCH" if i % 2 else rng.sample("CAGCH", 5)
            proteins.append("".join(rest))
        return proteins, torch.tensor(["CAGCH" in protein for protein in proteins]).float()

    for _ in range(120):
        proteins, wanted = batch(64)
        logits = decide(features(encoder, proteins))[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    proteins, wanted = batch(256)
    with torch.no_grad():
        found = decide(features(encoder.eval(), proteins))[:, 0] > 0
    assert (found == wanted.bool()).float().mean() > 0.9


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (ConvProtein, {"kernel_size": 4}, "kernel_size is odd"),
        (ConvProtein, {"max_residues": 0}, "at least 1"),
        (TransformerProtein, {"width": 36, "num_heads": 4}, "twice num_heads"),
        (TransformerProtein, {"depth": 0}, "at least 1"),
    ],
)
def test_impossible_options(kind: type[ConvProtein], options: dict[str, int], reason: str) -> None:
    with pytest.raises(OmniAlignError, match=reason):
        kind(**options)


def test_the_main_module_needs_no_torch() -> None:
    code = (
        "import sys, omnialign_protein, omnialign_protein.families; print('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def esm_folder(folder: Path) -> str:
    """An ESM-2 of a few thousand weights with the family's vocabulary, saved in `folder`."""
    from transformers import EsmConfig, EsmModel, EsmTokenizer

    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    EsmTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=104,
        pad_token_id=1,
        mask_token_id=tokens.index("<mask>"),
        position_embedding_type="rotary",
        token_dropout=True,
    )
    EsmModel(config).save_pretrained(folder)
    return str(folder)


def test_esm_ids_are_those_of_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    encoder = EsmProtein(esm_folder(tmp_path), max_residues=100)
    wanted = AutoTokenizer.from_pretrained(tmp_path)(RESIDUES)["input_ids"]
    assert encoder.preprocess(RESIDUES).tolist() == wanted
    assert encoder.preprocess("J").tolist() == encoder.preprocess("X").tolist()
    assert len(encoder.preprocess("A" * 500)) == 102


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_esm_pools_residues_only(tmp_path: Path, pooling: str) -> None:
    encoder = EsmProtein(esm_folder(tmp_path), pooling=pooling, max_residues=100).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        alone = features(encoder, [RESIDUES])
        hidden = encoder.model(**encoder.collate([encoder.preprocess(RESIDUES)]))
        together = features(encoder, [RESIDUES, "M" * 100])[:1]
    x = hidden.last_hidden_state[0]
    torch.testing.assert_close(alone[0], x[1:-1].mean(0) if pooling == "mean" else x[0])
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


def test_esm_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertConfig, BertModel

    folder = esm_folder(tmp_path)
    with pytest.raises(OmniAlignError, match="max_residues is 1 to 100 for this model; got 512"):
        EsmProtein(folder)
    with pytest.raises(OmniAlignError, match="no such folder"):
        EsmProtein(str(tmp_path / "nowhere"))
    bert = tmp_path / "bert"
    config = BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
    BertModel(config).save_pretrained(bert)
    with pytest.raises(OmniAlignError, match="is of type 'bert'"):
        EsmProtein(str(bert))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OmniAlignError, match=r"'nobody/esm'.*pass a local folder"):
        EsmProtein("nobody/esm")


@pytest.mark.parametrize("name", ["vocab.txt", "model.safetensors"])
def test_esm_with_a_file_missing(tmp_path: Path, name: str) -> None:
    folder = esm_folder(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(OmniAlignError, match="cannot load an ESM model from the folder"):
        EsmProtein(folder, max_residues=50)
