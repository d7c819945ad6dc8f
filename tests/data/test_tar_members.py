"""Headers of tars, sound and hostile, against Python's own reader."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from omnialign.data.tar_members import BLOCK, members
from omnialign.errors import DataError

LONG = "a/" * 120 + "b.txt"


def write(path: Path, format: int = tarfile.PAX_FORMAT, *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        names = ["a/1.txt", "p" * 60 + "/" + "q" * 60 + ".txt", "é.png", "empty.txt"]
        for i, name in enumerate(names + [LONG] * (format != tarfile.USTAR_FORMAT)):
            data = bytes([i]) * (i * 300) if name != "empty.txt" else b""
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in more:
            tar.addfile(member)
    return path


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_that_tarfile_sees(tmp_path: Path, format: int) -> None:
    path = write(tmp_path / "a.tar", format)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar if m.isfile()]
    found = [(m.name, m.offset, m.size) for m in members(path)]
    assert found == expected
    assert found[0] == ("a/1.txt", 2 * BLOCK, 0)


def test_an_empty_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w"):
        pass
    assert list(members(tmp_path / "a.tar")) == []


def damaged(change: Callable[[bytearray], object]) -> Callable[[Path], None]:
    def write_damaged(path: Path) -> None:
        data = bytearray(write(path, tarfile.GNU_FORMAT).read_bytes())
        change(data)
        path.write_bytes(data)

    return write_damaged


def special(kind: bytes) -> Callable[[Path], None]:
    def write_special(path: Path) -> None:
        member = tarfile.TarInfo("evil.png")
        member.type, member.linkname = kind, "/etc/passwd"
        write(path, tarfile.GNU_FORMAT, member)

    return write_special


def sized(field: bytes) -> Callable[[Path], None]:
    """A member whose header states a size, with the right checksum."""

    def write_sized(path: Path) -> None:
        header = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = field
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(bytes(header) + bytes(2 * BLOCK))

    return write_sized


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b""), "is no tar file"),
        (lambda path: path.write_bytes(b"\x89PNG" * 500), "is no tar file"),
        (lambda path: path.write_bytes(b"\x1f\x8b" + bytes(600)), "is compressed.* gunzip it"),
        (damaged(lambda data: data.__delitem__(slice(4000, None))), "member .* is cut off"),
        (damaged(lambda data: data.__delitem__(slice(BLOCK, None))), "no end mark after mem.*'a"),
        (damaged(lambda data: data.__delitem__(slice(BLOCK + 9, None))), "is cut off: it has no e"),
        (damaged(lambda data: data.__setitem__(BLOCK, 0xFF)), "damaged header after member 'a"),
        (special(tarfile.SYMTYPE), "member 'evil.png' is no regular file but of type b'2'"),
        (special(tarfile.LNKTYPE), "member 'evil.png' is no regular file"),
        (special(tarfile.CHRTYPE), "member 'evil.png' is no regular file"),
        (special(tarfile.GNUTYPE_SPARSE), "member 'evil.png' is no regular file"),
        (sized(b"\x80" + b"\xff" * 11), "member 'a.png' is cut off"),
        (sized(b"\xff" * 12), "member 'a.png' has no size"),
        (sized(b"-0000000001\0"), "member 'a.png' has no size"),
        (sized(b"77777777777\0"), "member 'a.png' is cut off"),
    ],
)
def test_damaged_and_hostile_tars(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "evil.tar"
    make(path)
    with pytest.raises(DataError, match=rf"evil\.tar: .*{message}"):
        list(members(path))


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (b"99 path=x\n", "damaged pax records"),
        (b"0 path=x\n", "damaged pax records"),
        (b"path=x\n", "where a number is wanted"),
        (b"12 size=-12\n", "has '-12' in its pax records"),
        (b"23 size=99999999999999\n", "is cut off"),
        (b"22 GNU.sparse.major=1\n", "is sparse"),
    ],
)
def test_hostile_pax_records(tmp_path: Path, records: bytes, message: str) -> None:
    header = tarfile.TarInfo("records")
    header.type, header.size = tarfile.XHDTYPE, len(records)
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(records))
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(DataError, match=message):
        list(members(tmp_path / "evil.tar"))


def test_a_huge_extension_header_is_not_read(tmp_path: Path) -> None:
    header = tarfile.TarInfo("name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**21
    with tarfile.open(tmp_path / "evil.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(header, io.BytesIO(bytes(2**21)))
    with pytest.raises(DataError, match="extension header of 2097152 bytes"):
        list(members(tmp_path / "evil.tar"))
