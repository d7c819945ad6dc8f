from __future__ import annotations

import random
import subprocess
import sys

import pytest
import torch
from omnialign_text.ngrams import NGramText, word_buckets
from omnialign_text.transformer import TransformerText
from omnialign_text.words import head, words
from torch.nn import functional as F  # noqa: N812

from omnialign import Encoder, OmniAlignError


def features(encoder: Encoder, texts: list[str]) -> torch.Tensor:
    return encoder(encoder.collate([encoder.preprocess(text) for text in texts]))


def test_words_of_many_scripts() -> None:
    assert words("Three red-ish circles, don't!") == (
        ["Three", "red", "-", "ish", "circles", ",", "don", "'", "t", "!"]
    )
    assert words("café 赤い🙂x") == ["café", "赤", "い", "🙂", "x"]
    assert words("a" * 40) == ["a" * 16, "a" * 16, "a" * 8]
    assert words(" \n ") == [""]


def test_head_never_splits_a_character() -> None:
    assert [head("aé🙂", n) for n in range(1, 8)] == ["a", "a", "aé", "aé", "aé", "aé", "aé🙂"]


@pytest.mark.parametrize("kind", [TransformerText, NGramText])
def test_odd_texts(kind: type[TransformerText] | type[NGramText]) -> None:
    torch.manual_seed(0)
    encoder = kind(width=32).eval()
    odd = [" ", "\u200d", "🙂", "!" * 500, "word " * 20_000, "赤" * 5000, "a" * 100_000]
    assert features(encoder, odd).isfinite().all()
    start = head(odd[4], int(encoder.window or 0))
    assert torch.equal(features(encoder, [odd[4]]), features(encoder, [start]))


@pytest.mark.parametrize("kind", [TransformerText, NGramText])
def test_word_order_counts(kind: type[TransformerText] | type[NGramText]) -> None:
    torch.manual_seed(0)
    encoder = kind().eval()
    one, other = features(encoder, ["a ring left of a star", "a star left of a ring"])
    assert F.cosine_similarity(one, other, dim=0) < 0.999


def test_ngrams_place_a_misspelt_word_near_the_right_one() -> None:
    torch.manual_seed(0)
    right, wrong, other = features(NGramText().eval(), ["elephant", "elephnt", "bicycle"])
    near = F.cosine_similarity(right, wrong, dim=0)
    assert near > F.cosine_similarity(right, other, dim=0) + 0.1


def test_ngram_buckets_are_the_same_everywhere() -> None:
    assert (
        word_buckets("Red", 16384)
        == word_buckets("red", 16384)
        == (*(12366, 2885, 8079, 9169, 7832, 3528),)
    )


def test_the_main_module_needs_no_torch() -> None:
    code = "import sys, omnialign_text; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (TransformerText, {"width": 30}, "multiple of num_heads"),
        (TransformerText, {"max_bytes": 3}, "max_bytes is 8 to"),
        (TransformerText, {"depth": 0}, "at least 1"),
        (NGramText, {"num_buckets": 0}, "at least 1"),
    ],
)
def test_impossible_options(
    kind: type[TransformerText], options: dict[str, int], reason: str
) -> None:
    with pytest.raises(OmniAlignError, match=reason):
        kind(**options)


COLOURS, KINDS = ("red", "green", "blue"), ("circle", "square", "star")
RELATIONS = ("left of", "right of", "above", "below")
Scene = tuple[int, int, int, int, int]


def caption(scene: Scene) -> str:
    a, b, relation, c, d = scene
    return f"a {COLOURS[a]} {KINDS[b]} {RELATIONS[relation]} a {COLOURS[c]} {KINDS[d]}"


def near_misses(scene: Scene) -> list[Scene]:
    """The scene itself, its things swapped, its colours swapped, its relation turned round."""
    a, b, relation, c, d = scene
    return [scene, (c, d, relation, a, b), (c, b, relation, a, d), (a, b, relation ^ 1, c, d)]


@pytest.mark.parametrize("kind", [TransformerText, NGramText])
def test_learns_who_is_where(kind: type[TransformerText] | type[NGramText]) -> None:
    """Told apart from near misses, on combinations that it never saw, after 150 small steps."""
    torch.manual_seed(0)
    rng = random.Random(0)
    scenes: list[Scene] = [
        (a, b, relation, c, d)
        for a in range(3)
        for b in range(3)
        for relation in range(4)
        for c in range(3)
        for d in range(3)
        if (a, b) != (c, d) and a != c
    ]
    rng.shuffle(scenes)
    held_out, seen = scenes[:32], scenes[32:]
    encoder = kind(width=64)
    project = torch.nn.Linear(64, 32)
    codes = torch.nn.ModuleList(torch.nn.Embedding(size, 32) for size in (3, 3, 4, 3, 3))
    mix = torch.nn.Sequential(torch.nn.Linear(160, 128), torch.nn.GELU(), torch.nn.Linear(128, 32))

    def embed(batch: list[Scene]) -> tuple[torch.Tensor, torch.Tensor]:
        columns = torch.tensor(batch).T
        target = mix(torch.cat([code(c) for code, c in zip(codes, columns, strict=True)], 1))
        text = project(features(encoder, [caption(scene) for scene in batch]))
        return F.normalize(text, dim=-1), F.normalize(target, dim=-1)

    parameters = [p for m in (encoder, project, codes, mix) for p in m.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3)
    for _ in range(150):
        text, target = embed(rng.sample(seen, 64))
        logits = 14 * text @ target.T
        loss = F.cross_entropy(logits, torch.arange(64)) + F.cross_entropy(
            logits.T, torch.arange(64)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    right = 0
    with torch.no_grad():
        for scene in held_out:
            text, target = embed(near_misses(scene))
            right += int((target @ text[0]).argmax() == 0)
    assert right >= 24, f"{right} of {len(held_out)}; chance is 8"
