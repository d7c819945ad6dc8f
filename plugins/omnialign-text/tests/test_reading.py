from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from omnialign_text import MAX_TEXT_BYTES, PREVIEW_CHARACTERS, Text

from omnialign import Claim, ReadError

TEXT = Text()
CAPTION = "Three small réd circles, left of a 青い square 🙂"


@pytest.mark.parametrize("suffix", [".txt", ".md"])
def test_one_text_in_every_form(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"caption{suffix}"
    path.write_bytes(b"\xef\xbb\xbf" + CAPTION.encode() + b"\r\n")
    data = path.read_bytes()
    for source in (CAPTION, path, data, bytearray(data), memoryview(data), io.BytesIO(data)):
        assert TEXT.read(source) == CAPTION
    assert TEXT.claim(path) == Claim.OWNS


def test_normal_form_and_line_ends() -> None:
    assert TEXT.read(unicodedata.normalize("NFD", "café")) == unicodedata.normalize("NFC", "café")
    assert TEXT.read("  one\r\ntwo \n") == "one\ntwo"


def test_a_string_is_never_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("content")
    assert TEXT.read(str(path)) == str(path)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        (b"", "empty"),
        (b"\xef\xbb\xbf", "empty"),
        ("a\0b", "NUL"),
        (b"\x89PNG\r\n", "byte 0x89 at 0"),
        ("caf\xe9".encode("latin-1"), "byte 0xe9 at 3"),
        (b"\xef\xbb\xbfcaf\xe9", "0xe9"),
        ("a\ud800b", "lone surrogate at character 1"),
        ("é" * (MAX_TEXT_BYTES // 2 + 1), "at most"),
        (b"a" * (MAX_TEXT_BYTES + 1), "at most"),
        (io.StringIO("words"), "binary mode"),
        (["words"], "wanted a str"),
        (None, "wanted a str"),
    ],
    ids=range(14),
)
def test_refuses(source: Any, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        TEXT.read(source)


def test_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"gone\.txt.*No such file"):
        TEXT.read(tmp_path / "gone.txt")
    with pytest.raises(ReadError, match="Is a directory"):
        TEXT.read(tmp_path)


def test_claims() -> None:
    assert TEXT.claim("MKTAYIAKQR") == Claim.COULD
    assert TEXT.claim(b"plain words") == Claim.COULD
    assert TEXT.claim("é".encode() * 1000) == Claim.COULD
    assert TEXT.claim(b"a" + "é".encode() * 1000) == Claim.COULD
    for other in (b"", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00", b"\xff\xd8", Path("a.wav"), 3, [1]):
        assert TEXT.claim(other) == Claim.NO
    file = io.BytesIO(b"..words of a file")
    file.seek(2)
    assert TEXT.claim(file) == Claim.COULD
    assert file.tell() == 2


@pytest.mark.parametrize("window", [4, 7, 20, 128, 10_000])
@pytest.mark.parametrize(
    "text",
    [
        CAPTION * 9,
        "赤い円" * 50,
        "a" * 300,
        "word  word\n" * 40 + "x",
        "👩‍👩‍👧👍🏽" * 20,
        "e\u0301x" * 60,
    ],
)
def test_segments_lose_nothing(text: str, window: int) -> None:
    parts = [segment.sample for segment in TEXT.segments(text, window)]
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= window for part in parts)


def test_segments_keep_words_and_joined_characters_whole() -> None:
    def parts(text: str, window: int) -> list[str]:
        return [segment.sample for segment in TEXT.segments(text, window)]

    assert parts("one two three", 9) == ["one two ", "three"]
    assert parts("e\u0323\u0301" * 2, 6) == ["e\u0323\u0301"] * 2
    assert parts("👍🏽👍🏽", 12) == ["👍🏽", "👍🏽"]
    assert parts("👩‍👧a", 11) == ["👩‍👧", "a"]
    assert parts("🙂a", 1) == ["🙂", "a"], "a character longer than the window stands alone"


def test_a_very_long_caption() -> None:
    text = TEXT.read("a long caption " * 6667)
    assert len(text) > 100_000 - 16
    assert len(TEXT.segments(text, 128)) < 1000
    preview = TEXT.preview(text)
    assert preview.data.decode().endswith("more characters)")
    assert len(preview.data) < PREVIEW_CHARACTERS + 50


def test_example_samples_never_repeat() -> None:
    assert len(set(TEXT.example_samples(300))) == 300
    assert all(TEXT.read(sample) == sample for sample in TEXT.example_samples(60))
