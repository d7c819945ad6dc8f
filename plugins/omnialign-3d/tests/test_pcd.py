"""PCD files, which the plugin reads itself."""

from __future__ import annotations

import struct

import pytest
from omnialign_3d import PointCloud, PointClouds

from omnialign import ReadError

MODALITY = PointClouds()
PCD_HEADER = """VERSION .7
FIELDS x y z rgb normal_x normal_y normal_z
SIZE 4 4 4 4 4 4 4
TYPE F F F {rgb} F F F
COUNT 1 1 1 1 1 1 1
WIDTH {width}
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS {width}
DATA {encoding}
"""


class TestPcd:
    def header(self, encoding: str, width: int = 2, rgb: str = "F") -> bytes:
        return b"# .PCD v.7\n" + PCD_HEADER.format(width=width, encoding=encoding, rgb=rgb).encode()

    def refusal(self, source: bytes) -> str:
        with pytest.raises(ReadError) as caught:
            MODALITY.read(source)
        return caught.value.reason

    def check(self, cloud: PointCloud) -> None:
        assert cloud.points.tolist() == [[1, 2, 3]]
        assert cloud.colors is not None
        assert (cloud.colors * 255).round().tolist() == [[255, 128, 1]]
        assert cloud.normals is not None
        assert cloud.normals.tolist() == [[0, 0, 1]]

    def test_binary(self) -> None:
        nan = float("nan")
        rows = [(1, 2, 3, 0xFF8001, 0, 0, 2), (nan, nan, nan, 0, 0, 0, 0)]
        body = b"".join(struct.pack("<fffIfff", *row) for row in rows)
        self.check(MODALITY.read(self.header("binary") + body))
        self.check(MODALITY.read(self.header("binary", rgb="U") + body))

    def test_text(self) -> None:
        bits = struct.unpack("<f", struct.pack("<I", 0xFF8001))[0]
        body = f"1 2 3 {bits!r} 0 0 2\nnan nan nan 0 0 0 0\n".encode()
        self.check(MODALITY.read(self.header("ascii") + body))
        body = b"1 2 3 16744449 0 0 2\nnan nan nan 0 0 0 0\n"
        self.check(MODALITY.read(self.header("ascii", rgb="U") + body))

    @pytest.mark.parametrize(
        ("old", "new", "reason"),
        [
            (b"DATA ascii", b"DATA binary_compressed", "save it as ascii or binary"),
            (b"FIELDS x y z", b"FIELDS x y w", "z missing"),
            (b"SIZE 4 4 4 4 4 4 4", b"SIZE 4 4", "differ in length"),
            (b"SIZE 4", b"SIZE 3", "unknown type"),
            (b"POINTS 2", b"POINTS 3", "3 points"),
            (b"WIDTH 2", b"WIDTH two", "two"),
            (b"WIDTH 2", b"", "WIDTH"),
            (b"DATA ascii", b"", "DATA"),
        ],
    )
    def test_wrong_headers(self, old: bytes, new: bytes, reason: str) -> None:
        assert reason in self.refusal(
            self.header("ascii").replace(old, new) + b"0 0 0 0 0 0 0\n" * 2
        )

    def test_promises_too_much(self) -> None:
        for encoding in ("ascii", "binary"):
            assert "promises" in self.refusal(self.header(encoding, 10**9) + b"0 " * 70)
