"""Reading, augmenting, cutting: the long-input policies, and readers that fail."""

import pickle
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from omnialign.contract import LongInput, Segment, Unread
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError, PluginError, ReadError
from omnialign.testing import toy


def pipeline(long_input: LongInput, window: float | None = 4.0, **changes: Any) -> Pipeline:
    encoder = toy.Mlp(num_points=4, window_seconds=window)
    parts: dict[str, Any] = {
        "modality": toy.ToySignal(),
        "preprocess": encoder.preprocess,
        "collate": encoder.collate,
        "window": encoder.window,
        "long_input": long_input,
        **changes,
    }
    return Pipeline(**parts)


SIGNAL = torch.arange(10.0)


def test_windows_are_consecutive_and_cover_everything() -> None:
    segments = pipeline("windows").segments(SIGNAL)
    assert [(s.start_seconds, s.end_seconds) for s in segments] == [(0, 4), (4, 8), (8, 10)]
    assert torch.equal(torch.cat([s.sample for s in segments]), SIGNAL)
    assert len(pipeline("windows").inputs(SIGNAL)) == 3


def test_truncate_keeps_the_first_and_native_the_whole() -> None:
    assert [s.sample.tolist() for s in pipeline("truncate").segments(SIGNAL)] == [[0, 1, 2, 3]]
    assert [len(s.sample) for s in pipeline("native").segments(SIGNAL)] == [10]
    assert [len(s.sample) for s in pipeline("windows", None).segments(SIGNAL)] == [10]


def test_training_draws_a_segment_by_its_seed() -> None:
    windows = pipeline("windows")
    drawn = [
        windows.training_input(SIGNAL, torch.Generator().manual_seed(seed)) for seed in range(20)
    ]
    assert {place for _, place in drawn} == {0, 1, 2}
    for value, place in drawn:
        assert torch.equal(value, windows.inputs(SIGNAL)[place])


def test_augmentations_come_before_the_cut_and_are_seeded() -> None:
    noisy = pipeline("truncate", augmentations=(toy.Noise(1.0), toy.Noise(1.0)))
    first, again, other = (
        noisy.training_input(SIGNAL, torch.Generator().manual_seed(seed))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, noisy.inputs(SIGNAL)[0])


def test_it_pickles() -> None:
    copy = pickle.loads(pickle.dumps(pipeline("windows", augmentations=(toy.Noise(),))))
    assert torch.equal(copy.inputs(SIGNAL)[2], pipeline("windows").inputs(SIGNAL)[2])


class Failing(toy.ToySignal):
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def read(self, source: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), KeyError("x")])
def test_an_unforeseen_failure_counts_as_unreadable(error: Exception) -> None:
    with pytest.raises(ReadError) as caught:
        pipeline("windows", modality=Failing(error)).read("a.toy")
    assert f"the toy_signal reader failed: {type(error).__name__}" in str(caught.value)
    assert caught.value.__cause__ is error


def test_errors_of_our_own_and_interrupts_pass() -> None:
    for error in (PluginError("no codec"), KeyboardInterrupt()):
        kind: type[BaseException] = type(error)
        with pytest.raises(kind) as caught:
            pipeline("windows", modality=Failing(error)).read("a.toy")
        assert caught.value is error
    assert issubclass(ReadError, OmniAlignError)


@dataclass(frozen=True)
class Later(Unread[Tensor]):
    """A stretch of `SIGNAL`; it counts what is read of it."""

    name: str = "a.toy"
    start: int = 0
    stop: int = 10
    seen: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])

    def read(self) -> Tensor:
        self.seen.append((self.start, self.stop))
        if self.name == "broken":
            raise KeyError("x")
        return SIGNAL[self.start : self.stop]

    def segments(self, window: float) -> list[Segment[Unread[Tensor]]]:
        cuts = toy.ToySignal().segments(SIGNAL[self.start : self.stop], window)
        return [
            Segment(replace(self, start=self.start + int(a), stop=self.start + int(b)), a, b)
            for a, b in ((s.start_seconds or 0, s.end_seconds or 0) for s in cuts)
        ]


class Half:
    """The first or the second half."""

    cuts = True

    def __call__(self, sample: Any, generator: torch.Generator) -> Any:
        start = 5 * int(torch.randint(2, (), generator=generator))
        if isinstance(sample, Later):
            return replace(sample, start=start, stop=start + 5)
        return sample[start : start + 5]


class Deferred(toy.ToySignal):
    def open(self, source: Any, resolution: float | None = None) -> Any:
        return replace(source, name="coarse") if resolution else source


class TestUnread:
    def made(self, **changes: Any) -> Pipeline:
        return pipeline("windows", modality=Deferred(), **changes)

    @pytest.mark.parametrize("augmentations", [(), (Half(),), (Half(), toy.Noise())])
    def test_a_stretch_is_read_and_the_same_is_drawn(self, augmentations: tuple[Any, ...]) -> None:
        made = self.made(augmentations=augmentations)
        for seed in range(10):
            later = Later()
            drawn, whole = (
                made.training_input(sample, torch.Generator().manual_seed(seed))
                for sample in (made.open(later), SIGNAL)
            )
            assert torch.equal(drawn[0], whole[0])
            assert drawn[1] == whole[1]
            ((start, stop),) = later.seen
            assert stop - start < 10

    @pytest.mark.parametrize(
        "changes", [{"augmentations": (toy.Noise(), Half())}, {"window": None}]
    )
    def test_what_needs_the_whole_gets_it_once(self, changes: dict[str, Any]) -> None:
        later = Later()
        assert torch.equal(self.made(**changes).open(later), SIGNAL)
        assert later.seen == [(0, 10)]

    def test_the_resolution_is_handed_on(self) -> None:
        assert self.made().open(Later()).name == "a.toy"
        assert self.made(resolution=3.0).open(Later()).name == "coarse"

    def test_an_unforeseen_failure_counts_as_unreadable(self) -> None:
        with pytest.raises(ReadError, match="'broken': the toy_signal reader failed: KeyError"):
            self.made().training_input(Later("broken"), torch.Generator())
