from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from omnialign_protein import Protein, fasta, read_fasta
from omnialign_protein.fasta import ALPHABET, MAX_RESIDUES

from omnialign import Claim, ReadError

PROTEIN = Protein()
RESIDUES = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQ"
FASTA = f">ubiquitin, human\n; a comment\n{RESIDUES[:20]}\n{RESIDUES[20:]}\n"


def test_one_protein_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "ubiquitin.fasta"
    path.write_bytes(b"\xef\xbb\xbf" + FASTA.replace("\n", "\r\n").encode())
    data = path.read_bytes()
    for source in (RESIDUES, FASTA, f"\n{FASTA}", path, data, bytearray(data), io.BytesIO(data)):
        assert PROTEIN.read(source) == RESIDUES


@pytest.mark.parametrize(
    ("text", "residues"),
    [
        ("mqifvktl", "MQIFVKTL"),
        (" MQIFV\nKTL\t", "MQIFVKTL"),
        ("MQIFVKTLTG KTITLEVEPS DTIE", "MQIFVKTLTGKTITLEVEPSDTIE"),
        ("MQ--IF.V", "MQIFV"),
        ("MQIFV*", "MQIFV"),
        (ALPHABET, ALPHABET),
        ("MXXBZJ", "MXXBZJ"),
        ("AAT" * 30, "AAT" * 30),
        ("ACGTACGT", "ACGTACGT"),
        ("hello world", "HELLOWORLD"),
    ],
)
def test_how_sequences_are_written(text: str, residues: str) -> None:
    assert PROTEIN.read(text) == residues


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("", "no residues"),
        ("--*", "no residues"),
        ("MQ1FV", "'1', which are not IUPAC"),
        ("data/a.fasta", "not IUPAC"),
        ("MQ*IFV", r"stop '\*' at residue 3"),
        ("a zinc finger protein", "reads as words"),
        ("MQ**", r"stop '\*' at residue 3"),
        ("M?Q", r"'\?', which are not IUPAC"),
        ("  1 MQIFV KTLTG", "'1', which are not IUPAC"),
        ("ATGCGTTTANCC" * 2, "reads as DNA or RNA.*translate it"),
        (">gene\naugcguuuaacc\nAUGCGUUUAACC", "record 'gene' reads as DNA or RNA"),
        ("M" * (MAX_RESIDUES + 1), f"at most {MAX_RESIDUES}"),
        (">lonely", "record 'lonely' has no residues"),
        (">a\nMQ\n>b\nMK\n>c\nMA\n", "found 3 FASTA records.*read_fasta"),
        (b"MQIFVKTL", "opens? with '>'"),
        (b"", "found none"),
        (b">a\n\xff\xfe", "not UTF-8"),
        (b">a\n" + bytes(99), "not IUPAC"),
        (io.StringIO(FASTA), "binary mode"),
        (17, "wanted residues or FASTA"),
    ],
    ids=range(20),
)
def test_refuses(source: Any, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        PROTEIN.read(source)


def test_refuses_a_file_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta, "MAX_FILE_BYTES", 10)
    with pytest.raises(ReadError, match="at most 10 bytes; split the file"):
        PROTEIN.read(b">a\nMQIFVKTL")


def test_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="Is a directory"):
        PROTEIN.read(tmp_path)


def test_read_fasta_gives_all_records(tmp_path: Path) -> None:
    text = ">first one\nMQ\nIF\n\n>\nvk*\n"
    wanted = [("first one", "MQIF"), ("", "VK")]
    path = tmp_path / "two.faa"
    path.write_text(text)
    assert read_fasta(text) == read_fasta(path) == read_fasta(text.encode()) == wanted
    with pytest.raises(ReadError, match="record 'bad'"):
        read_fasta(">good\nMQ\n>bad\nM7\n")


def test_claims() -> None:
    for owned in (FASTA, f"  {FASTA}", FASTA.encode(), b"\xef\xbb\xbf" + FASTA.encode()):
        assert PROTEIN.claim(owned) == Claim.OWNS
    assert PROTEIN.claim(Path("a.FAA")) == Claim.OWNS
    for other in (RESIDUES, "a caption", b"words", b"", Path("a.txt"), 3):
        assert PROTEIN.claim(other) == Claim.NO
    file = io.BytesIO(b"x" + FASTA.encode())
    file.seek(1)
    assert PROTEIN.claim(file) == Claim.OWNS
    assert file.tell() == 1


@pytest.mark.parametrize("window", [1, 7, 41, 1000])
def test_segments_lose_nothing(window: int) -> None:
    parts = [segment.sample for segment in PROTEIN.segments(RESIDUES, window)]
    assert "".join(parts) == RESIDUES
    assert all(0 < len(part) <= window for part in parts)


def test_preview_draws_residues() -> None:
    svg = PROTEIN.preview(RESIDUES).data.decode()
    assert svg.count("<rect") == len(RESIDUES)
    assert "more residues" not in svg
    long = PROTEIN.preview("MX" * 5000).data.decode()
    assert "and 9400 more residues" in long
    assert len(long) < 200_000
