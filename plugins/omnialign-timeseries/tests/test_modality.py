"""Segments, previews, and what costs nothing to import."""

import subprocess
import sys

import pytest
import torch
from omnialign_timeseries import Series, TimeSeries

MODALITY = TimeSeries()


def ramp(length: int, rate: float | None = 50.0) -> Series:
    return Series(torch.arange(length * 2.0).reshape(length, 2), rate)


def test_segments_are_consecutive_and_carry_their_times() -> None:
    sample = ramp(300)
    segments = MODALITY.segments(sample, 2.56)
    times = [(s.start_seconds, s.end_seconds) for s in segments]
    assert times == [(0, 2.56), (2.56, 5.12), (5.12, 6)]
    assert torch.equal(torch.cat([s.sample.values for s in segments]), sample.values)


@pytest.mark.parametrize(("length", "count"), [(128, 1), (138, 1), (150, 2), (1, 1), (384, 3)])
def test_a_short_rest_is_left_out(length: int, count: int) -> None:
    segments = MODALITY.segments(ramp(length), 2.56)
    assert len(segments) == count
    assert all(0 < len(s.sample.values) <= 128 for s in segments)


def test_without_a_rate_there_are_no_seconds() -> None:
    (segment,) = MODALITY.segments(ramp(1000, None), 2.56)
    assert len(segment.sample.values) == 1000
    assert segment.start_seconds is None


def test_preview_of_any_length() -> None:
    for sample in (ramp(1), ramp(100_000, None)):
        preview = MODALITY.preview(sample)
        assert preview.data.startswith(b"\x89PNG")
        assert len(preview.data) < 50_000


def test_the_module_imports_without_torch() -> None:
    code = (
        "import sys, omnialign_timeseries; omnialign_timeseries.TimeSeries().claim(b'PAR1');"
        "assert not {'torch', 'pyarrow', 'matplotlib', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
