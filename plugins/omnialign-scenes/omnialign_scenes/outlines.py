"""The outlines of the pieces, as polygons, and what is made of them: distance maps and surfaces.

Each outline fits the unit circle, x to the right and y up. A new kind is an outline here, a voice
in `sound` and a word in `grammar`.

Axes: S segments, G cells along a side of the distance map, P points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from omnialign_scenes.draws import Draws

Loop = list[tuple[float, float]]
Floats = NDArray[np.float64]

CELLS = 193
MAP_REACH = 1.4
"""The map covers -MAP_REACH to MAP_REACH on both axes."""
HALF_THICKNESS = 0.3
NUM_SURFACE_POINTS = 4096


def _polar(radii: Sequence[float], start_degrees: float = 90.0) -> Loop:
    """A closed polygon with corners at equal angles."""
    step = 2 * math.pi / len(radii)
    start = math.radians(start_degrees)
    return [
        (r * math.cos(start + i * step), r * math.sin(start + i * step))
        for i, r in enumerate(radii)
    ]


def _heart() -> Loop:
    turns = [2 * math.pi * i / 40 for i in range(40)]
    return [
        (
            math.sin(t) ** 3 * 0.93,
            (13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 17
            + 0.08,
        )
        for t in turns
    ]


def _moon() -> Loop:
    """A crescent: the arc of the unit circle, and back along a circle that cuts it."""
    horn, offset = math.radians(50.0), 0.42
    tip = (math.cos(horn), math.sin(horn))
    inner = math.hypot(tip[0] - offset, tip[1])
    inner_horn = math.atan2(tip[1], tip[0] - offset)
    out = [horn + (2 * math.pi - 2 * horn) * i / 30 for i in range(31)]
    back = [2 * math.pi - inner_horn - (2 * math.pi - 2 * inner_horn) * i / 24 for i in range(25)]
    outer_arc = [(math.cos(a), math.sin(a)) for a in out]
    inner_arc = [(offset + inner * math.cos(a), inner * math.sin(a)) for a in back[1:-1]]
    return outer_arc + inner_arc


def _cross() -> Loop:
    a, b = 0.32, 0.94
    quarter = [(a, b), (a, a), (b, a)]
    return [
        point
        for sx, sy in ((1, 1), (1, -1), (-1, -1), (-1, 1))
        for point in [(sx * x, sy * y) for x, y in (quarter if sx == sy else quarter[::-1])]
    ]


_OUTLINES: dict[str, Callable[[], list[Loop]]] = {
    "circle": lambda: [_polar([0.9] * 40)],
    "square": lambda: [_polar([1.0] * 4, 45.0)],
    "triangle": lambda: [_polar([1.0] * 3)],
    "star": lambda: [_polar([1.0, 0.42] * 5)],
    "ring": lambda: [_polar([0.95] * 40), _polar([0.52] * 32)],
    "cross": lambda: [_cross()],
    "heart": lambda: [_heart()],
    "moon": lambda: [_moon()],
}


@cache
def _segments(kind: str) -> tuple[Floats, Floats]:
    """Starts and ends `(S, 2)` of all segments of the outline."""
    loops = [np.array(loop) for loop in _OUTLINES[kind]()]
    return np.concatenate(loops), np.concatenate([np.roll(loop, -1, axis=0) for loop in loops])


@cache
def bottom(kind: str) -> float:
    """The lowest y of the outline."""
    return float(_segments(kind)[0][:, 1].min())


@cache
def distance_map(kind: str) -> Floats:
    """Signed distances to the outline `(G, G)`, rows from the top; negative inside."""
    line = np.linspace(-MAP_REACH, MAP_REACH, CELLS)
    x, y = np.meshgrid(line, -line)
    nearest = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(*_segments(kind), strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
        if dy:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * dx / dy)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)


def distance(kind: str, x: Floats, y: Floats) -> Floats:
    """Signed distance from points to the outline, from the nearest cell of the map."""
    scale, middle, last = (CELLS - 1) / (2 * MAP_REACH), CELLS / 2, CELLS - 1
    column = np.minimum(np.maximum(x * scale + middle, 0), last).astype(np.intp)
    row = np.minimum(np.maximum(y * -scale + middle, 0), last).astype(np.intp)
    return distance_map(kind).ravel()[row * CELLS + column]


@cache
def surface(kind: str) -> Floats:
    """Points `(P, 3)` evenly on the piece that is sawn to this outline; z is its thickness."""
    draws = Draws("surface", kind)
    start, end = _segments(kind)
    lengths = np.hypot(*(end - start).T)
    flat = draws.noise(8 * NUM_SURFACE_POINTS, 2)
    face = flat[distance(kind, flat[:, 0], flat[:, 1]) < 0]
    faces_area = 2 * 4 * len(face) / len(flat)
    sides_area = float(lengths.sum()) * 2 * HALF_THICKNESS
    num_face = round(NUM_SURFACE_POINTS * faces_area / (faces_area + sides_area))
    num_side = NUM_SURFACE_POINTS - num_face
    side = np.where(np.arange(num_face) % 2, HALF_THICKNESS, -HALF_THICKNESS)
    ends = np.cumsum(lengths)
    place = (draws.noise(num_side) + 1) / 2 * ends[-1]
    segment = np.minimum(np.searchsorted(ends, place), len(ends) - 1)
    along = ((ends[segment] - place) / lengths[segment])[:, None]
    edge = start[segment] * along + end[segment] * (1 - along)
    return np.concatenate(
        [
            np.column_stack([face[np.arange(num_face) % len(face)], side]),
            np.column_stack([edge, draws.noise(num_side) * HALF_THICKNESS]),
        ]
    )
