"""The triangles of a shape, as a renderer takes them.

Axes: F triangles, K places on them, H and W of a texture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NUM_ATTRIBUTES = 6
COLOR, UV, LAYER = slice(0, 3), slice(3, 5), 5
"""Columns of a corner's attributes: colour, place in the texture, number of the texture."""
NO_TEXTURE = -1


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles, and what is needed to colour any place on them.

    Attributes:
        triangles: float32 `(F, 3, 3)`, F ≥ 1, finite; the corners of each, counter-clockwise seen
            from outside.
        attributes: float32 `(F, 3, 6)`, for each corner red, green, blue in 0..1, the place u, v in
            a texture, and the number of the texture or -1; None where nothing has a colour.
        textures: uint8 `(H, W, 3)` each.
    """

    triangles: Tensor
    attributes: Tensor | None = None
    textures: tuple[Tensor, ...] = ()

    def turn(self, matrix: Tensor) -> Surface:
        """Rotated or mirrored by an orthogonal matrix `(3, 3)`: `p' = matrix @ p`."""
        turned = replace(self, triangles=self.triangles @ matrix.T)
        return turned.inside_out() if torch.linalg.det(matrix) < 0 else turned

    def scale(self, factors: Tensor) -> Surface:
        """Coordinates times factors `(3,)` or `(1,)` above 0."""
        return replace(self, triangles=self.triangles * factors)

    def inside_out(self) -> Surface:
        """The other side of each triangle is outside."""
        attributes = None if self.attributes is None else self.attributes.flip(1)
        return Surface(self.triangles.flip(1), attributes, self.textures)

    def colors(self, attributes: Tensor) -> Tensor:
        """Colours `(K, 3)` of places with interpolated attributes `(K, 6)`.

        The colour of the corners, times the nearest pixel of the texture, which repeats.
        """
        colors = attributes[:, COLOR].clone()
        layers = attributes[:, LAYER].round()
        for layer, texture in enumerate(self.textures):
            here = layers == layer
            height, width = texture.shape[:2]
            u, v = (attributes[here, UV] % 1.0).T
            rows = ((1 - v) * (height - 1)).round().long()
            columns = (u * (width - 1)).round().long()
            colors[here] *= texture[rows, columns] / 255
        return colors.clamp(0, 1)
