from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from omnialign.errors import ReadError
from omnialign.registry import Registry, registry
from omnialign.testing import ModalityConformance, toy


class TestToyWords(ModalityConformance):
    modality = toy.ToyWords()


class TestToySignal(ModalityConformance):
    modality = toy.ToySignal()
    encoder_options: ClassVar = {"mlp": {"dropout": 0.1, "window_seconds": 4.0}}

    def files(self, folder: Path) -> Sequence[Path]:
        return [toy.write_signal(folder / "rising.toy", [0.0, 1.5, 2.0])]


class TestToyEcho(ModalityConformance):
    modality = toy.ToyEcho()

    def files(self, folder: Path) -> Sequence[Path]:
        return [toy.write_signal(folder / "falling.echo", [2.0, 1.0])]


def test_the_toys_come_and_go_with_the_context() -> None:
    before = set(registry().modalities)
    with toy.installed() as plugins:
        assert set(plugins.modalities) - before == {"toy_words", "toy_signal", "toy_echo"}
        assert "toy_pairs" in plugins.sources
    assert set(registry().modalities) == before
    assert "toy_pairs" not in registry().sources
    assert all(plugin.name != "toy" for plugin in registry().plugins)


def test_the_toy_is_a_sound_plugin() -> None:
    assert Registry().add(toy, "toy").problem is None


def test_rows_repeat_and_splits_differ() -> None:
    first, second, other = toy.ToyPairs()[3], toy.ToyPairs()[3], toy.ToyPairs(split="test")[3]
    assert first["toy_signal"].equal(second["toy_signal"])
    assert first["toy_words"] == other["toy_words"]
    assert not first["toy_signal"].equal(other["toy_signal"])


@pytest.mark.parametrize("numbers", [[], [float("nan")]])
def test_a_signal_without_finite_numbers_is_refused(numbers: list[float]) -> None:
    with pytest.raises(ReadError, match="at least one finite number"):
        toy.ToySignal().read(numbers)
