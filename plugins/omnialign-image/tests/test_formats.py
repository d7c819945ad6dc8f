"""Files of every format, turned, animated, cut short, or no pictures at all."""

from __future__ import annotations

import struct
import sys
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import torch
from omnialign_image import ImageModality
from PIL import Image

from omnialign import Claim, ReadError

image = ImageModality()
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
FORMATS = ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC"]


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    file = BytesIO()
    if format == "HEIC":
        pillow_heif.from_pillow(picture).save(file, quality=90, **options)
    else:
        picture.save(file, format, **options)
    return file.getvalue()


def quarters() -> Image.Image:
    """Three quarters of different colours, so that every turn shows."""
    upright = Image.new("RGB", (128, 64), BLUE)
    upright.paste(RED, (0, 0, 64, 32))
    upright.paste(GREEN, (0, 32, 64, 64))
    return upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_orientation_is_applied(format: str, orientation: int) -> None:
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = quarters()
    stored = upright.transpose(turned[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample = image.read(encoded(stored, format, exif=exif.tobytes()))
    assert sample.shape == (3, 64, 128)
    for y, x, colour in ((16, 32, RED), (48, 32, GREEN), (16, 96, BLUE), (48, 96, BLUE)):
        assert sample[:, y, x].tolist() == pytest.approx(colour, abs=4)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_the_first_of_many_frames_is_taken(format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, GREEN, BLUE)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert image.read(data)[:, 8, 8].tolist() == pytest.approx(RED, abs=4)


def test_heic_has_a_primary_picture() -> None:
    heif = pillow_heif.from_pillow(Image.new("RGB", (64, 64), RED))
    heif.add_from_pillow(Image.new("RGB", (64, 64), GREEN))
    file = BytesIO()
    heif.save(file, quality=90, primary_index=1)
    assert image.read(file.getvalue())[:, 32, 32].tolist() == pytest.approx(GREEN, abs=4)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF", "HEIC"])
def test_transparency_of_every_format_is_laid_over_white(format: str) -> None:
    half = Image.new("RGBA", (64, 64), (200, 0, 0, 128))
    sample = image.read(encoded(half, format))
    assert sample[:, 32, 32].tolist() == pytest.approx([227, 127, 127], abs=4)


def test_cmyk_jpegs_hold_inverted_inks_with_adobes_mark_and_without() -> None:
    data = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")
    mark = data.index(b"\xff\xee")
    (length,) = struct.unpack(">H", data[mark + 2 : mark + 4])
    bare = data[:mark] + data[mark + 2 + length :]
    assert b"Adobe" in data
    assert b"Adobe" not in bare
    for jpeg in (data, bare):
        assert image.read(jpeg)[:, 4, 4].tolist() == pytest.approx(RED, abs=4)


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_files_are_refused(format: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(Image.fromarray(noise), format)
    path = tmp_path / "half.jpg"
    for length in (len(data) // 2, 40):
        path.write_bytes(data[:length])
        with pytest.raises(ReadError, match=r"half\.jpg"):
            image.read(path)


def header(W: int, H: int) -> bytes:
    """A PNG that claims a size, and holds next to nothing."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", W, H, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(100))),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def test_a_decompression_bomb_is_refused_from_its_header() -> None:
    bomb = bytearray(encoded(Image.new("1", (8, 8)), "BMP"))
    bomb[18:26] = (10_500).to_bytes(4, "little") * 2
    for data, reason in (
        (header(100_000, 100_000), "more than 100000000 pixels; scale it down"),
        (header(10_500, 10_500), "10500 × 10500 pixels"),
        (bytes(bomb), "10500 × 10500 pixels"),
    ):
        with pytest.raises(ReadError, match=reason):
            image.read(data)


def test_what_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    for content, reason in (
        (b"", r"notes\.png': it is empty: 0 bytes"),
        (b"a few words", r"notes\.png': it is no picture; wanted PNG, JPEG, .* AVIF or HEIC"),
        (encoded(Image.new("L", (4, 4)), "PPM"), "it is no picture"),
        (b"\x89PNG\r\n\x1a\n", "begins as PNG, and is damaged"),
    ):
        path.write_bytes(content)
        for source in (path, content, BytesIO(content)):
            with pytest.raises(ReadError, match=reason.replace(r"notes\.png': ", "")):
                image.read(source)
        with pytest.raises(ReadError, match=reason):
            image.read(str(path))


def test_the_bytes_decide_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    for format in FORMATS:
        path.write_bytes(encoded(quarters(), format))
        assert image.read(path).shape == (3, 64, 128)


def test_heic_without_its_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(encoded(quarters(), "HEIC"))
    assert torch.equal(image.read(path), image.read(path.read_bytes()))
    assert "HEIF" not in Image.OPEN, "Pillow is left as it was"
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ReadError, match=r'HEIC.*pip install "omnialign-image\[heif\]"'):
        image.read(path)


def test_claims_of_avif_and_heic(tmp_path: Path) -> None:
    for format in ("AVIF", "HEIC"):
        data = encoded(quarters(), format)
        for brand in (data[8:12], b"mif1"):
            assert image.claim(data[:8] + brand + data[12:]) == Claim.OWNS
            assert image.claim(BytesIO(data[:8] + brand + data[12:])) == Claim.OWNS
    assert image.claim(b"\0\0\0\x18ftypisom\0\0\0\0isommp42") == Claim.NO
    for suffix in (".heic", ".HEIF", ".avif", ".jfif"):
        assert image.claim(tmp_path / f"a{suffix}") == Claim.OWNS
    assert image.claim(tmp_path / "a.apng") == Claim.COULD
