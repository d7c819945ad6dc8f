"""Licences by their SPDX ids: of what kind each is, and which of several is the strictest."""

from __future__ import annotations

from fnmatch import fnmatchcase

UNKNOWN = "unknown"

KINDS: dict[str, tuple[str, ...]] = {
    "public domain": ("cc0-1.0", "pddl-1.0", "unlicense", "0bsd"),
    "permissive": (
        *("apache-*", "bsd-*", "isc", "mit", "mit-0", "zlib", "python-2.0", "postgresql"),
        *("cc-by-[0-9]*", "odc-by-1.0", "cdla-permissive-*"),
    ),
    "share-alike": (
        *("cc-by-sa-*", "odbl-1.0", "cdla-sharing-1.0", "ofl-1.1"),
        *("mpl-*", "lgpl-*", "epl-*", "eupl-*"),
    ),
    "copyleft": ("gpl-*", "agpl-*", "gfdl-*"),
    "non-commercial": ("cc-by-nc-[0-9]*", "cc-by-nc-sa-*"),
    "no derivatives": ("cc-by-nd-*", "cc-by-nc-nd-*"),
    UNKNOWN: ("*",),
}
"""Patterns of SPDX ids in lower case by kind, from the freest to the strictest."""

_ORDER = list(KINDS)


def deciding(licence: str | None) -> str:
    """The one id, in lower case, that an SPDX expression comes down to.

    Of `A OR B` whoever uses it may choose, so the freer decides; of `A AND B` the stricter does.
    Brackets around the whole are taken off; with others inside, and of None, it is `unknown`.
    """
    stated = (licence or UNKNOWN).strip().casefold()
    while stated.startswith("(") and stated.endswith(")"):
        stated = stated[1:-1].strip()
    if "(" in stated or ")" in stated:
        return UNKNOWN
    options = stated.split(" or ")
    strictest = [max(option.split(" and "), key=_strictness) for option in options]
    found = min(strictest, key=_strictness).strip()
    return found if _strictness(found) < _ORDER.index(UNKNOWN) else UNKNOWN


def kind(licence: str | None) -> str:
    """The kind of a licence, as in `KINDS`."""
    return _ORDER[strictness(licence)]


def strictness(licence: str | None) -> int:
    """The place of a licence from the freest, 0; what is unknown is the strictest of all."""
    return _strictness(deciding(licence))


def _strictness(name: str) -> int:
    return next(
        place
        for place, patterns in enumerate(KINDS.values())
        if any(fnmatchcase(name.strip(), pattern) for pattern in patterns)
    )
