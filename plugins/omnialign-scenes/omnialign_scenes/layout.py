"""Where things stand: apart from each other, at places that vary."""

from __future__ import annotations

from omnialign_scenes.draws import Draws

TRIES = 40
CANDIDATES = 8
"""For each thing, in one try."""


def scatter(
    draws: Draws, count: int, apart: float, width: float, height: float
) -> list[tuple[float, float]]:
    """Up to four centres in a box around the origin, each at least `apart` from the others.

    The box must have room for them in its corners.
    """
    assert count <= 4, f"four corners do not hold {count} things"
    assert count == 1 or min(width, height) >= apart, "the corners of the box are too close"
    for _ in range(TRIES):
        places: list[tuple[float, float]] = []
        for _ in range(CANDIDATES * count):
            x = draws.uniform(-width / 2, width / 2)
            y = draws.uniform(-height / 2, height / 2)
            if all((x - a) ** 2 + (y - b) ** 2 >= apart * apart for a, b in places):
                places.append((x, y))
                if len(places) == count:
                    return places
    corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    first = int(draws.uniform(0, 4))
    return (corners[first:] + corners[:first])[:count]
