from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from omnialign_protein.conv import ConvProtein
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
