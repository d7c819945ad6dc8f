"""Residues and FASTA: what a protein sequence may hold, and the files it comes in."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from omnialign import ReadError

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
ALPHABET = AMINO_ACIDS + "BJOUXZ"
"""IUPAC one-letter codes: the 20 of the standard code, selenocysteine U, pyrrolysine O, and the
ambiguous B (D or N), Z (E or Q), J (I or L) and X (any)."""
GAPS = "-."
NUCLEOTIDES = frozenset("ACGTUN")
MIN_NUCLEOTIDES = 20
"""So many letters of nothing but nucleotides, with A, C, G and T or U among them, are no protein:
they make up a quarter of natural residues, so that by chance one sequence in 10¹¹ looks so."""
MAX_RESIDUES = 100_000
"""The longest known proteins have some 45 000."""
MAX_FILE_BYTES = 512 * 2**20
"""All of Swiss-Prot takes some 300 MB."""


def read_fasta(source: Any) -> list[tuple[str, str]]:
    """All records of a FASTA path, bytes, open binary file or string, as `(name, residues)`.

    The name is the header line without its `>`. Lines that begin with `;` are comments.

    Raises `ReadError` for anything that is not FASTA, and for a record with no or wrong residues;
    the reason names the record.
    """
    text = source if isinstance(source, str) else _decoded(source)
    records: list[tuple[str, list[str]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith(">"):
            records.append((line[1:].strip(), []))
        elif records and not line.startswith(";"):
            records[-1][1].append(line)
        elif line.strip() and not line.startswith(";"):
            raise ReadError(
                source,
                f"wanted a FASTA record, which opens with '>' and a name; found {line[:20]!r} in "
                f"line {number}",
            )
    if not records:
        raise ReadError(source, "wanted FASTA records, which open with '>' and a name; found none")
    return [
        (name, checked_residues("\n".join(lines), source, f"record '{name[:40]}'"))
        for name, lines in records
    ]


def checked_residues(text: str, source: Any, what: str = "the sequence") -> str:
    """Upper-case residues of `text` with no whitespace, no gaps and no stop at the end.

    Raises `ReadError` that names `source` and `what`.
    """
    residues = "".join(text.split()).upper().translate(dict.fromkeys(map(ord, GAPS)))
    residues = residues.removesuffix("*")
    if not residues:
        raise ReadError(source, f"{what} has no residues")
    if len(residues) > MAX_RESIDUES:
        raise ReadError(
            source, f"{what} has {len(residues)} residues; at most {MAX_RESIDUES} are read"
        )
    if "*" in residues:
        raise ReadError(
            source,
            f"{what} has a stop '*' at residue {residues.index('*') + 1}, before its end; "
            "translate in the right frame, or cut it there",
        )
    wrong = sorted(set(residues) - set(ALPHABET))
    if wrong:
        raise ReadError(
            source,
            f"{what} holds {', '.join(map(repr, wrong[:5]))}, which are not IUPAC amino acid "
            f"letters ({ALPHABET}); unknown residues are X",
        )
    if _is_nucleic(residues):
        raise ReadError(
            source,
            f"{what} reads as DNA or RNA: it holds the letters of nucleotides alone; translate it",
        )
    if any(not _in_blocks(line) for line in text.splitlines()):
        raise ReadError(
            source,
            f"{what} reads as words, not residues: spaces may only part blocks of one length; a "
            "description of a protein is of the modality 'text'",
        )
    return residues


def _is_nucleic(residues: str) -> bool:
    letters = set(residues)
    return (
        len(residues) >= MIN_NUCLEOTIDES
        and letters <= NUCLEOTIDES
        and letters.issuperset("ACG")
        and bool(letters & {"T", "U"})
    )


def _in_blocks(line: str) -> bool:
    """Whether a line is blocks of one length but for the last, as flat files print sequences."""
    lengths = [len(block) for block in line.split()]
    return len(set(lengths[:-1])) <= 1


def _decoded(source: Any) -> str:
    """The text of a path, bytes or an open binary file."""
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    elif isinstance(source, PathLike):
        try:
            with Path(source).open("rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise ReadError(source, f"{error.strerror}; wanted a FASTA file") from None
    elif hasattr(source, "read"):
        data = source.read(MAX_FILE_BYTES + 1)
        if not isinstance(data, bytes):
            raise ReadError(source, "wanted a file opened in binary mode ('rb')")
    else:
        raise ReadError(
            source, "wanted residues or FASTA: a str, a path, bytes or an open binary file"
        )
    if len(data) > MAX_FILE_BYTES:
        raise ReadError(source, f"wanted at most {MAX_FILE_BYTES} bytes; split the file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(
            source, f"wanted FASTA text, found a byte that is not UTF-8 at {error.start}"
        ) from None
