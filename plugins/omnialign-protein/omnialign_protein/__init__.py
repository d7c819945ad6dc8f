"""Protein sequences for OmniAlign."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from omnialign import Claim, Modality, Preview, ReadError, Segment, Source, hookimpl
from omnialign_protein.fasta import AMINO_ACIDS, checked_residues, read_fasta
from omnialign_protein.picture import draw_sequence

__all__ = ["Protein", "read_fasta"]


class Protein(Modality[str]):
    """A protein: a `str` of residues in upper case, from the N-terminus to the C-terminus.

    A `str` is residues or one FASTA record; a path, `bytes` or an open binary file hold one FASTA
    record. Letters are those of IUPAC, with B, J, O, U, X and Z; lower case, whitespace, gaps
    (`-`, `.`) and a stop (`*`) at the end are taken off. Refused with a `ReadError`: other
    letters, a stop before the end, words, no residues, more than 100 000, several records.

    The unit of `segments` is the residue.
    """

    name = "protein"
    suffixes = frozenset({".fasta", ".fa", ".faa"})
    inline_strings = True
    long_input = "windows"
    templates = ("{}", "a protein with {}", "a protein sequence that holds {}")
    augmentations: ClassVar = {
        "mask": "omnialign_protein.augmentations:Mask",
        "crop": "omnialign_protein.augmentations:Crop",
    }
    encoders: ClassVar = {
        "conv": "omnialign_protein.conv:ConvProtein",
        "transformer": "omnialign_protein.transformer:TransformerProtein",
    }
    default_encoder = "conv"

    def claim(self, source: Any) -> Claim:
        """What opens with the '>' of FASTA, and FASTA files; bare residues could be anything."""
        if isinstance(source, str):
            return Claim.OWNS if source.lstrip().startswith(">") else Claim.NO
        if isinstance(source, bytes | bytearray | memoryview):
            return _sniffed(bytes(source[:64]))
        if hasattr(source, "read") and hasattr(source, "seek"):
            position = source.tell()
            head = source.read(64)
            source.seek(position)
            return _sniffed(head) if isinstance(head, bytes) else Claim.NO
        return super().claim(source)

    def read(self, source: Any) -> str:
        """One protein from residues, a FASTA text, or a FASTA path, bytes or open binary file.

        Raises `ReadError` for what the class refuses.
        """
        if isinstance(source, str) and not source.lstrip().startswith(">"):
            return checked_residues(source, source)
        records = read_fasta(source.lstrip() if isinstance(source, str) else source)
        if len(records) > 1:
            raise ReadError(
                source,
                f"wanted one protein, found {len(records)} FASTA records; read them with "
                "omnialign_protein.read_fasta and pass their residues one by one",
            )
        return records[0][1]

    def segments(self, sample: str, window: float) -> list[Segment[str]]:
        """Stretches of `window` residues, side by side; the last may be shorter."""
        size = max(1, int(window))
        return [Segment(sample[i : i + size]) for i in range(0, len(sample), size)]

    def preview(self, sample: str) -> Preview:
        """An SVG of the sequence, coloured by chemistry."""
        return Preview("image/svg+xml", draw_sequence(sample).encode())

    def example_samples(self, n: int) -> Sequence[str]:
        """Random residues of 40 to 120, opened by a methionine."""
        made: list[str] = []
        for i in range(n):
            rng = random.Random(f"example protein {i}")
            made.append("M" + "".join(rng.choices(AMINO_ACIDS, k=rng.randint(39, 119))))
        return made


def _sniffed(head: bytes) -> Claim:
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return Claim.OWNS if head.startswith(b">") else Claim.NO


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    """The one modality `protein`."""
    return [Protein()]


@hookimpl
def omnialign_sources() -> Mapping[str, type[Source] | str]:
    """Synthetic proteins with described motifs."""
    return {"protein_families": "omnialign_protein.families:ProteinFamilies"}
