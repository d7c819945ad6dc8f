from __future__ import annotations

from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omnialign_image import ImageModality, formats
from omnialign_image.augmentations import Affine, Crop
from omnialign_image.conv import ConvEncoder
from omnialign_image.vit import ViTEncoder
from PIL import Image

from omnialign import Claim, ReadError

image = ImageModality()
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def pixel(sample: torch.Tensor, y: int, x: int) -> tuple[int, ...]:
    return tuple(sample[:, y, x].tolist())


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_formats_give_the_exact_pixels(format: str) -> None:
    picture = Image.new("RGB", (5, 3), RED)
    picture.putpixel((4, 1), BLUE)
    sample = image.read(encoded(picture, format))
    assert sample.shape == (3, 3, 5)
    assert sample.dtype == torch.uint8
    assert (pixel(sample, 0, 0), pixel(sample, 1, 4)) == (RED, BLUE)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_come_close(format: str) -> None:
    sample = image.read(encoded(Image.new("RGB", (16, 16), (200, 100, 50)), format))
    expected = torch.tensor([200, 100, 50])[:, None, None]
    assert (sample.int() - expected).abs().max() <= 6


def test_transparency_is_laid_over_white() -> None:
    half = Image.new("RGBA", (2, 1), (255, 0, 0, 128))
    half.putpixel((1, 0), (0, 0, 0, 0))
    sample = image.read(half)
    assert pixel(sample, 0, 0) == (255, 127, 127)
    assert pixel(sample, 0, 1) == WHITE


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_is_laid_over_white(format: str) -> None:
    picture = Image.new("P", (2, 2), 1)
    picture.putpalette([9, 9, 9, *RED, *GREEN])
    picture.putpixel((0, 0), 0)
    sample = image.read(encoded(picture, format, transparency=0))
    assert (pixel(sample, 0, 0), pixel(sample, 1, 1)) == (WHITE, RED)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "YCbCr", "HSV", "RGBA", "RGBX"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    sample = image.read(Image.new("RGB", (4, 4), WHITE).convert(mode))
    assert sample.shape == (3, 4, 4)
    assert sample.min() >= 254


def test_a_cmyk_jpeg() -> None:
    sample = image.read(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))
    assert pixel(sample, 0, 0) == pytest.approx(RED, abs=4)


def test_non_finite_pixels_are_refused() -> None:
    with pytest.raises(ReadError, match="finite"):
        image.read(encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"))


def test_broken_exif_does_not_hide_sound_pixels() -> None:
    data = encoded(Image.new("RGB", (8, 8), RED), "JPEG", exif=b"Exif\0\0not a tiff header")
    assert image.read(data).shape == (3, 8, 8)


ARRAYS = [
    np.full((4, 6), 255, np.uint8),
    np.full((4, 6, 1), 255, np.uint8),
    np.full((4, 6, 3), 255, np.uint8),
    np.full((4, 6, 4), 255, np.uint8),
    np.ones((4, 6, 3), np.float32),
    np.full((4, 6), 65535, np.uint16),
    np.ones((4, 6), np.bool_),
    torch.full((3, 4, 6), 255, dtype=torch.uint8),
    torch.ones(1, 4, 6),
    torch.ones(3, 4, 6, dtype=torch.bfloat16, requires_grad=True),
]


@pytest.mark.parametrize("values", ARRAYS, ids=lambda v: f"{v.dtype}-{tuple(v.shape)}")
def test_arrays_and_tensors(values: Any) -> None:
    assert torch.equal(image.read(values), torch.full((3, 4, 6), 255, dtype=torch.uint8))


def test_an_array_that_is_read_is_copied() -> None:
    values = np.zeros((2, 2, 3), np.uint8)
    sample = image.read(values)
    values += 9
    assert not sample.any()


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros((4,)), "an array is"),
        (np.zeros((4, 4, 2), np.uint8), "an array is"),
        (np.zeros((0, 4), np.uint8), "none empty"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 2.0), "0..1"),
        (np.full((4, 4), np.nan), "0..1"),
        (torch.zeros(4, 4), "a tensor is"),
    ],
)
def test_other_arrays_are_refused(values: Any, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        image.read(values)


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="No such file"):
        image.read(str(tmp_path / "gone.png"))
    with pytest.raises(ReadError, match="directory"):
        image.read(tmp_path)


def test_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReadError, match="binary mode"):
        image.read(StringIO("words"))
    monkeypatch.setattr(formats, "MAX_FILE_BYTES", 10)
    with pytest.raises(ReadError, match="larger than 10 bytes"):
        image.read(BytesIO(bytes(11)))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_claims_of_animations_and_stills(format: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    moving = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    for data, expected in ((moving, Claim.COULD), (encoded(frames[0], format), Claim.OWNS)):
        path = tmp_path / f"a.{format.lower()}"
        path.write_bytes(data)
        file = BytesIO(data)
        file.seek(3)
        assert image.claim(path) == expected
        assert image.claim(data) == expected
        file.seek(0)
        assert image.claim(file) == expected
        assert file.tell() == 0


def test_claims_of_other_forms(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gif"
    broken.write_bytes(b"GIF89a")
    assert image.claim(broken) == Claim.OWNS
    assert image.claim(tmp_path / "photo.JPG") == Claim.OWNS
    assert image.claim(encoded(Image.new("L", (4, 4)), "JPEG")) == Claim.OWNS
    assert image.claim(Image.new("L", (4, 4))) == Claim.OWNS
    for other in (b"RIFF\0\0\0\0WAVE", b"", "a.png", np.zeros((4, 4)), StringIO("words"), 3):
        assert image.claim(other) == Claim.NO


def test_real_pictures() -> None:
    folders = [DATA / name / "images" for name in ("noto_emoji", "grocery_photos")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("the real data is not beside this checkout")
    for folder in folders:
        for path in sorted(folder.iterdir())[:10]:
            assert image.claim(path) == Claim.OWNS
            assert min(image.read(path).shape[1:]) >= 72


def test_the_preview_is_a_small_jpeg() -> None:
    preview = image.preview(torch.zeros(3, 300, 600, dtype=torch.uint8))
    with Image.open(BytesIO(preview.data)) as picture:
        assert (preview.mime, picture.format, picture.size) == ("image/jpeg", "JPEG", (256, 128))


class TestScaledDecoding:
    def photo(self, W: int, H: int) -> bytes:
        return encoded(Image.effect_noise((W, H), 80).resize((W, H)).convert("RGB"), "JPEG")

    @pytest.mark.parametrize(
        ("resolution", "expected"),
        [(None, (480, 640)), (400, (480, 640)), (160, (240, 320)), (64, (120, 160)), (1, (60, 80))],
    )
    def test_it_keeps_what_is_wanted_and_spare(
        self, resolution: float | None, expected: tuple[int, int]
    ) -> None:
        assert image.open(self.photo(640, 480), resolution).shape[1:] == expected

    def test_other_formats_and_forms_stay_whole(self) -> None:
        picture = Image.new("RGB", (640, 480))
        for format in ("PNG", "WEBP", "BMP", "TIFF", "GIF"):
            assert image.open(encoded(picture, format), 32).shape[1:] == (480, 640)
        assert image.open(picture, 32).shape[1:] == (480, 640)
        assert image.read(self.photo(640, 480)).shape[1:] == (480, 640)

    def test_orientation_and_grey_are_kept(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        file = BytesIO()
        Image.new("L", (640, 320)).save(file, "JPEG", exif=exif)
        assert image.open(file.getvalue(), 64).shape == (3, 320, 160)

    def test_zooming_augmentations_want_more(self) -> None:
        assert Crop(scale=(0.25, 1.0), ratio=(1, 1)).zoom == 2
        assert Crop(scale=(1.0, 1.0), ratio=(0.25, 2)).zoom == 2
        assert Affine(scale=(0.5, 3.0)).zoom == 3
        assert Affine(scale=(0.5, 0.9)).zoom == 1

    @torch.no_grad()
    @pytest.mark.parametrize(("folder", "size"), [("grocery_photos", 40), ("coco_captions_cc", 64)])
    def test_embeddings_of_real_photos_stay(self, folder: str, size: int) -> None:
        photos = sorted((DATA / folder / "images").glob("*.jpg"))[:40]
        if not photos:
            pytest.skip("the real data is not beside this checkout")
        torch.manual_seed(0)
        for encoder in (ConvEncoder(image_size=size), ViTEncoder(image_size=size)):
            whole, scaled = (
                encoder.eval()(torch.stack([encoder.preprocess(sample) for sample in samples]))
                for samples in (
                    [image.read(photo) for photo in photos],
                    [image.open(photo, encoder.resolution) for photo in photos],
                )
            )
            assert not torch.equal(whole, scaled)
            assert torch.cosine_similarity(whole, scaled).min() >= 0.99
            assert torch.cdist(scaled, whole).argmin(1).tolist() == list(range(len(photos)))
