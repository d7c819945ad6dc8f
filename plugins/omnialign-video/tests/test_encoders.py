"""Both encoders: they see the order of frames, refuse what cannot be, and stand half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omnialign_video import VideoModality
from omnialign_video.frames import FramesEncoder
from omnialign_video.spacetime import SpaceTimeEncoder
from torch import Tensor

from omnialign import Encoder, OmniAlignError

SMALL: dict[str, Callable[[], Encoder]] = {
    "frames": lambda: FramesEncoder(width=16, channels=(8, 16)),
    "spacetime": lambda: SpaceTimeEncoder(width=12, depth=1, patch_size=12),
}


def batch(encoder: Encoder) -> Tensor:
    """uint8 `(2, F, 3, S, S)`."""
    return encoder.collate([encoder.preprocess(s) for s in VideoModality().example_samples(2)])


@pytest.fixture(params=SMALL)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    torch.manual_seed(0)
    return SMALL[request.param]().eval()


@torch.no_grad()
def test_the_order_of_frames_matters(encoder: Encoder) -> None:
    forward = torch.randint(0, 256, batch(encoder).shape, dtype=torch.uint8)
    features = encoder(forward)
    assert features.shape == (2, encoder.width)
    assert encoder(forward).equal(features)
    swapped_pairs = forward[:, [4, 5, 2, 3, 0, 1, 6, 7]]  # whole tubelets of two frames
    for other in (forward.flip(1), swapped_pairs):
        assert not other.equal(forward)
        change = (encoder(other) - features).norm(dim=1) / features.norm(dim=1)
        assert (change > 1e-4).all()


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(encoder: Encoder) -> None:
    both = batch(encoder)
    alone = torch.cat([encoder(both[:1]), encoder(both[1:])])
    torch.testing.assert_close(encoder(both), alone, rtol=1e-4, atol=1e-5)


def test_bf16_autocast_is_finite_and_close(encoder: Encoder) -> None:
    inputs = batch(encoder)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(inputs)
    features.float().square().sum().backward()
    assert features.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    with torch.no_grad():
        cosine = torch.cosine_similarity(features.float(), encoder(inputs))
    assert (cosine > 0.99).all()


@pytest.mark.parametrize(
    ("kind", "options", "reason"),
    [
        (FramesEncoder, {"channels": ()}, "0 stages"),
        (FramesEncoder, {"image_size": 47}, "at least 48"),
        (FramesEncoder, {"grid_size": 4}, "at least 64"),
        (FramesEncoder, {"num_frames": 0}, "num_frames at least 1"),
        (FramesEncoder, {"clip_seconds": 0.0}, "clip_seconds above 0"),
        (SpaceTimeEncoder, {"patch_size": 7}, "patch_size 7 must divide"),
        (SpaceTimeEncoder, {"num_frames": 7}, "tubelet_frames 2"),
        (SpaceTimeEncoder, {"num_heads": 5}, "num_heads 5"),
        (SpaceTimeEncoder, {"num_heads": 0}, "num_heads 0"),
        (SpaceTimeEncoder, {"patch_size": 0}, "patch_size 0"),
        (SpaceTimeEncoder, {"num_frames": 0}, "num_frames 0"),
        (SpaceTimeEncoder, {"clip_seconds": 0.0}, "clip_seconds"),
    ],
)
def test_bad_options_are_refused(kind: type[Encoder], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(OmniAlignError, match=reason):
        kind(**options)
