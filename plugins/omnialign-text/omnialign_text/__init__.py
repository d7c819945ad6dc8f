"""Text for OmniAlign."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

from omnialign import Claim, Modality, Preview, ReadError, Segment, hookimpl

MAX_BYTES = 16 * 2**20
"""Of a text file; a caption is a few hundred."""


class TextModality(Modality[str]):
    """Words: captions, names, documents.

    The canonical sample is a `str` in Unicode normalisation form C, so that an accent typed as one
    character or as two gives the same vector; nothing else is changed. Length is counted in words,
    which are what white space separates.
    """

    name = "text"
    suffixes = frozenset({".txt", ".md"})
    inline_strings = True
    long_input = "truncate"
    templates = ("{}",)
    augmentations: ClassVar = {
        "word_dropout": "omnialign_text.augmentations:WordDropout",
        "lower_case": "omnialign_text.augmentations:LowerCase",
    }
    encoders: ClassVar = {
        "transformer": "omnialign_text.hashed:TransformerEncoder",
        "ngrams": "omnialign_text.hashed:NgramsEncoder",
        "transformers": "omnialign_text.pretrained:PretrainedEncoder",
    }
    default_encoder = "transformer"

    def read(self, source: Any) -> str:
        """Text from a string, which is the text itself, or from a UTF-8 file, path or bytes.

        Raises `ReadError` for what is empty, no UTF-8, or larger than `MAX_BYTES`.
        """
        text = source if isinstance(source, str) else _decoded(source)
        if not text.strip():
            raise ReadError(source, "the text is empty; give at least one word")
        return unicodedata.normalize("NFC", text)

    def claim(self, source: Any) -> Claim:
        """Owns text files; any string could be text."""
        return Claim.COULD if isinstance(source, str) else super().claim(source)

    def segments(self, sample: str, window: float) -> list[Segment[str]]:
        """Consecutive stretches of at most `window` words."""
        words = sample.split()
        size = max(1, int(window))
        if len(words) <= size:
            return [Segment(sample)]
        return [Segment(" ".join(words[i : i + size])) for i in range(0, len(words), size)]

    def preview(self, sample: str) -> Preview:
        """The first 500 characters."""
        return Preview("text/plain", sample[:500].encode())

    def example_samples(self, n: int) -> Sequence[str]:
        """Short captions."""
        things = ("circle", "dog", "red car", "old wooden bridge", "piano")
        places = ("in the rain", "on a hill", "at night")
        return [f"{i + 1} {things[i % 5]} {places[i // 5 % 3]}" for i in range(n)]


def _decoded(source: Any) -> str:
    if isinstance(source, PathLike):
        path = Path(source)
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size <= MAX_BYTES else b""
        except OSError as error:
            raise ReadError(source, f"{error.strerror or error}") from None
    elif isinstance(source, bytes | bytearray):
        size, data = len(source), bytes(source)
    elif isinstance(source, io.IOBase) or hasattr(source, "read"):
        data = source.read(MAX_BYTES + 1)
        size = len(data)
    else:
        raise ReadError(source, "wants a str, or the path, bytes or open file of a UTF-8 text")
    if size > MAX_BYTES:
        raise ReadError(source, f"larger than {MAX_BYTES >> 20} MiB; split the text")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(source, f"not UTF-8 text ({error.reason} at byte {error.start})") from None
    if "\0" in text:
        raise ReadError(source, "binary data, not text")
    return text


@hookimpl
def omnialign_modalities() -> list[TextModality]:
    return [TextModality()]
