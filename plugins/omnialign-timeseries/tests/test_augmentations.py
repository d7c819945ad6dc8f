"""Each augmentation does what it says."""

from typing import Any

import pytest
import torch
from omnialign_timeseries import Series, TimeSeries
from omnialign_timeseries import augmentations as aug

from omnialign import OmniAlignError

SAMPLE = TimeSeries().example_samples(1)[0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_crop() -> None:
    lengths = [len(aug.Crop(0.5)(SAMPLE, generator(s)).values) for s in range(50)]
    assert 64 <= min(lengths) < 75 < 115 < max(lengths) <= 128
    part = aug.Crop(0.5)(SAMPLE, generator()).values
    windows = SAMPLE.values.unfold(0, len(part), 1).mT
    assert (windows == part).all((1, 2)).any()


def test_jitter_is_relative_to_the_channel() -> None:
    sample = Series(SAMPLE.values * torch.tensor([1.0] * 8 + [0.0]))
    noise = aug.Jitter(0.1)(sample, generator()).values - sample.values
    ratio = noise.std(0)[:8] / sample.values.std(0)[:8]
    assert ((ratio > 0.07) & (ratio < 0.13)).all()
    assert not noise[:, 8].any()


def test_scale_by_channel() -> None:
    factors = aug.Scale(1.5)(SAMPLE, generator()).values.sum(0) / SAMPLE.values.sum(0)
    assert ((factors >= 1 / 1.5) & (factors <= 1.5)).all()
    assert factors.std() > 0.05


def test_rotation_turns_all_triads_alike() -> None:
    turned = aug.Rotation(90)(SAMPLE, generator()).values.unflatten(1, (3, 3))
    plain = SAMPLE.values.unflatten(1, (3, 3))
    assert (turned - plain).abs().max() > 0.1
    torch.testing.assert_close(turned.norm(dim=-1), plain.norm(dim=-1))
    dots = [(x[:, 0] * x[:, 1]).sum(-1) for x in (turned, plain)]
    torch.testing.assert_close(*dots, atol=1e-4, rtol=1e-4)


def test_rotation_is_at_most_so_large() -> None:
    vector = Series(torch.tensor([[0.0, 0.0, 1.0]]))
    cosines = [aug.Rotation(30)(vector, generator(s)).values[0, 2] for s in range(50)]
    assert torch.stack(cosines).rad2deg().min() > 0
    assert torch.stack(cosines).acos().max().rad2deg() <= 30.1


def test_rotation_of_chosen_triads() -> None:
    turned = aug.Rotation(90, triads=((8, 0, 4),))(SAMPLE, generator()).values
    untouched = [1, 2, 3, 5, 6, 7]
    assert torch.equal(turned[:, untouched], SAMPLE.values[:, untouched])
    assert not torch.equal(turned, SAMPLE.values)
    pair = Series(torch.ones(4, 2))
    with pytest.raises(OmniAlignError, match="2 channels there are"):
        aug.Rotation()(pair, generator())
    with pytest.raises(OmniAlignError, match="9 channels there are"):
        aug.Rotation(triads=((7, 8, 9),))(SAMPLE, generator())


def test_time_warp_is_smooth_and_keeps_both_ends() -> None:
    ramp = Series(torch.arange(128.0)[:, None])
    for seed in range(10):
        warped = aug.TimeWarp(1.5)(ramp, generator(seed)).values[:, 0]
        assert warped[0] == 0
        assert warped[-1] == pytest.approx(127)
        assert ((warped.diff() > 0.4) & (warped.diff() < 2.3)).all()
    assert (warped - ramp.values[:, 0]).abs().max() > 1


def test_mask_levels_stretches() -> None:
    masked = aug.Mask(1, 0.5)(SAMPLE, generator(2)).values
    level = torch.isclose(masked, SAMPLE.values.mean(0)).all(1)
    assert 0 < level.sum() <= 64
    assert torch.equal(masked[~level], SAMPLE.values[~level])


@pytest.mark.parametrize("name", sorted(TimeSeries.augmentations))
@pytest.mark.parametrize("length", [1, 2, 7])
def test_series_of_a_few_steps(name: str, length: int) -> None:
    kind: Any = getattr(aug, TimeSeries.augmentations[name].split(":")[1])
    changed = kind()(Series(torch.ones(length, 3), 50.0), generator())
    assert changed.values.shape[1] == 3
    assert len(changed.values) >= 1
    assert changed.values.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (aug.Crop, {"min_fraction": 0}),
        (aug.Jitter, {"level": -1}),
        (aug.Scale, {"max_factor": 0.5}),
        (aug.Rotation, {"max_degrees": 200}),
        (aug.Rotation, {"triads": ((0, 1, 1),)}),
        (aug.TimeWarp, {"num_knots": 1}),
        (aug.TimeWarp, {"max_factor": 0.5}),
        (aug.Mask, {"num_masks": 0}),
        (aug.Mask, {"max_fraction": 2}),
    ],
)
def test_impossible_options(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(OmniAlignError, match=next(iter(options))):
        kind(**options)
