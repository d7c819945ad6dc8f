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
    for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        mark = "" if encoding in ("utf-8", "utf-16") else "\ufeff"
        assert TEXT.read((mark + CAPTION).encode(encoding)) == CAPTION
    assert TEXT.claim(path) == Claim.OWNS


def test_normal_form_and_line_ends() -> None:
    assert TEXT.read(unicodedata.normalize("NFD", "café")) == unicodedata.normalize("NFC", "café")
    assert TEXT.read("  one\r\ntwo\rthree \n") == "one\ntwo\nthree"
    assert TEXT.read("ﬁne Ａ") == "ﬁne Ａ", "compatibility forms stay"
    assert TEXT.read("\ufeffmarked") == "marked"


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
        ("\u00a0\u3000\u2003", "empty"),
        ("\u200b\u200d\x07", "empty"),
        ("a\0b", "NUL"),
        ("words".encode("utf-16-le"), "UTF-16 without a byte-order mark"),
        ("words".encode("utf-32"), "NUL"),
        (b"\xff\xfea", "UTF-16 text, found byte 0x61 at 2"),
        ("日本".encode("shift-jis"), "byte 0x93 at 0"),
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
    ids=range(20),
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
    for encoding in ("utf-8-sig", "utf-16"):
        assert TEXT.claim("plain 😀 words".encode(encoding)) == Claim.COULD
        assert TEXT.claim(("😀" * 1000).encode(encoding)) == Claim.COULD
    for other in (
        b"",
        b"\xff\xfe",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF\x00\x00",
        b"\xff\xd8",
        Path("a.wav"),
        3,
        [1],
    ):
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
        "e" + "\u0301" * 500,
        "क्षत्रिय नमस्ते" * 20,
        "ภาษาไทยกำลัง" * 20,
        "مرحبا بالعالم " * 20,
    ],
)
def test_segments_lose_nothing(text: str, window: int) -> None:
    parts = [segment.sample for segment in TEXT.segments(text, window)]
    assert "".join(parts) == text
    assert all(0 < len(part.encode()) <= window for part in parts)


@pytest.mark.parametrize(
    ("text", "window", "parts"),
    [
        ("one two three", 9, ["one two ", "three"]),
        ("e\u0323\u0301" * 2, 6, ["e\u0323\u0301"] * 2),
        ("👍🏽👍🏽", 12, ["👍🏽", "👍🏽"]),
        ("👩‍👧a", 11, ["👩‍👧", "a"]),
        ("🇫🇷🇩🇪", 12, ["🇫🇷", "🇩🇪"]),
        ("🏴󠁧󠁢󠁥󠁮󠁧󠁿🏴󠁧󠁢󠁥󠁮󠁧󠁿", 40, ["🏴󠁧󠁢󠁥󠁮󠁧󠁿"] * 2),
        ("ab \u0301cd", 4, ["ab", " \u0301c", "d"]),
        ("می\u200cخواهم", 6, ["م", "ی\u200c", "خوا", "هم"]),
        ("नमस्ते", 12, ["नम", "स्ते"]),
        ("🙂a", 1, ["🙂", "a"]),
    ],
    ids=range(10),
)
def test_segments_keep_words_and_joined_characters_whole(
    text: str, window: int, parts: list[str]
) -> None:
    assert [segment.sample for segment in TEXT.segments(text, window)] == parts


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
