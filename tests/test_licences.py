"""Which licence is the strictest."""

import pytest

from omnialign.licences import deciding, kind, strictness


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("CC0-1.0", "public domain"),
        ("MIT", "permissive"),
        ("apache-2.0", "permissive"),
        ("CC-BY-4.0", "permissive"),
        ("CC-BY-SA-4.0", "share-alike"),
        ("OFL-1.1", "share-alike"),
        ("AGPL-3.0-or-later", "copyleft"),
        ("LGPL-3.0-only", "share-alike"),
        ("CC-BY-NC-4.0", "non-commercial"),
        ("CC-BY-NC-SA-4.0", "non-commercial"),
        ("CC-BY-ND-4.0", "no derivatives"),
        ("CC-BY-NC-ND-4.0", "no derivatives"),
        ("other", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        ("CC-BY", "unknown"),
        ("OFL-1.1 OR Apache-2.0", "permissive"),
        ("MIT AND CC-BY-SA-4.0", "share-alike"),
        ("GPL-3.0-only OR MIT AND CC-BY-NC-4.0", "copyleft"),
        ("MIT AND secret", "unknown"),
        ("secret OR MIT", "permissive"),
        ("(MIT OR ISC) AND ISC", "unknown"),
        ("(MIT) OR (GPL-3.0-only)", "unknown"),
        ("((MIT AND GPL-3.0-only))", "copyleft"),
        ("()", "unknown"),
    ],
)
def test_kinds(licence: str | None, expected: str) -> None:
    assert kind(licence) == expected


def test_from_the_freest_to_the_strictest() -> None:
    ids = ["CC0-1.0", "MIT", "CC-BY-SA-4.0", "GPL-3.0-only", "CC-BY-NC-4.0", "CC-BY-ND-4.0", None]
    backwards = ids[::-1]
    assert sorted(backwards, key=strictness) == ids


def test_the_id_that_decides() -> None:
    assert deciding("OFL-1.1 OR Apache-2.0") == "apache-2.0"
    assert deciding("MIT AND CC-BY-SA-4.0") == "cc-by-sa-4.0"
    assert deciding("(MIT OR GPL-3.0-only)") == "mit"
    assert deciding("house rules") == "unknown"
