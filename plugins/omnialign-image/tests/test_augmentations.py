from __future__ import annotations

import pytest
import torch
from omnialign_image.augmentations import (
    Affine,
    ColorJitter,
    Crop,
    Erasing,
    Flip,
    Grayscale,
    Rotation,
)
from torch import Tensor

from omnialign import OmniAlignError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def picture() -> Tensor:
    """(3, 40, 60): red grows downwards, green to the right, blue is constant."""
    rows = torch.linspace(0, 200, 40)[:, None].expand(40, 60)
    columns = torch.linspace(0, 200, 60).expand(40, 60)
    return torch.stack([rows, columns, torch.full((40, 60), 90.0)]).to(torch.uint8)


def test_crop_keeps_the_aspect_ratio_and_cuts_the_share_it_says(picture: Tensor) -> None:
    for seed in range(20):
        window = Crop(scale=(0.25, 0.25), ratio=(1, 1))(picture, seeded(seed))
        assert window.shape == (3, 20, 30)
        assert window[0].max() - window[0].min() < 110
    assert Crop(scale=(1, 1), ratio=(1, 1))(picture, seeded(0)).equal(picture)


def test_crop_of_one_pixel() -> None:
    assert Crop()(torch.zeros(3, 1, 1, dtype=torch.uint8), seeded(0)).shape == (3, 1, 1)


def test_flip_mirrors_by_its_probability(picture: Tensor) -> None:
    assert Flip(1.0)(picture, seeded(0)).equal(picture.flip(-1))
    assert Flip(0.0)(picture, seeded(0)).equal(picture)
    flips = sum(Flip()(picture, seeded(s)).equal(picture.flip(-1)) for s in range(100))
    assert 30 < flips < 70


def test_rotation_fills_its_corners_as_said(picture: Tensor) -> None:
    turned = Rotation(45)(picture, seeded(3))
    assert turned[:, 0, 0].tolist() == [255, 255, 255]
    assert Rotation(45, "black")(picture, seeded(3))[:, 0, 0].tolist() == [0, 0, 0]
    assert Rotation(0)(picture, seeded(0)).equal(picture)


def test_affine_moves_by_its_share_of_the_side() -> None:
    dot = torch.zeros(3, 41, 41, dtype=torch.uint8)
    dot[:, 20, 20] = 255
    places = []
    for seed in range(30):
        moved = Affine(0, 0.25, (1, 1), 0, "black")(dot, seeded(seed))[0].float()
        places.append(torch.stack(torch.where(moved == moved.max())).float().mean(1) - 20)
    reach = torch.stack(places).abs().max(0).values
    assert (reach <= 11).all()
    assert (reach >= 7).all()


def test_color_jitter_changes_only_what_it_names(picture: Tensor) -> None:
    assert ColorJitter(0, 0, 0, 0)(picture, seeded(0)).equal(picture)
    brighter = ColorJitter(0.5, 0, 0)(picture, seeded(0)).float()
    factor = brighter[2].mean() / 90
    assert 0.5 <= factor <= 1.5
    torch.testing.assert_close(brighter, picture * factor, rtol=0, atol=2)
    gray = picture[:1].expand(3, -1, -1)
    shifted = ColorJitter(0, 0, 0.5, 0.5)(gray, seeded(0))
    assert (shifted.int() - gray.int()).abs().max() <= 1


def test_grayscale_takes_the_colour_away(picture: Tensor) -> None:
    gray = Grayscale(1.0)(picture, seeded(0))
    assert gray[0].equal(gray[1])
    assert gray[0].equal(gray[2])


def test_erasing_covers_one_rectangle_with_one_colour(picture: Tensor) -> None:
    erased = Erasing(1.0, (0.1, 0.1))(picture, seeded(1))
    changed = (erased != picture).any(0)
    assert changed.float().mean() == pytest.approx(0.1, abs=0.02)
    assert len(erased[:, changed].unique(dim=1).T) == 1
    assert Erasing(0.0)(picture, seeded(1)).equal(picture)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Crop(scale=(0.9, 0.1)),
        lambda: Crop(ratio=(0, 1)),
        lambda: Flip(1.5),
        lambda: Rotation(-3),
        lambda: ColorJitter(hue=0.7),
        lambda: Erasing(scale=(0, 2)),
    ],
)
def test_impossible_options_are_refused(make: object) -> None:
    with pytest.raises(OmniAlignError, match="wanted"):
        make()  # type: ignore[operator]
