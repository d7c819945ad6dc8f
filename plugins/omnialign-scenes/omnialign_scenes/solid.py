"""Scenes as point clouds: thick pieces standing on a square board, seen from any side.

The axes are those of glTF: y is up. The board spans -1 to 1 in x and z at y = 0, and gives the
scale by which small and large can be told.

Axes: N points, P points of a piece, 6 = x, y, z, red, green, blue.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from omnialign_scenes.draws import Draws
from omnialign_scenes.grammar import Scene
from omnialign_scenes.layout import scatter
from omnialign_scenes.outlines import NUM_SURFACE_POINTS, bottom, surface
from omnialign_scenes.picture import RADIUS_SPREAD, shade

Floats = NDArray[np.float64]

RADII = {"small": 0.18, "large": 0.3}
GAP = 0.1
"""Between things on the board."""
RISE = 0.15
"""Between a thing and the one that floats above it."""
SWAY = 0.1
"""How far a thing above another may be off to a side."""
FACING_DEGREES = 25.0
"""How far each piece is turned away from the common front."""
BOARD_SHARE = 0.125
"""Of the points."""
BOARD_GREY = (95.0, 150.0)
ROUGHNESS = 0.006
GRID = 2.0**16


def pointcloud(scene: Scene, draws: Draws, num_points: int) -> NDArray[np.float32]:
    """Points with colours from 0 to 1, `(N, 6)`, in random order."""
    num_board = round(num_points * BOARD_SHARE)
    parts = [_board(draws, num_board)]
    things = scene.things
    radii = [RADII[t.size] * draws.uniform(1 - RADIUS_SPREAD, 1 + RADIUS_SPREAD) for t in things]
    shares = np.diff(np.linspace(0, num_points - num_board, len(things) + 1).round()).astype(int)
    for thing, radius, place, share in zip(
        things, radii, _places(scene, draws, radii), shares, strict=True
    ):
        piece = surface(thing.kind)[draws.indices(int(share), NUM_SURFACE_POINTS)] * radius
        facing = math.radians(draws.uniform(-FACING_DEGREES, FACING_DEGREES))
        parts.append(_colored(_turned(piece, facing) + place, shade(draws, thing.color)))
    cloud = np.concatenate(parts)
    cloud[:, :3] = _turned(cloud[:, :3], draws.uniform(0, 2 * math.pi))
    cloud[:, :3] += draws.noise(num_points, 3) * ROUGHNESS
    cloud[:, :3] = np.round(cloud[:, :3] * GRID) / GRID
    return cloud[np.argsort(draws.noise(num_points), kind="stable")].astype(np.float32)


def _places(scene: Scene, draws: Draws, radii: list[float]) -> list[tuple[float, float, float]]:
    """The middle of each thing: on the board, or above the other thing."""
    reach = max(RADII[thing.size] for thing in scene.things) * (1 + RADIUS_SPREAD)
    room = 2 - 2 * reach
    heights = [-bottom(t.kind) * r for t, r in zip(scene.things, radii, strict=True)]
    if scene.relation == "above":
        (x, z), *_ = scatter(draws, 1, 0, room - 2 * SWAY, room - 2 * SWAY)
        floating = heights[1] + radii[1] + RISE + radii[0]
        sway = (draws.uniform(-SWAY, SWAY), draws.uniform(-SWAY, SWAY))
        return [(x + sway[0], floating, z + sway[1]), (x, heights[1], z)]
    places = scatter(draws, len(radii), 2 * reach + GAP, room, room)
    return [(x, height, z) for (x, z), height in zip(places, heights, strict=True)]


def _board(draws: Draws, num_points: int) -> Floats:
    flat = draws.noise(num_points, 2)
    grey = draws.uniform(*BOARD_GREY)
    board = np.column_stack([flat[:, 0], np.zeros(num_points), flat[:, 1]])
    return _colored(board, (grey, grey, grey))


def _colored(points: Floats, color: tuple[float, float, float]) -> Floats:
    """Colours are whole 255ths, as PLY files hold them."""
    row = np.round(np.array(color)) / 255
    return np.column_stack([points, np.broadcast_to(row, points.shape)])


def _turned(points: Floats, angle: float) -> Floats:
    """Turned around the up axis."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y, z = points.T
    return np.column_stack([x * cos + z * sin, y, z * cos - x * sin])
