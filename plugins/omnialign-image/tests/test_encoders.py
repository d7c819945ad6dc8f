from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from omnialign_image.backbone import TorchvisionEncoder
from omnialign_image.conv import ConvEncoder
from omnialign_image.fitting import FitSquare
from omnialign_image.vit import ViTEncoder

from omnialign import OmniAlignError


@pytest.mark.parametrize(
    ("fit", "red", "white"), [("pad", 0.5, 0.5), ("squash", 1.0, 0.0), ("crop", 1.0, 0.0)]
)
def test_fits(fit: str, red: float, white: float) -> None:
    picture = torch.zeros(3, 20, 40, dtype=torch.uint8)
    picture[0] = 200
    fitted = FitSquare(16, fit)(picture)  # type: ignore[arg-type]
    assert fitted.shape == (3, 16, 16)
    assert fitted.dtype == torch.uint8
    assert (fitted[0] == 200).float().mean() == red
    assert (fitted == 255).all(0).float().mean() == white


def test_only_crop_loses_content() -> None:
    picture = torch.zeros(3, 16, 64, dtype=torch.uint8)
    picture[:, :, :8] = 200
    seen = {fit: FitSquare(16, fit)(picture).eq(200).any() for fit in ("pad", "squash", "crop")}
    assert seen == {"pad": True, "squash": True, "crop": False}


def test_a_thin_picture_does_not_grow() -> None:
    thin = torch.zeros(3, 1, 100_000, dtype=torch.uint8)
    for fit in ("pad", "squash", "crop"):
        assert FitSquare(8, fit)(thin).shape == (3, 8, 8)


def test_a_grid_tells_left_from_right() -> None:
    """A blot far from the border: without a grid its place is forgotten, up to the convolutions'
    zero padding."""
    picture = torch.full((1, 3, 64, 64), 255, dtype=torch.uint8)
    left, right = picture.clone(), picture.clone()
    left[..., 28:36, 12:20] = 0
    right[..., 28:36, 44:52] = 0
    apart: list[float] = []
    for grid_size in (1, 2):
        torch.manual_seed(0)
        encoder = ConvEncoder(channels=(8, 16), grid_size=grid_size).eval()
        with torch.no_grad():
            a, b, ground = encoder(left), encoder(right), encoder(picture)
        apart.append(float((a - b).norm() / (a - ground).norm()))
    assert apart[0] < 0.1
    assert apart[1] > 0.5


@pytest.mark.parametrize(
    ("backbone", "width", "image_size"),
    [("resnet18", 512, 64), ("squeezenet1_1", 512, 64), ("vit_b_16", 768, 32)],
)
@torch.no_grad()
def test_the_width_is_the_backbones_own(backbone: str, width: int, image_size: int) -> None:
    encoder = TorchvisionEncoder(backbone, image_size=image_size).eval()
    pixels = torch.zeros(2, 3, image_size, image_size, dtype=torch.uint8)
    assert encoder.width == width
    assert encoder(pixels).shape == (2, width)


@torch.no_grad()
def test_weights_from_a_file(tmp_path: Path) -> None:
    from torchvision.models import get_model

    torch.manual_seed(1)
    network = get_model("squeezenet1_1", weights=None)
    path = tmp_path / "weights.pt"
    torch.save(network.state_dict(), path)
    encoder = TorchvisionEncoder("squeezenet1_1", str(path), 64)
    assert encoder.network.features[0].weight.equal(network.features[0].weight)
    path.unlink()
    rebuilt = TorchvisionEncoder.from_files(
        tmp_path, backbone="squeezenet1_1", weights=str(path), image_size=64, fit="pad"
    )
    rebuilt.load_state_dict(encoder.state_dict())


def test_weights_that_do_not_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(OmniAlignError, match=r"IMAGENET1K_V1.*\.pth.*no route.*path of that file"):
        TorchvisionEncoder("squeezenet1_1", weights="IMAGENET1K_V1")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"layer": torch.zeros(1)}, path)
    with pytest.raises(OmniAlignError, match="do not fit"):
        TorchvisionEncoder("squeezenet1_1", str(path))
    torch.save([1], path)
    with pytest.raises(OmniAlignError, match="found list"):
        TorchvisionEncoder("squeezenet1_1", str(path))
    path.write_bytes(b"words")
    with pytest.raises(OmniAlignError, match="does not load"):
        TorchvisionEncoder("squeezenet1_1", str(path))
    with pytest.raises(OmniAlignError, match="near it: IMAGENET1K_V1"):
        TorchvisionEncoder("squeezenet1_1", "IMAGENET")


def test_an_unknown_backbone_lists_near_names() -> None:
    with pytest.raises(OmniAlignError, match="resnet18"):
        TorchvisionEncoder("resnet-18")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ConvEncoder(image_size=16),
        lambda: ConvEncoder(channels=()),
        lambda: ViTEncoder(patch_size=7),
        lambda: ViTEncoder(num_heads=5),
    ],
)
def test_impossible_options_are_refused(make: object) -> None:
    with pytest.raises(OmniAlignError):
        make()  # type: ignore[operator]


def test_blocks_of_a_resnet_are_those_of_all_stages() -> None:
    blocks = TorchvisionEncoder("resnet18").list_blocks()
    assert len(blocks) == 8
    assert len(TorchvisionEncoder("convnext_tiny").list_blocks()) == 8
