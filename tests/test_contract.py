from pathlib import Path
from typing import Any

import pytest

from omnialign.contract import Claim, Hooks, Modality, Preview


class Smell(Modality[str]):
    name = "smell"
    suffixes = frozenset({".nose"})

    def read(self, source: Any) -> str:
        return str(source)

    def preview(self, sample: str) -> Preview:
        return Preview("text/plain", sample.encode())

    def example_samples(self, n: int) -> list[str]:
        return [str(i) for i in range(n)]


def test_paths_are_claimed_by_suffix_and_nothing_else_is() -> None:
    smell = Smell()
    assert smell.claim(Path("a.NOSE")) == Claim.OWNS
    assert smell.claim(Path("a.png")) == Claim.NO
    for other in ("a.nose", b"nose", [1.0], None):
        assert smell.claim(other) == Claim.NO
    assert Claim.NO < Claim.COULD < Claim.OWNS


def test_a_modality_without_length_is_one_segment() -> None:
    (segment,) = Smell().segments("rose", 3.0)
    assert (segment.sample, segment.start_seconds, segment.end_seconds) == ("rose", None, None)
    assert Smell.long_input == "native"
    assert Smell.templates == ("{}",)


def test_a_modality_must_read_and_show() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Modality()  # type: ignore[abstract]


def test_hooks_explain_themselves() -> None:
    hooks = [value for name, value in vars(Hooks).items() if name.startswith("omnialign_")]
    assert len(hooks) == 4
    assert all(hook.__doc__ for hook in hooks)
