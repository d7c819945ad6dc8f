"""What people write, through the reader, the windows and the encoders to a vector."""

from __future__ import annotations

import unicodedata

import pytest
import torch
from omnialign_text import Text
from omnialign_text.ngrams import NGramText
from omnialign_text.transformer import TransformerText
from torch import Tensor

from omnialign import Encoder

TEXT = Text()
WRITTEN = {
    "English": "It's 20 °C – naïve “quotes”, e-mail & <tags>.",
    "Vietnamese": "Tiếng Việt có nhiều dấu thanh",
    "Japanese": "日本語の文章、ガギグゲゴ。",
    "Korean": "안녕하세요 세계",
    "Arabic": "مرحبا بالعالم \u202bمن اليمين\u202c",
    "Hebrew": "שָׁלוֹם עוֹלָם",
    "Hindi": "नमस्ते दुनिया, क्षत्रिय",
    "Thai": "สวัสดีชาวโลกกำลัง",
    "Persian": "می\u200cخواهم",
    "emoji": "👩‍👩‍👧 👍🏽 🇫🇷 1️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "rare": "𠮷野家 𝔘𝔫𝔦 \U0001f9ff",
}
KINDS = pytest.mark.parametrize("kind", [TransformerText, NGramText])


def embedded(encoder: Encoder, text: str) -> Tensor:
    """The mean over the windows, as the policy `windows` has it."""
    assert TEXT.long_input == "windows"
    assert encoder.window is not None
    windows = TEXT.segments(TEXT.read(text), encoder.window)
    return encoder(encoder.collate([encoder.preprocess(w.sample) for w in windows])).mean(0)


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_every_script_passes_unharmed(text: str) -> None:
    assert TEXT.read(text) == unicodedata.normalize("NFC", text)
    assert TEXT.read(text.encode()) == TEXT.read(text.encode("utf-16")) == TEXT.read(text)
    assert TEXT.preview(TEXT.read(text)).data.decode() == TEXT.read(text)


@KINDS
@torch.no_grad()
def test_composed_and_decomposed_letters_give_one_vector(kind: type[Encoder]) -> None:
    torch.manual_seed(0)
    encoder = kind().eval()
    decomposed = 0
    for text in WRITTEN.values():
        apart = unicodedata.normalize("NFD", text)
        decomposed += apart != text
        assert torch.equal(embedded(encoder, text), embedded(encoder, apart))
    assert decomposed == 4, "English, Vietnamese, Japanese, Korean"


@KINDS
@torch.no_grad()
def test_texts_of_one_script_differ(kind: type[Encoder]) -> None:
    torch.manual_seed(0)
    encoder = kind().eval()
    for one, other in (
        ("नमस्ते", "दुनिया"),
        ("สวัสดี", "ชาวโลก"),
        ("مرحبا", "بالعالم"),
        ("日本", "中国"),
        ("👍🏽", "👍🏿"),
        ("👩‍👩‍👧", "👩‍👩‍👦"),
    ):
        cosine = torch.cosine_similarity(embedded(encoder, one), embedded(encoder, other), dim=0)
        assert cosine < 0.99


@KINDS
@torch.no_grad()
def test_every_word_of_a_chapter_is_seen(kind: type[Encoder]) -> None:
    torch.manual_seed(0)
    encoder = kind(max_bytes=32).eval()
    chapter = [f"word{i}" for i in range(60)]
    whole = embedded(encoder, " ".join(chapter))
    for i in range(len(chapter)):
        changed = [*chapter[:i], "other", *chapter[i + 1 :]]
        assert not torch.allclose(whole, embedded(encoder, " ".join(changed)), atol=1e-6)
