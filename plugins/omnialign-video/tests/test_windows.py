from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from omnialign_video import Clip, VideoModality
from omnialign_video.fitting import FitClip
from omnialign_video.frames import FramesEncoder
from omnialign_video.spacetime import SpaceTimeEncoder

from omnialign import OmniAlignError


def clip(*times: float) -> Clip:
    """Frames whose pixels say their own number."""
    frames = torch.arange(len(times), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    return Clip(frames.clone(), torch.tensor(times))


def numbers(frames: torch.Tensor) -> list[int]:
    return frames[:, 0, 0, 0].tolist()


def test_a_long_clip_is_cut_evenly() -> None:
    segments = VideoModality().segments(clip(*(t / 4 for t in range(20))), 2.0)
    assert [len(s.sample) for s in segments] == [7, 7, 6]
    assert [numbers(s.sample.frames)[0] for s in segments] == [0, 7, 14]
    assert segments[0].start_seconds == 0
    assert segments[-1].end_seconds == pytest.approx(5)
    for before, after in pairwise(segments):
        assert before.end_seconds == after.start_seconds
        assert after.sample.times_seconds[0] >= after.start_seconds - 1e-3


def test_a_window_of_the_clips_own_length_leaves_it_whole() -> None:
    assert len(VideoModality().segments(clip(0, 0.25, 0.5, 0.75), 1.0)) == 1


def test_a_picture_that_stands_belongs_to_one_segment() -> None:
    segments = VideoModality().segments(clip(0, 0.1, 7.0, 7.1), 2.0)
    assert [numbers(s.sample.frames) for s in segments] == [[0, 1], [2, 3]]
    assert segments[0].end_seconds == segments[1].start_seconds
    assert segments[0].start_seconds == 0


def test_a_clip_is_spread_over_its_own_length() -> None:
    fit = FitClip(4, 8, "pad")
    assert numbers(fit(clip(0, 0.1, 0.2, 0.3))) == [0, 1, 2, 3]
    assert numbers(fit(clip(*(t / 8 for t in range(10))))) == [0, 3, 6, 9]
    assert numbers(fit(clip(3.0, 3.5))) == [0, 0, 0, 1]
    assert numbers(fit(clip(0.0))) == [0, 0, 0, 0]
    assert numbers(fit(clip(0, 2.0, 2.5, 3.0))) == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("fit", "white"), [("pad", (0.45, 0.55)), ("squash", (0, 0)), ("crop", (0, 0))]
)
def test_fits(fit: str, white: tuple[float, float]) -> None:
    frames = torch.zeros(1, 3, 20, 40, dtype=torch.uint8)
    fitted = FitClip(2, 16, fit)(Clip(frames, torch.zeros(1)))  # type: ignore[arg-type]
    assert fitted.shape == (2, 3, 16, 16)
    assert white[0] <= (fitted == 255).float().mean() <= white[1]


@pytest.mark.parametrize("kind", [FramesEncoder, SpaceTimeEncoder])
@torch.no_grad()
def test_features_know_the_order_of_time(kind: type[FramesEncoder | SpaceTimeEncoder]) -> None:
    torch.manual_seed(0)
    encoder = kind().eval()
    batch = encoder.preprocess(VideoModality().example_samples(1)[0])[None]
    forwards, backwards = encoder(batch), encoder(batch.flip(1))
    assert (forwards - backwards).norm() / forwards.norm() > 1e-3


def test_frames_learns_which_way_a_square_moves() -> None:
    """Ten clips of squares that move left or right at any height: the mirror image in time."""
    torch.manual_seed(0)
    encoder = FramesEncoder(4, 24, channels=(8, 16), width=16)
    batch = torch.zeros(20, 4, 3, 24, 24, dtype=torch.uint8)
    for index in range(10):
        for t in range(4):
            batch[index, t, :, 2 * index : 2 * index + 4, 5 * t : 5 * t + 4] = 255
    batch[10:] = batch[:10].flip(1)
    label = torch.arange(20) // 10
    train = torch.arange(20) % 10 % 3 > 0
    head = torch.nn.Linear(16, 2)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(encoder(batch[train])), label[train])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    encoder.eval()
    with torch.no_grad():
        assert (head(encoder(batch[~train])).argmax(1) == label[~train]).float().mean() >= 0.85


@pytest.mark.parametrize(
    "make",
    [
        lambda: FramesEncoder(image_size=16),
        lambda: FramesEncoder(channels=()),
        lambda: FramesEncoder(clip_seconds=0),
        lambda: SpaceTimeEncoder(patch_size=7),
        lambda: SpaceTimeEncoder(num_frames=3),
        lambda: SpaceTimeEncoder(num_heads=5),
    ],
)
def test_impossible_options_are_refused(make: object) -> None:
    with pytest.raises(OmniAlignError):
        make()  # type: ignore[operator]
