from __future__ import annotations

from typing import Any

import pytest
import torch
from omnialign_video import Clip
from omnialign_video.augmentations import (
    ColorJitter,
    Crop,
    Erasing,
    Flip,
    Rotation,
    TemporalJitter,
)

from omnialign import OmniAlignError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def clip() -> Clip:
    """Ten equal frames of noise, at 8 a second."""
    frame = torch.randint(0, 256, (3, 40, 60), generator=seeded(0), dtype=torch.uint8)
    return Clip(frame.expand(10, 3, 40, 60).clone(), torch.arange(10) / 8)


@pytest.mark.parametrize(
    "augment",
    [Crop(), Flip(), Rotation(), ColorJitter(hue=0.1), Erasing(1.0)],
    ids=lambda augment: type(augment).__name__,
)
def test_all_frames_change_alike(augment: Any, clip: Clip) -> None:
    changed = augment(clip, seeded(2))
    assert changed.times_seconds.equal(clip.times_seconds)
    assert changed.frames.dtype == torch.uint8
    assert changed.frames.shape[:2] == (10, 3)
    assert (changed.frames == changed.frames[:1]).all()


def test_they_do_what_they_say(clip: Clip) -> None:
    assert Flip(1.0)(clip, seeded(0)).frames.equal(clip.frames.flip(-1))
    assert Crop((0.25, 0.25), (1, 1))(clip, seeded(0)).frames.shape[2:] == (20, 30)
    assert (Rotation(45, "black")(clip, seeded(3)).frames[:, :, 0, 0] == 0).all()
    assert (Rotation(45)(clip, seeded(3)).frames[:, :, 0, 0] == 255).all()
    erased = (Erasing(1.0, (0.1, 0.1))(clip, seeded(1)).frames != clip.frames).any(1)
    assert erased.float().mean() == pytest.approx(0.1, abs=0.02)
    assert ColorJitter(0, 0, 0)(clip, seeded(0)).frames.equal(clip.frames)


def test_temporal_jitter_keeps_the_order_of_time() -> None:
    frames = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    clip = Clip(frames, torch.arange(40) / 8)
    for seed in range(20):
        kept = TemporalJitter(keep=(0.5, 0.5), speed=(2, 2), frame_drop=0.2)(clip, seeded(seed))
        numbers = kept.frames[:, 0, 0, 0].int()
        assert (numbers.diff() > 0).all()
        assert numbers[-1] - numbers[0] < 20
        torch.testing.assert_close(kept.times_seconds.diff(), numbers.diff() / 16)
        assert kept.times_seconds[0] == clip.times_seconds[numbers[0]]


def test_temporal_jitter_keeps_at_least_one_frame() -> None:
    still = Clip(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1))
    assert len(TemporalJitter(frame_drop=1.0)(still, seeded(0))) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop(scale=(0.9, 0.1)),
        lambda: Flip(1.5),
        lambda: Rotation(-3),
        lambda: ColorJitter(hue=0.7),
        lambda: Erasing(scale=(0, 2)),
        lambda: TemporalJitter(keep=(0, 1)),
    ],
)
def test_impossible_options_are_refused(make: object) -> None:
    with pytest.raises(OmniAlignError, match="wanted"):
        make()  # type: ignore[operator]
