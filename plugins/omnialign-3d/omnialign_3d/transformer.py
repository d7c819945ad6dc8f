"""A transformer over patches of points.

Axes: n clouds, P points, F features of a point, M patches, K points of a patch, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnialign import Encoder, OmniAlignError
from omnialign_3d.cloud import Axis
from omnialign_3d.pointnet import pointwise
from omnialign_3d.preparing import PreparePoints, SizeEmbedding, check_at_least, check_dropout
from omnialign_3d.sampling import farthest_points, nearest_points


class PointTransformerEncoder(Encoder):
    """Patches of near points as the tokens of a transformer.

    Farthest-point sampling picks the centres, each with its nearest points; a small PointNet makes
    a token of each patch, a second network adds the place of its centre (Yu et al., "Point-BERT",
    CVPR 2022, whose tokens these are; Pang et al., "Point-MAE", ECCV 2022). The features are the
    mean and the maximum over all tokens. Any order of the points gives the same features, save for
    points at equal distances.

    Args:
        num_points: points of a cloud that are used, P.
        num_patches: M, at most P.
        patch_size: points of a patch, K, at most P.
        width: of tokens and features, W; a multiple of `num_heads`.
        depth: layers.
        num_heads: of the attention.
        use_colors: look at colours.
        use_normals: look at normals.
        use_size: add the extents, which the unit sphere takes away. Leave it out where the unit of
            length differs from file to file.
        normalize: bring each cloud to the unit sphere.
        up: the axis that is up in data that do not say so themselves.
        dropout: in the layers and of the pooled features, in 0..1.

    Raises:
        OmniAlignError: an option out of range.
    """

    def __init__(
        self,
        num_points: int = 1024,
        num_patches: int = 64,
        patch_size: int = 32,
        width: int = 256,
        depth: int = 4,
        num_heads: int = 4,
        use_colors: bool = True,
        use_normals: bool = True,
        use_size: bool = True,
        normalize: bool = True,
        up: Axis = "y",
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_at_least(
            1, num_patches=num_patches, patch_size=patch_size, depth=depth, num_heads=num_heads
        )
        check_at_least(max(num_patches, patch_size), num_points=num_points)
        check_dropout(dropout)
        if width < 1 or width % num_heads:
            raise OmniAlignError(f"width wants a multiple of num_heads={num_heads}, found {width}")
        self.width = width
        self.num_patches = num_patches
        self.patch_size = patch_size
        prepare = PreparePoints(num_points, up, normalize, use_colors, use_normals)
        self.preprocess = prepare
        self.patch = pointwise(prepare.num_features + 3, 64, 128)
        self.token = nn.Linear(128, width)
        self.place = nn.Sequential(nn.Linear(3, width), nn.GELU(), nn.Linear(width, width))
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.pooled = nn.Linear(2 * width, width)
        self.size = SizeEmbedding(width) if use_size else None
        self.head = nn.Sequential(
            nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width)
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """`points` `(n, P, F)` and `size` `(n, 3)` to `(n, W)`."""
        patches, centers = self.patches(batch["points"])
        tokens = self.layers(self.token(self.patch(patches).amax(2)) + self.place(centers))
        features = self.pooled(torch.cat([tokens.amax(1), tokens.mean(1)], dim=-1))
        if self.size is not None:
            features = features + self.size(batch["size"])
        return self.head(features)

    def patches(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Groups points `(n, P, F)` around centres `(n, M, 3)`.

        A patch `(n, M, K, F + 3)` holds its points as they are, after the way to them from the
        centre in units of the patch's own radius.
        """
        n, _, F = points.shape
        places = points[..., :3].contiguous()
        index = farthest_points(places, self.num_patches)[..., None].expand(-1, -1, F)
        centers = points.gather(1, index)[..., :3]
        _, near = nearest_points(centers, places, self.patch_size)
        gathered = points.gather(1, near.flatten(1)[..., None].expand(-1, -1, F))
        gathered = gathered.view(n, self.num_patches, self.patch_size, F)
        ways = gathered[..., :3] - centers[:, :, None]
        radius = ways.norm(dim=-1, keepdim=True).amax(2, keepdim=True)
        ways = ways / torch.where(radius > 0, radius, torch.ones_like(radius))
        return torch.cat([ways, gathered], dim=-1), centers
