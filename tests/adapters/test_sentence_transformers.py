"""sentence-transformers gives what the space gives, before and behind its own save and load."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer

from omnialign.adapters import sentence_transformers as adapter
from omnialign.adapters.sentence_transformers import as_sentence_transformer
from omnialign.building import build
from omnialign.errors import ModalityError, ReadError
from omnialign.model_folder import load
from omnialign.recipe import load_recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

TEXTS = [
    "a red heart",
    "grinning face " * 400,
    "x" * 1500,
    "🙂 赤い円, e\u0301gal",
    "  padded \r\n lines\r\n",
    "photos/cat.png",
    "[SEP] <s> {}",
    "?",
]


def close(found: Any, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(torch.as_tensor(found), wanted, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def saved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sentence-transformers")
    as_sentence_transformer(folder).save(str(path))
    return path


@pytest.fixture(scope="module")
def model(saved: Path) -> SentenceTransformer:
    return SentenceTransformer(str(saved), trust_remote_code=True, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_encode_is_embed(model: SentenceTransformer, space: SharedSpace, batch_size: int) -> None:
    found = model.encode(TEXTS, batch_size=batch_size)
    assert found.dtype == np.float32
    close(found, space.embed(TEXTS, "text"))


def test_one_alone_gives_what_it_gives_among_others(
    model: SentenceTransformer, space: SharedSpace
) -> None:
    together = space.embed(TEXTS, "text")
    for text, vector in zip(TEXTS, together, strict=True):
        close(model.encode(text), vector)


def test_more_stretches_than_one_forward_takes(
    model: SentenceTransformer, space: SharedSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "STRETCHES_IN_ONE_FORWARD", 2)
    close(model.encode(TEXTS), space.embed(TEXTS, "text"))


def test_a_space_in_memory_needs_no_folder(space: SharedSpace) -> None:
    close(as_sentence_transformer(space).encode(TEXTS), space.embed(TEXTS, "text"))


def test_it_says_what_it_is(model: SentenceTransformer, space: SharedSpace) -> None:
    assert model.get_embedding_dimension() == space.dim
    assert model.modalities == ["text", "image"]
    scores = model.similarity(model.encode(["a cat"]), model.encode(["a kitten", "a bridge"]))[0]
    assert scores[0] > scores[1] + 0.3


def test_foreign_code_is_refused_until_it_is_trusted(saved: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(saved))


def test_the_folder_is_a_model_of_ours_too(saved: Path, space: SharedSpace) -> None:
    assert load(saved, "cpu").fingerprint() == space.fingerprint()


def test_prompts_and_dimensions_survive_another_save(
    saved: Path, space: SharedSpace, tmp_path: Path
) -> None:
    first = SentenceTransformer(
        str(saved), trust_remote_code=True, truncate_dim=64, prompts={"ask": "find: "}, device="cpu"
    )
    first.save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    small = load(saved, "cpu", dim=64)
    found = again.encode(TEXTS, prompt_name="ask", normalize_embeddings=True)
    close(found, small.embed([f"find: {text}" for text in TEXTS], "text"))
    close(again.encode(TEXTS), space.embed(TEXTS, "text")[:, :64])


def test_a_space_that_was_cut_stays_cut(saved: Path, tmp_path: Path) -> None:
    small = load(saved, "cpu", dim=64)
    as_sentence_transformer(small).save(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert again.get_embedding_dimension() == 64
    close(again.encode(TEXTS), small.embed(TEXTS, "text"))


def test_pictures_by_path_in_memory_or_named(
    model: SentenceTransformer, space: SharedSpace, emoji: list[dict[str, Any]]
) -> None:
    paths = [row["path"] for row in emoji[:3]]
    wanted = space.embed(paths, "image")
    close(model.encode(paths), wanted)
    pictures = [Image.open(path) for path in paths]
    close(model.encode(pictures), wanted)
    close(model.encode([{"image": picture} for picture in pictures]), wanted)
    address = "https://example.org/cat.png"
    close(model.encode([{"text": address}]), space.embed([address], "text"))


def test_recordings_by_path_or_in_memory(real_data: Path) -> None:
    space = build(load_recipe("fsdd")).eval()
    model = as_sentence_transformer(space)
    assert model.modalities == ["text", "audio"]
    paths = [str(path) for path in sorted((real_data / "fsdd" / "audio").iterdir())[:3]]
    close(model.encode(paths), space.embed(paths, "audio"))
    sound = np.sin(np.arange(8000) / 20).astype(np.float32)
    found = model.encode([{"array": sound, "sampling_rate": 8000}])
    close(found, space.embed([(sound, 8000)], "audio"))


def test_kinds_are_not_mixed_in_one_call(
    model: SentenceTransformer, emoji: list[dict[str, Any]]
) -> None:
    with pytest.raises(ValueError, match="mixes multiple modalities"):
        model.encode([emoji[0]["path"], "words"])


def test_what_cannot_be_read_says_so(model: SentenceTransformer) -> None:
    with pytest.raises(ReadError, match="the text is empty"):
        model.encode(["words", " "])


def test_gradients_reach_the_tower(folder: Path) -> None:
    tuned = as_sentence_transformer(load(folder, "cpu"))
    vectors = tuned(tuned.preprocess(["a cat", "a dog"]))["sentence_embedding"]
    (vectors[0] @ vectors[1]).backward()
    gradients = [p.grad for p in tuned[0].space.tower("text").parameters() if p.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.usefixtures("toys")
def test_words_of_any_name_are_text() -> None:
    space = build(parse_recipe(toy.recipe()))
    model = as_sentence_transformer(space)
    assert model.modalities == ["text"]
    close(model.encode(["high fast", "low"]), space.embed(["high fast", "low"], "toy_words"))


@pytest.mark.usefixtures("toys")
def test_a_space_without_words_is_refused() -> None:
    space = build(parse_recipe(toy.recipe()))
    del space.towers["toy_words"]
    with pytest.raises(ModalityError, match="no modality that takes words"):
        as_sentence_transformer(space)
