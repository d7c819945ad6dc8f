"""A picture of a sequence."""

from __future__ import annotations

RESIDUES_A_LINE = 50
MAX_LINES = 12
CELL = (12, 20)
"""Width and height of a residue, in pixels."""
MARGIN = 44

CHEMISTRY = {
    "hydrophobic": ("AILMV", "#8fb4d9"),
    "aromatic": ("FWY", "#b7a3d6"),
    "acidic": ("DE", "#e58b88"),
    "basic": ("HKR", "#8a9be8"),
    "polar": ("NQST", "#93cfa0"),
    "cysteine": ("CU", "#f0d674"),
    "glycine and proline": ("GP", "#e8b98a"),
}
COLOURS = {letter: colour for letters, colour in CHEMISTRY.values() for letter in letters}
OTHER = "#d9d9d9"


def draw_sequence(residues: str) -> str:
    """SVG: lines of coloured residues with their numbers, cut after `MAX_LINES` lines."""
    wide, high = CELL
    shown = residues[: RESIDUES_A_LINE * MAX_LINES]
    parts: list[str] = []
    for i, residue in enumerate(shown):
        line, column = divmod(i, RESIDUES_A_LINE)
        x, y = MARGIN + column * wide, line * high
        colour = COLOURS.get(residue, OTHER)
        parts.append(f'<rect x="{x}" y="{y}" width="{wide}" height="{high - 4}" fill="{colour}"/>')
        parts.append(f'<text x="{x + wide / 2:g}" y="{y + 12}">{residue}</text>')
        if column == 0:
            parts.append(f'<text class="n" x="{MARGIN - 6}" y="{y + 12}">{i + 1}</text>')
    num_lines = -(-len(shown) // RESIDUES_A_LINE)
    rest = len(residues) - len(shown)
    if rest:
        y = num_lines * high + 12
        parts.append(f'<text class="rest" x="{MARGIN}" y="{y}">… and {rest} more residues</text>')
        num_lines += 1
    width = MARGIN + min(len(shown), RESIDUES_A_LINE) * wide + 4
    width = max(width, 240) if rest else width
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {num_lines * high}" '
        f'width="{width}" height="{num_lines * high}" role="img" '
        f'aria-label="a protein of {len(residues)} residues">'
        "<style>text{font:11px monospace;text-anchor:middle;fill:#222}"
        ".n{text-anchor:end;fill:#777}.rest{text-anchor:start}</style>"
        f"{''.join(parts)}</svg>"
    )
