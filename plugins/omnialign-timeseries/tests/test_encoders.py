"""Windows, and the encoders of them."""

import pytest
import torch
from omnialign_timeseries import Series, TimeSeries
from omnialign_timeseries.encoders import PatchTransformer, SeriesConv, Windows

from omnialign import OmniAlignError

WINDOWS = Windows(num_channels=2, sample_rate_hz=50.0, window_seconds=2.56)


def wave(length: int, rate: float | None = 50.0) -> Series:
    seconds = torch.arange(length) / (rate or 50)
    return Series(torch.stack([(3 * seconds).sin(), (2 * seconds).cos()], dim=1), rate)


def test_one_window_as_it_is() -> None:
    assert torch.equal(WINDOWS(wave(128))[0], wave(128).values)
    assert torch.equal(WINDOWS(wave(128, None))[0], wave(128).values)


def test_a_short_series_holds_its_last_value() -> None:
    window = WINDOWS(wave(100))
    assert window.shape == (1, 128, 2)
    assert (window[0, 100:] == wave(100).values[-1]).all()


def test_a_long_series_gives_windows_to_its_very_end() -> None:
    windows = WINDOWS(wave(300, None))
    assert windows.shape == (3, 128, 2)
    assert torch.equal(windows[1], wave(300).values[128:256])
    assert torch.equal(windows[2], wave(300).values[-128:])
    assert len(WINDOWS(wave(138))) == 1


@pytest.mark.parametrize("rate", [20.0, 25.0, 100.0, 400.0])
def test_other_rates_are_resampled(rate: float) -> None:
    window = WINDOWS(wave(round(2.56 * rate), rate))
    assert window.shape == (1, 128, 2)
    assert (window[0] - wave(128).values)[4:-4].abs().max() < 0.1


def test_fast_swings_do_not_fold_into_slow_ones() -> None:
    fast = Series(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(640, 1), 500.0)
    assert WINDOWS(fast)[0, 2:-2].abs().max() < 0.05


def test_other_channels_are_refused_by_name() -> None:
    series = Series(torch.ones(10, 3), 50.0, ("x", "y", "z"))
    with pytest.raises(OmniAlignError, match=r"2 channels, the series has 3 \(x, y, z\)") as caught:
        WINDOWS(series)
    assert "set towers.timeseries.encoder.num_channels" in str(caught.value)


@torch.no_grad()
@pytest.mark.parametrize("kind", [SeriesConv, PatchTransformer])
def test_features_of_a_long_series_are_the_mean_of_its_windows(kind: type) -> None:
    torch.manual_seed(0)
    encoder = kind(num_channels=2, width=32, depth=1).eval()
    long, short = wave(256, None), wave(90)
    parts = [wave(256).values[:128], wave(256).values[128:]]
    inputs = [encoder.preprocess(s) for s in (long, short, *(Series(p) for p in parts))]
    features = encoder(encoder.collate(inputs))
    torch.testing.assert_close(features[0], features[2:].mean(0))
    segments = TimeSeries().segments(wave(256), encoder.window)
    assert torch.equal(segments[1].sample.values, parts[1])


@torch.no_grad()
def test_offsets_and_units_are_seen() -> None:
    encoder = SeriesConv(num_channels=2, width=32, depth=1, scale=9.81).eval()
    flat = [Series(torch.full((128, 2), value)) for value in (0.0, 9.81)]
    low, high = encoder(encoder.collate([encoder.preprocess(s) for s in flat]))
    assert (low - high).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SeriesConv, {"width": 100}),
        (SeriesConv, {"kernel": 4}),
        (SeriesConv, {"depth": 0}),
        (SeriesConv, {"num_channels": 0}),
        (SeriesConv, {"scale": 0.0}),
        (SeriesConv, {"sample_rate_hz": 0.0}),
        (SeriesConv, {"window_seconds": 0.01}),
        (PatchTransformer, {"num_heads": 7}),
        (PatchTransformer, {"patch_steps": 200}),
    ],
)
def test_impossible_options(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(OmniAlignError, match="wanted"):
        kind(**options)
