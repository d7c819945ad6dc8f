"""Reading, augmenting, cutting: the long-input policies, and readers that fail."""

import pickle
from typing import Any

import pytest
import torch

from omnialign.contract import LongInput
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
