"""Synthetic proteins from described motifs: something to train `protein` and `text` on at once."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, Literal

from omnialign import OmniAlignError, Source

BACKGROUND = {
    "A": 8.25,
    "R": 5.53,
    "N": 4.06,
    "D": 5.46,
    "C": 1.38,
    "Q": 3.93,
    "E": 6.72,
    "G": 7.07,
    "H": 2.27,
    "I": 5.91,
    "L": 9.65,
    "K": 5.80,
    "M": 2.41,
    "F": 3.86,
    "P": 4.74,
    "S": 6.65,
    "T": 5.36,
    "W": 1.10,
    "Y": 2.92,
    "V": 6.86,
}
"""Per cent of each residue in Swiss-Prot, as UniProt's release statistics give it."""
LINKER_RESIDUES = (6, 16)
"""Shortest and longest stretch between two motifs."""
TEST_ONE_IN = 5
"""Architectures held out for the test split."""
COUNTS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Motif:
    """A pattern in PROSITE's notation, and what captions call it."""

    pattern: str
    names: tuple[str, ...]
    """With their article; the first is used in labels too."""
    most: int = 1
    """Copies in one protein."""

    def words(self, count: int, naming: int) -> str:
        """`an RGD site`, `two zinc fingers`."""
        name = self.names[naming]
        return name if count == 1 else f"{COUNTS[count]} {name.split(' ', 1)[1]}s"


SIGNAL = Motif(
    "<M-[KR](1,3)-[LAVIF](9,13)-[STGP]-A-x-A",
    ("a signal peptide", "an N-terminal signal peptide", "a secretion signal"),
)
"""Charged start, hydrophobic core, and A-x-A before the cut (von Heijne 1986, NAR 14:4683)."""
RETENTION = Motif("K-D-E-L>", ("an ER retention signal", "a KDEL signal", "a C-terminal KDEL"))
"""Munro and Pelham 1987, Cell 48:899."""
INNER = (
    Motif(
        "C-x(2,4)-C-x(3)-F-x(5)-L-x(2)-H-x(3,4)-H",
        ("a zinc finger", "a C2H2 zinc finger", "a zinc-binding finger"),
        most=3,
    ),
    Motif(
        "D-x-[DN]-x-[DS]-G-x-[ILV]-x(3)-E",
        ("an EF hand", "an EF-hand loop", "a calcium-binding loop"),
        most=3,
    ),
    Motif("[AG]-x(4)-G-K-[ST]", ("a P-loop", "a Walker A motif", "an ATP-binding loop")),
    Motif(
        "L-x(6)-L-x(6)-L-x(6)-L",
        ("a leucine zipper", "a heptad repeat of leucines", "a leucine zipper"),
    ),
    Motif("R-G-D", ("an RGD site", "a cell attachment site", "an integrin-binding site"), most=2),
    Motif("[LIV](2)-D-E-A-D", ("a DEAD box", "a DEAD-box motif", "an RNA helicase motif")),
    Motif("C-x(2)-C-H", ("a heme site", "a cytochrome c site", "a heme-binding site"), most=2),
    Motif(
        "H-R-D-[LM]-K-x(2)-N", ("a kinase site", "a kinase active site", "a protein kinase site")
    ),
)
"""Zinc finger: Miller, McLachlan and Klug 1985, EMBO J 4:1609. EF hand: Kretsinger and Nockolds
1973, J Biol Chem 248:3313. P-loop: Walker et al. 1982, EMBO J 1:945. Leucine zipper: Landschulz,
Johnson and McKnight 1988, Science 240:1759. RGD: Ruoslahti and Pierschbacher 1987, Science
238:491. DEAD box: Linder et al. 1989, Nature 337:121. Heme: Mathews 1985, Prog Biophys Mol Biol
45:1. Kinase: Hanks, Quinn and Hunter 1988, Science 241:42."""

MOTIFS = (SIGNAL, *INNER, RETENTION)
Architecture = tuple[tuple[Motif, int], ...]
"""Motifs with their copies, from the N-terminus to the C-terminus."""
_ELEMENT = re.compile(r"(?P<residues>[A-Zx]|\[[A-Z]+\])(?:\((?P<low>\d+)(?:,(?P<high>\d+))?\))?")


@cache
def elements(pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Residues (empty for any), fewest and most of them, for each element of a pattern."""
    found: list[tuple[str, int, int]] = []
    for element in pattern.strip("<>").split("-"):
        match = _ELEMENT.fullmatch(element)
        assert match, f"{element} is not in PROSITE's notation"
        low = int(match["low"] or 1)
        found.append((match["residues"].strip("[]x"), low, int(match["high"] or low)))
    return tuple(found)


@cache
def expression(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression; a lookahead, so that matches may overlap."""
    body = "".join(
        f"{f'[{residues}]' if residues else '.'}{{{low},{high}}}"
        for residues, low, high in elements(pattern)
    )
    ends = pattern.startswith("<"), pattern.endswith(">")
    return re.compile(f"{'^' if ends[0] else ''}(?={body}{'$' if ends[1] else ''})")


def drawn(pattern: str, rng: random.Random) -> str:
    """One sequence that a pattern allows."""
    return "".join(
        rng.choice(residues) if residues else background(1, rng)
        for residues, low, high in elements(pattern)
        for _ in range(rng.randint(low, high))
    )


def background(length: int, rng: random.Random) -> str:
    """Residues drawn one by one, as often as nature uses them."""
    return "".join(rng.choices(list(BACKGROUND), list(BACKGROUND.values()), k=length))


@cache
def architectures(split: str) -> tuple[Architecture, ...]:
    """All of a split: one or two kinds of inner motif in order, with or without the end signals.

    One in five is held out for `test`, decided by a hash of its description; those of one kind of
    motif and nothing else stay in `train`, so that no word of the test split is new.
    """
    copies = [(motif, count) for motif in INNER for count in range(1, motif.most + 1)]
    inner = [(one,) for one in copies]
    inner += [(one, two) for one, two in product(copies, copies) if one[0] is not two[0]]
    found: list[Architecture] = []
    for signal, core, retention in product((False, True), inner, (False, True)):
        head: Architecture = ((SIGNAL, 1),) if signal else ()
        tail: Architecture = ((RETENTION, 1),) if retention else ()
        whole = (*head, *core, *tail)
        draw = int(hashlib.sha256(description(whole).encode()).hexdigest(), 16) % TEST_ONE_IN
        held_out = draw == 0 and len(whole) > 1
        if held_out == (split == "test"):
            found.append(whole)
    return tuple(found)


def parts(architecture: Architecture, naming: int = 0) -> list[str]:
    """`["a signal peptide", "two zinc fingers"]`; `naming` chooses among the names."""
    return [motif.words(count, naming) for motif, count in architecture]


def description(architecture: Architecture) -> str:
    """What a protein holds, in order, in its plainest words."""
    return ", then ".join(parts(architecture))


def captions(architecture: Architecture) -> list[str]:
    """Four ways to say the same, each complete and in the order of the chain."""
    return [
        f"a protein with {description(architecture)}",
        f"a chain of {', '.join(parts(architecture, 1))}",
        f"from its N-terminus: {', '.join(parts(architecture, 2))}",
        f"{', '.join(parts(architecture))}, in this order",
    ]


def composed(architecture: Architecture, rng: random.Random) -> str:
    """A sequence that holds the motifs of an architecture and no other."""
    while True:
        sequence = "" if architecture[0][0] is SIGNAL else "M"
        wanted: dict[Motif, list[int]] = {motif: [] for motif in MOTIFS}
        for motif, count in architecture:
            for _ in range(count):
                if motif is not SIGNAL:
                    sequence += background(rng.randint(*LINKER_RESIDUES), rng)
                wanted[motif].append(len(sequence))
                sequence += drawn(motif.pattern, rng)
        if architecture[-1][0] is not RETENTION:
            sequence += background(rng.randint(*LINKER_RESIDUES), rng)
        if all(starts == found_in(sequence, motif) for motif, starts in wanted.items()):
            return sequence


def found_in(sequence: str, motif: Motif) -> list[int]:
    """Where a motif begins in a sequence, from 0."""
    return [match.start() for match in expression(motif.pattern).finditer(sequence)]


class ProteinFamilies(Source):
    """Made-up sequences that hold exactly the motifs that their captions name, in that order.

    Columns: `protein`, `text` (four captions of one meaning), `label` (the plainest of them). The
    test split holds out whole architectures; every motif occurs in both. A row depends on `seed`,
    `split` and its index only, so a larger `num_proteins` adds rows and changes none.
    """

    def __init__(
        self,
        num_proteins: int = 2000,
        split: Literal["train", "test"] = "train",
        seed: int = 0,
    ) -> None:
        if num_proteins < 1:
            raise OmniAlignError(
                f"protein_families: num_proteins is at least 1, got {num_proteins}"
            )
        if split not in ("train", "test"):
            raise OmniAlignError(f"protein_families: split is train or test, got '{split}'")
        self.num_proteins = num_proteins
        self.split = split
        self.seed = seed

    @property
    def columns(self) -> Sequence[str]:
        return ("protein", "text", "label")

    def __len__(self) -> int:
        return self.num_proteins

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < self.num_proteins:
            raise IndexError(index)
        rng = random.Random(f"protein families {self.seed} {self.split} {index}")
        architecture = rng.choice(architectures(self.split))
        return {
            "protein": composed(architecture, rng),
            "text": captions(architecture),
            "label": description(architecture),
        }
