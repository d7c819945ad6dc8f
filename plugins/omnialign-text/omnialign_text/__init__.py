"""Text for OmniAlign: words, captions, documents."""

from __future__ import annotations

import codecs
import unicodedata
from collections.abc import Sequence
from itertools import pairwise, product
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar

import regex

from omnialign import Claim, Modality, Preview, ReadError, Segment, hookimpl

MAX_TEXT_BYTES = 16 * 2**20
"""Of a file, or of a string in UTF-8."""
SNIFFED_BYTES = 1024
PREVIEW_CHARACTERS = 2000
BYTE_ORDER_MARK = "\ufeff"
INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
"""Unicode's categories of spaces, line ends, controls and joiners."""
_GRAPHEME = regex.compile(r"\X")


class Text(Modality[str]):
    """Text: a `str` in Unicode normal form C, without whitespace around it.

    A `str` is the text itself; a path, `bytes` or an open binary file hold UTF-8, or UTF-16 that
    opens with a byte-order mark. Every line end becomes a line feed. Refused with a `ReadError`:
    text with nothing to see, NUL characters (binary data), other encodings, lone surrogates, more
    than `MAX_TEXT_BYTES`.

    The unit of `segments` is the UTF-8 byte.
    """

    name = "text"
    suffixes = frozenset({".txt", ".md"})
    inline_strings = True
    long_input = "windows"
    templates = ("{}",)
    augmentations: ClassVar = {
        "word_dropout": "omnialign_text.augmentations:WordDropout",
        "case": "omnialign_text.augmentations:Case",
        "typos": "omnialign_text.augmentations:Typos",
    }
    encoders: ClassVar = {
        "transformer": "omnialign_text.transformer:TransformerText",
        "ngrams": "omnialign_text.ngrams:NGramText",
    }
    default_encoder = "transformer"

    def claim(self, source: Any) -> Claim:
        """Any `str`, and bytes that are printable UTF-8, could be text; text files are."""
        if isinstance(source, str):
            return Claim.COULD
        if isinstance(source, bytes | bytearray | memoryview):
            return _could_be_text(bytes(source[:SNIFFED_BYTES]))
        if hasattr(source, "read") and hasattr(source, "seek"):
            position = source.tell()
            head = source.read(SNIFFED_BYTES)
            source.seek(position)
            return _could_be_text(head) if isinstance(head, bytes) else Claim.NO
        return super().claim(source)

    def read(self, source: Any) -> str:
        """Text from a string, which is the text itself, or from a path, bytes or an open file.

        Raises `ReadError` for what the class refuses.
        """
        text = source if isinstance(source, str) else _decoded(source)
        if "\0" in text:
            raise ReadError(
                source,
                "wanted text, found NUL characters: binary data, or UTF-16 without a byte-order "
                "mark; convert it to UTF-8",
            )
        text = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
        text = unicodedata.normalize("NFC", text).strip()
        if all(unicodedata.category(character) in INVISIBLE for character in text):
            raise ReadError(source, "the text is empty; leave the row out or give it words")
        try:
            size = len(text.encode())
        except UnicodeEncodeError as error:
            raise ReadError(
                source,
                f"wanted Unicode text, found a lone surrogate at character {error.start}; decode "
                "the original bytes with their own encoding",
            ) from None
        if size > MAX_TEXT_BYTES:
            raise ReadError(source, _too_large(size))
        return text

    def segments(self, sample: str, window: float) -> list[Segment[str]]:
        """Cuts a text into stretches of at most `window` UTF-8 bytes that join to the same text.

        A cut falls behind whitespace where the stretch holds any, else between two grapheme
        clusters of Unicode: never between a letter and its combining marks, inside a joined emoji
        or a flag, unless that alone is longer than the window. A character longer than the window
        stands alone.
        """
        cuts = [0]
        while cuts[-1] < len(sample):
            cuts.append(_next_cut(sample, cuts[-1], window))
        return [Segment(sample[i:j]) for i, j in pairwise(cuts)]

    def preview(self, sample: str) -> Preview:
        """The text itself, cut after `PREVIEW_CHARACTERS` characters."""
        rest = len(sample) - PREVIEW_CHARACTERS
        more = f"… ({rest} more characters)" if rest > 0 else ""
        return Preview("text/plain; charset=utf-8", (sample[:PREVIEW_CHARACTERS] + more).encode())

    def example_samples(self, n: int) -> Sequence[str]:
        """Captions of two things and how they lie; numbered once the combinations are used up."""
        things = [
            f"{count} {size} {colour} {kind}"
            for kind, count, size, colour in product(
                ("circles", "squares", "stars"),
                ("two", "three", "four"),
                ("small", "large"),
                ("red", "blue", "green"),
            )
        ]
        relations = ("left of", "above", "inside")
        captions: list[str] = []
        for i in range(n):
            lap, k = divmod(i, len(things))
            thing, other = things[k], things[(7 * k + 1) % len(things)]
            number = f", drawing {lap + 1}" if lap else ""
            captions.append(f"{thing} {relations[k % 3]} {other}{number}")
        return captions


def _decoded(source: Any) -> str:
    """The UTF-8 text of a path, bytes or an open binary file."""
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, PathLike):
        try:
            with Path(source).open("rb") as file:
                data = file.read(MAX_TEXT_BYTES + 1)
        except OSError as error:
            raise ReadError(source, f"{error.strerror}; wanted a text file") from None
    elif hasattr(source, "read"):
        data = source.read(MAX_TEXT_BYTES + 1)
        if not isinstance(data, bytes):
            raise ReadError(source, "wanted a file opened in binary mode ('rb')")
    else:
        raise ReadError(source, "wanted a str, a path, bytes or an open binary file of UTF-8 text")
    if len(data) > MAX_TEXT_BYTES:
        raise ReadError(source, _too_large(len(data)))
    encoding = _encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ReadError(
            source,
            f"wanted {encoding.upper()} text, found byte 0x{data[error.start]:02x} at "
            f"{error.start}: binary data, or another encoding; convert it to UTF-8",
        ) from None


def _encoding(data: bytes) -> str:
    """UTF-16 where a byte-order mark says so, else UTF-8."""
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def _too_large(size: int) -> str:
    return f"wanted at most {MAX_TEXT_BYTES} bytes of text, found {size} or more; split it"


def _could_be_text(head: bytes) -> Claim:
    """COULD where a file's first bytes are printable text, which may end inside a character."""
    try:
        text = codecs.getincrementaldecoder(_encoding(head))().decode(head)
    except UnicodeDecodeError:
        return Claim.NO
    text = text.removeprefix(BYTE_ORDER_MARK)
    control = any(ord(c) < 32 and c not in "\t\n\r\f" for c in text)
    return Claim.NO if control or not text.strip() else Claim.COULD


def _next_cut(text: str, start: int, window: float) -> int:
    """Index of the first character that no longer belongs to the stretch that begins at `start`."""
    behind_space, end, size = 0, start, 0
    for found in _GRAPHEME.finditer(text, start, start + int(min(window, len(text))) + 1):
        size += len(found[0].encode())
        if size > window:
            break
        end = found.end()
        if found[0].isspace():
            behind_space = end
    else:
        return end
    if end > start:
        return behind_space or end
    while len(text[start : end + 1].encode()) <= window:
        end += 1
    return max(end, start + 1)


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    """The one modality `text`."""
    return [Text()]
