"""PointNet: one network for every point, and the maximum over the points.

Axes: n clouds, P points, F features of a point, W width.
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from omnialign import Encoder
from omnialign_3d.cloud import Axis
from omnialign_3d.preparing import PreparePoints, SizeEmbedding, check_at_least, check_dropout


def pointwise(*widths: int) -> nn.Sequential:
    """Linear, layer norm and ReLU from each width to the next, on the last axis."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers)


class PointNetEncoder(Encoder):
    """A shared network on each point, pooled by the maximum (Qi et al., "PointNet", CVPR 2017).

    Without the learned rotations of the paper, and with layer norm for batch norm. Any order of the
    points gives the same features.

    Args:
        num_points: points of a cloud that are used, P.
        width: of the features, W.
        use_colors: look at colours.
        use_normals: look at normals.
        use_size: add the extents, which the unit sphere takes away. Leave it out where the unit of
            length differs from file to file.
        normalize: bring each cloud to the unit sphere.
        up: the axis that is up in data that do not say so themselves.
        dropout: of the pooled features, in 0..1.

    Raises:
        OmniAlignError: an option out of range.
    """

    def __init__(
        self,
        num_points: int = 512,
        width: int = 256,
        use_colors: bool = True,
        use_normals: bool = True,
        use_size: bool = True,
        normalize: bool = True,
        up: Axis = "y",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_at_least(1, num_points=num_points, width=width)
        check_dropout(dropout)
        self.width = width
        prepare = PreparePoints(num_points, up, normalize, use_colors, use_normals)
        self.preprocess = prepare
        self.points = pointwise(prepare.num_features, 64, 128, width)
        self.pooled = nn.Linear(width, width)
        self.size = SizeEmbedding(width) if use_size else None
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """`points` `(n, P, F)` and `size` `(n, 3)` to `(n, W)`."""
        features = self.pooled(self.points(batch["points"]).amax(1))
        if self.size is not None:
            features = features + self.size(batch["size"])
        return self.head(features)
