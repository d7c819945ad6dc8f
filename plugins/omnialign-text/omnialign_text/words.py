"""Words of any script, for the encoders that learn from nothing."""

from __future__ import annotations

import re

LONGEST_WORD = 16
"""In characters; longer runs, and scripts without spaces, are cut into pieces of this length."""

_PUNCTUATION = r"!-/:-@\[-`{-~\u2010-\u2027\u2030-\u205e"
_IDEOGRAPHS = r"\u2e80-\U0010ffff"
_WORD = re.compile(
    rf"[{_IDEOGRAPHS}]|[{_PUNCTUATION}]|[^\s{_PUNCTUATION}{_IDEOGRAPHS}]{{1,{LONGEST_WORD}}}"
)


def words(text: str) -> list[str]:
    """Runs of letters and digits; punctuation marks, ideographs, syllables and emoji one by one.

    Text without any gives one empty word, so that every text has features.
    """
    return _WORD.findall(text) or [""]


def head(text: str, num_bytes: int) -> str:
    """The longest start of `text` that takes at most `num_bytes` in UTF-8."""
    return text[:num_bytes].encode()[:num_bytes].decode(errors="ignore")
