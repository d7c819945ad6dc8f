"""Long items segment by segment: seconds, vectors, and how little is held."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.building import build
from omnialign.contract import Segment
from omnialign.errors import ModalityError, OmniAlignError, ReadError
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")

SIGNAL = torch.linspace(-1, 1, 10).square()


def make(policy: str = "windows", **space: Any) -> SharedSpace:
    table = toy.recipe()
    table["space"] |= space
    encoder = {"name": "mlp", "window_seconds": 4.0}
    table["towers"] = {"toy_signal": {"encoder": encoder, "long_input": policy}}
    torch.manual_seed(0)
    return build(parse_recipe(table))


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_each_window_has_its_seconds_and_its_vector(tmp_path: Path, batch_size: int) -> None:
    space = make()
    toy.write_signal(tmp_path / "a.toy", SIGNAL)
    found = space.embed_segments(tmp_path / "a.toy", batch_size=batch_size)
    assert [(start, end) for start, end, _ in found] == [(0, 4), (4, 8), (8, 10)]
    vectors = torch.stack([vector for _, _, vector in found])
    close(vectors, space.embed([SIGNAL[i : i + 4] for i in (0, 4, 8)], "toy_signal"))
    close(normalize(vectors.sum(0), dim=0), space.embed(tmp_path / "a.toy")[0])


def test_one_segment_of_what_has_no_windows() -> None:
    ((start, end, vector),) = make().embed_segments("a rising signal", "toy_words")
    assert (start, end) == (None, None)
    close(vector, make().embed("a rising signal", "toy_words")[0])


def test_vectors_are_cut_to_the_size_of_the_space() -> None:
    space = make(matryoshka=[4])
    space.truncate(4)
    vectors = torch.stack([vector for *_, vector in space.embed_segments(SIGNAL, "toy_signal")])
    assert vectors.shape == (3, 4)
    close(vectors.norm(dim=-1), torch.ones(3))


def test_what_is_asked_wrongly() -> None:
    with pytest.raises(OmniAlignError, match="batch_size is 0"):
        make().embed_segments(SIGNAL, "toy_signal", batch_size=0)
    with pytest.raises(ModalityError, match="no modality 'smell'"):
        make().embed_segments(SIGNAL, "smell")
    with pytest.raises(ReadError, match=r"gone\.toy"):
        make().embed_segments("gone.toy", "toy_signal")


class Endless:
    """Reads segments one by one, and notes when; breaks after `num_sound` of them."""

    def __init__(self, space: SharedSpace, monkeypatch: pytest.MonkeyPatch, num_sound: int) -> None:
        self.events: list[str] = []
        self._num_sound = num_sound
        tower = space.tower("toy_signal")
        monkeypatch.setattr(type(tower.modality), "read_segments", self._read_segments)
        tower.encoder.register_forward_hook(lambda *_: self.events.append("embedded"))

    def _read_segments(self, source: Any, window: float) -> Iterator[Segment[Tensor]]:
        if isinstance(source, Tensor):
            yield Segment(source)
            return
        for k in range(self._num_sound):
            self.events.append("read")
            yield Segment(torch.full((4,), float(k)), k * window, (k + 1) * window)
        raise ReadError(source, "it breaks here")


def test_no_more_than_a_batch_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make()
    endless = Endless(space, monkeypatch, 9)
    with pytest.raises(ReadError, match="it breaks here"):
        space.embed_segments("long", "toy_signal", batch_size=3)
    assert endless.events == 3 * ["read", "read", "read", "embedded"]


def test_truncate_reads_the_first_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    space = make("truncate")
    endless = Endless(space, monkeypatch, 9)
    ((start, end, _),) = space.embed_segments("long", "toy_signal")
    assert (start, end) == (0, 4)
    assert endless.events == ["read", "embedded"]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_an_item_that_breaks_in_the_middle_has_no_vector(
    monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    space = make()
    Endless(space, monkeypatch, 5)
    items, unreadable = [SIGNAL[:4], "long", SIGNAL[4:8]], dict[int, str]()
    vectors = space.embed_known(
        items, ["toy_signal"] * 3, batch_size=batch_size, unreadable=unreadable
    )
    assert list(unreadable) == [1]
    assert "it breaks here" in unreadable[1]
    assert not vectors[1].any()
    close(vectors[[0, 2]], space.embed([SIGNAL[:4], SIGNAL[4:8]], "toy_signal"))


def test_it_evaluates_and_returns_to_the_mode_before() -> None:
    space = make()
    space.train()
    found = space.embed_segments(SIGNAL, "toy_signal")
    assert space.training
    assert not found[0].vector.requires_grad
