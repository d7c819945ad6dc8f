"""Wide, signed and profiled pixels. TIFFs, PNGs and profiles are made by hand, byte for byte."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from omnialign_image import ImageModality
from PIL import Image

from omnialign import ReadError

image = ImageModality()


def first(data: bytes | Image.Image) -> list[int]:
    return image.read(data)[:, 0, 0].tolist()


def gray(data: bytes) -> list[int]:
    return image.read(data)[0, 0].tolist()


def tiff(
    values: np.ndarray[Any, Any], *, photometric: int, format: int = 1, extra: int | None = None
) -> bytes:
    """One row of pixels `(W, C)`; `format` 1 is unsigned, 2 signed, 3 floating point."""
    W, C = values.shape
    bits = values.dtype.itemsize * 8
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [W]),
        257: (4, [1]),
        258: (3, [bits] * C),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0]),
        277: (3, [C]),
        278: (4, [1]),
        279: (4, [values.nbytes]),
    }
    if extra is not None:
        tags[338] = (3, [extra])
    tags[339] = (3, [format] * C)
    start = 8 + 2 + 12 * len(tags) + 4
    long = {t: v for t, (k, v) in tags.items() if k == 3 and len(v) > 2}
    tags[273] = (4, [start + sum(2 * len(v) for v in long.values())])
    entries, rest = b"", b""
    for tag, (kind, numbers) in tags.items():
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == 3 else 'I'}", *numbers)
        if tag in long:
            packed, rest = struct.pack("<I", start + len(rest)), rest + packed
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    return head + entries + bytes(4) + rest + values.tobytes()


def png(colour: int, *values: int, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A row of 16-bit values; `colour` 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    W = len(values) // {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    pixels = b"\0" + struct.pack(f">{len(values)}H", *values)
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", W, 1, 16, colour, 0, 0, 0),
        **(chunks or {}),
        b"IDAT": zlib.compress(pixels),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts.items()
    )


def column(*values: float, dtype: str) -> np.ndarray[Any, Any]:
    return np.array(values, dtype)[:, None]


def test_sixteen_bit_colour_keeps_its_range() -> None:
    assert first(png(2, 65535, 32768, 257)) == [255, 128, 1]
    assert first(png(6, 65535, 32768, 257, 0)) == [255] * 3
    assert first(png(4, 0, 32768)) == [127] * 3
    row = np.array([[65535, 32768, 257]], "<u2")
    assert first(tiff(row, photometric=2)) == [255, 128, 1]


def test_sixteen_bit_grey() -> None:
    assert gray(png(0, 0, 257, 65535)) == [0, 1, 255]
    assert gray(png(0, 300, 0, chunks={b"tRNS": struct.pack(">H", 300)})) == [255, 0]
    assert gray(tiff(column(0, 65535, dtype="<u2"), photometric=1)) == [0, 255]


@pytest.mark.parametrize("dtype", ["<u1", "<u2"])
def test_a_tiff_whose_zero_is_white(dtype: str) -> None:
    values = column(0, np.iinfo(dtype).max, dtype=dtype)
    assert gray(tiff(values, photometric=0)) == [255, 0]


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (column(0, 0.5, 1, dtype="<f4"), 3),
        (column(-7, 0, 7, dtype="<f4"), 3),
        (column(-100, 0, 100, dtype="i1"), 2),
        (column(-100, 0, 100, dtype="<i2"), 2),
        (column(-100, 0, 100, dtype="<i4"), 2),
        (column(0, 2**31, 2**32 - 1, dtype="<u4"), 1),
    ],
    ids=lambda v: str(getattr(v, "dtype", v)),
)
def test_values_without_a_range_are_stretched(values: Any, format: int) -> None:
    assert gray(tiff(values, photometric=1, format=format)) == [0, 128, 255]


@pytest.mark.parametrize("dtype", ["<f2", "<f8"])
def test_floats_that_pillow_does_not_read(dtype: str) -> None:
    with pytest.raises(ReadError, match=r"begins as TIFF.*save it as PNG"):
        image.read(tiff(column(0, 1, dtype=dtype), photometric=1, format=3))


def test_premultiplied_alpha() -> None:
    straight, premultiplied = np.array([[[200, 0, 0, 128]], [[100, 0, 0, 128]]], np.uint8)
    assert first(tiff(straight, photometric=2, extra=2)) == [227, 127, 127]
    assert first(tiff(premultiplied, photometric=2, extra=1)) == [227, 127, 127]
    assert first(Image.new("RGBA", (1, 1), (200, 0, 0, 128)).convert("RGBa")) == [227, 127, 127]


# --- colour profiles ---------------------------------------------------------------------------

P3 = ((0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841))
"""Display P3's red, green and blue as XYZ under D50."""
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7142))


def profile(space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile of version 2 for a display, or a printer with CMYK."""
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    table, data = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(data), len(value))
        data += value.ljust(-(-len(value) // 4) * 4, b"\0")
    head = struct.pack(">I4sI4s4s4s12x4s", 0, bytes(4), 0x02100000, kind, space, pcs, b"acsp")
    whole = head.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249) + bytes(48) + table + data
    return struct.pack(">I", len(whole)) + whole[4:]


def fixed(*numbers: float) -> bytes:
    return struct.pack(f">{len(numbers)}i", *(round(n * 65536) for n in numbers))


def gamma(value: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(value * 256))


def rgb_profile(primaries: tuple[tuple[float, ...], ...]) -> bytes:
    xyz: dict[bytes, bytes] = {}
    for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        xyz[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primary)
        xyz[name + b"TRC"] = gamma(2.2)
    return profile(b"RGB ", xyz)


def cmyk_profile() -> bytes:
    """A press on which one ink in full gives mid grey, whichever it is, and two give black."""
    identity = bytes(range(256))
    cells = b"".join(bytes([(255, 128, 0, 0, 0)[i.bit_count()], 128, 128]) for i in range(16))
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    return profile(b"CMYK", {b"A2B0": head + identity * 4 + cells + identity * 3}, b"Lab ")


def saved(picture: Image.Image, format: str, icc: bytes) -> bytes:
    file = BytesIO()
    picture.save(file, format, icc_profile=icc, **({"quality": 100} if format != "PNG" else {}))
    return file.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_wide_colours_of_phones_become_srgb(format: str) -> None:
    """Display P3 (200, 100, 50) is (216, 93, 24) in sRGB, by the matrices of both."""
    photo = Image.new("RGB", (16, 16), (200, 100, 50))
    assert first(saved(photo, format, rgb_profile(P3))) == pytest.approx([216, 93, 24], abs=6)
    assert first(saved(photo, format, rgb_profile(SRGB))) == pytest.approx([200, 100, 50], abs=6)


def test_white_and_transparency_stay_under_a_profile() -> None:
    clear = Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    assert first(saved(clear, "PNG", rgb_profile(P3))) == [255] * 3


def test_a_grey_profile_is_applied_to_grey() -> None:
    icc = profile(b"GRAY", {b"kTRC": gamma(1)})
    expected = pytest.approx([188] * 3, abs=2)  # half of the light
    assert first(saved(Image.new("L", (8, 8), 128), "PNG", icc)) == expected
    assert first(saved(Image.new("RGB", (8, 8), (128,) * 3), "PNG", icc)) == [128] * 3


def test_the_profile_of_a_press_is_applied_to_its_inks() -> None:
    black = Image.new("CMYK", (8, 8), (0, 0, 0, 255))
    assert first(saved(black, "JPEG", cmyk_profile())) == pytest.approx([119] * 3, abs=4)
    assert first(saved(black.convert("RGB"), "JPEG", cmyk_profile())) == pytest.approx(
        first(saved(black.convert("RGB"), "JPEG", b"")), abs=1
    )


@pytest.mark.parametrize("icc", [b"no profile", rgb_profile(P3)[:150], b""])
def test_a_broken_profile_beside_sound_pixels_is_ignored(icc: bytes) -> None:
    assert first(saved(Image.new("RGB", (4, 4), (9, 8, 7)), "PNG", icc)) == [9, 8, 7]
