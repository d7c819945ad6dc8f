"""Scenes as images and videos: antialiased pieces on a grey ground.

Lengths are shares of the side of the picture, with the origin in its middle and y downwards.

Axes: T frames, H = W pixels of a side, 3 = red, green, blue.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from omnialign_scenes.draws import Draws
from omnialign_scenes.grammar import Scene, Thing
from omnialign_scenes.layout import scatter
from omnialign_scenes.outlines import distance

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (220, 45, 45),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 60),
    "green": (55, 165, 70),
    "blue": (45, 95, 220),
    "purple": (150, 60, 185),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
RADII = {"small": 0.085, "large": 0.14}
RADIUS_SPREAD = 0.1
"""A thing's radius is up to this share larger or smaller than its size says."""
MARGIN = 0.02
"""Between things, and between a thing and the border."""
TRAVEL = 0.24
"""How far a moving thing goes."""
TRAVEL_SPREAD = 0.15
GROWTH = 0.3
"""A growing thing goes from 1 - GROWTH to 1 + GROWTH of its radius."""
TURN_DEGREES = 15.0
COLOR_SPREAD = 10.0
GROUND = (95.0, 150.0)
GROUND_SLOPE = 18.0
GRAIN = 3.0

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "rising": (0, -1), "falling": (0, 1)}
GROWTHS = {"growing": 1, "shrinking": -1}


@dataclass(frozen=True)
class Placed:
    """A thing with everything that its picture needs."""

    kind: str
    color: tuple[float, float, float]
    radius: float
    turn: float
    """In radians, counter-clockwise."""
    x: float
    y: float


def shade(draws: Draws, color: str) -> tuple[float, float, float]:
    """The colour with a little of variation, from 0 to 255."""
    red, green, blue = (
        min(max(c + draws.uniform(-COLOR_SPREAD, COLOR_SPREAD), 0.0), 255.0) for c in COLORS[color]
    )
    return red, green, blue


def image(scene: Scene, draws: Draws, size: int) -> NDArray[np.uint8]:
    """The scene at one moment, `(H, W, 3)`."""
    ground = _ground(draws, size)
    return _picture(ground, _place(scene, draws, (0, 0), 1.0), draws)


def video(scene: Scene, draws: Draws, size: int, num_frames: int) -> NDArray[np.uint8]:
    """The scene in motion, `(T, H, W, 3)`; the first and the last frame are its ends."""
    ground = _ground(draws, size)
    direction, growth = DIRECTIONS.get(scene.motion, (0, 0)), GROWTHS.get(scene.motion, 0)
    travel = TRAVEL * draws.uniform(1 - TRAVEL_SPREAD, 1 + TRAVEL_SPREAD)
    path = (direction[0] * travel, direction[1] * travel)
    things = _place(scene, draws, path, 1 + GROWTH * abs(growth))
    frames = np.empty((num_frames, size, size, 3), dtype=np.uint8)
    for index in range(num_frames):
        moment = index / max(num_frames - 1, 1) - 0.5
        moved = [
            Placed(
                thing.kind,
                thing.color,
                thing.radius * (1 + 2 * GROWTH * growth * moment),
                thing.turn,
                thing.x + path[0] * moment,
                thing.y + path[1] * moment,
            )
            for thing in things
        ]
        frames[index] = _picture(ground, moved, draws)
    return frames


def _place(scene: Scene, draws: Draws, path: tuple[float, float], largest: float) -> list[Placed]:
    """Things where they are in the middle of their path, with room for all of it."""
    things = scene.things
    reach = max(RADII[thing.size] for thing in things) * (1 + RADIUS_SPREAD) * largest
    if scene.relation is None:
        room = 1 - 2 * (reach + MARGIN)
        width, height = room - abs(path[0]), room - abs(path[1])
        places = scatter(draws, len(things), 2 * reach + MARGIN, width, height)
    else:
        places = _related(draws, scene.relation)
    return [_placed(thing, draws, x, y) for thing, (x, y) in zip(things, places, strict=True)]


def _related(draws: Draws, relation: str) -> list[tuple[float, float]]:
    """Two places along one axis, further apart on it than across."""
    along, across = draws.uniform(-0.05, 0.05), draws.uniform(-0.15, 0.15)
    places = [
        (along + side * draws.uniform(0.18, 0.28), across + draws.uniform(-0.1, 0.1))
        for side in (-1, 1)
    ]
    return places if relation == "left of" else [(y, x) for x, y in places]


def _placed(thing: Thing, draws: Draws, x: float, y: float) -> Placed:
    return Placed(
        thing.kind,
        shade(draws, thing.color),
        RADII[thing.size] * draws.uniform(1 - RADIUS_SPREAD, 1 + RADIUS_SPREAD),
        math.radians(draws.uniform(-TURN_DEGREES, TURN_DEGREES)),
        x,
        y,
    )


def _ground(draws: Draws, size: int) -> NDArray[np.float64]:
    """A grey that gets lighter in some direction, `(H, W, 3)`."""
    direction = draws.uniform(0, 2 * math.pi)
    line = (np.arange(size) + 0.5) / size - 0.5
    slope = line * (GROUND_SLOPE * math.cos(direction)) + (
        line[:, None] * (GROUND_SLOPE * math.sin(direction))
    )
    return np.repeat((slope + draws.uniform(*GROUND))[:, :, None], 3, axis=2)


def _picture(ground: NDArray[np.float64], things: list[Placed], draws: Draws) -> NDArray[np.uint8]:
    canvas = ground + draws.noise(*ground.shape) * GRAIN
    for thing in things:
        _paint(canvas, thing)
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _paint(canvas: NDArray[np.float64], thing: Placed) -> None:
    size = len(canvas)
    radius, x, y = thing.radius * size, (thing.x + 0.5) * size, (thing.y + 0.5) * size
    left, top = max(int(x - radius - 1), 0), max(int(y - radius - 1), 0)
    right, lower = min(int(x + radius + 2), size), min(int(y + radius + 2), size)
    across = (np.arange(left, right) + (0.5 - x)) / radius
    up = (y - 0.5 - np.arange(top, lower)[:, None]) / radius
    cos, sin = math.cos(thing.turn), math.sin(thing.turn)
    outside = distance(thing.kind, across * cos + up * sin, up * cos - across * sin) * radius
    cover = np.clip(0.5 - outside, 0, 1)[:, :, None]
    window = canvas[top:lower, left:right]
    window += cover * (np.array(thing.color) - window)
