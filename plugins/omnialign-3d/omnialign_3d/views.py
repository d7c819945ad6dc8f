"""Pictures of a shape from several sides, read by the encoder of an image plugin.

Axes: n shapes, V views of each, S pixels of a side, W width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from omnialign import Encoder, build_encoder
from omnialign_3d.cameras import Arrangement, arranged
from omnialign_3d.cloud import Axis, PointCloud, upright
from omnialign_3d.intersection import Renderer, check_installed
from omnialign_3d.preparing import SizeEmbedding, check_at_least, log_extents
from omnialign_3d.rendering import render

Pool = Literal["mean", "max"]
IMAGE_MODALITY = "image"
DEFAULT_PIXELS = 224
"""Of a view, where the image encoder does not say its resolution."""
_IMAGE_PREFIX = "image_"
"""Of the names of an image batch that is a dict, in the batch of views."""


@dataclass(frozen=True)
class PrepareViews:
    """Renders a shape, and prepares each view as the image encoder does.

    Attributes:
        num_views: V.
        cameras: how they stand about the shape.
        num_pixels: S.
        up: the axis that is up in data that do not say so themselves; it is turned to +y.
        renderer: what draws.
        image_preprocess: of the image encoder.
        stated: `image_preprocess` in words that are the same in every process.
    """

    num_views: int
    cameras: Arrangement
    num_pixels: int
    up: Axis
    renderer: Renderer
    image_preprocess: Callable[[Any], Any] = field(repr=False)
    stated: str

    def __call__(self, sample: PointCloud) -> dict[str, Any]:
        """`views`, a list of V image inputs, and `size` `(3,)`, the log of the extents."""
        cloud = upright(sample, self.up)
        cameras = arranged(self.cameras, self.num_views)
        pictures = render(cloud, cameras, self.num_pixels, self.renderer)
        return {
            "views": [self.image_preprocess(picture) for picture in pictures],
            "size": log_extents(cloud.points),
        }


@dataclass(frozen=True)
class CollateViews:
    """Collates the views of all shapes as the image encoder does, then folds them: `(n, V, …)`."""

    num_views: int
    image_collate: Callable[[Sequence[Any]], Any]

    def __call__(self, inputs: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """The image batch, as `image_` or `image_` and a name, and `size` `(n, 3)`."""
        images = self.image_collate([view for shape in inputs for view in shape["views"]])
        named = images if isinstance(images, Mapping) else {"": images}
        folded = {
            _IMAGE_PREFIX + name: tensor.unflatten(0, (len(inputs), self.num_views))
            for name, tensor in named.items()
        }
        return {**folded, "size": torch.stack([shape["size"] for shape in inputs])}


class ViewsEncoder(Encoder):
    """Features of several pictures of a shape, pooled (Su et al., "Multi-view Convolutional Neural
    Networks", ICCV 2015).

    The pictures are drawn from the triangles of a mesh, or from points as small octahedra, in
    parallel projection, in their own colours. They fill the picture whatever the size of the shape.

    Args:
        image_encoder: by its name in the image plugin, which has to be installed.
        image_options: its options. Its `resolution` is the side of a picture, S.
        num_views: V.
        cameras: `ring`, at equal angles about the up axis and 30 degrees above; `dome`, evenly over
            the upper half of a ball.
        pool: over the views.
        use_size: add the extents, which the pictures do not show. Leave it out where the unit of
            length differs from file to file.
        up: the axis that is up in data that do not say so themselves.
        renderer: `embree`, `pytorch3d`, or `auto`: Embree where it is installed.

    Raises:
        OmniAlignError: an option out of range, no such image encoder, or no renderer.
    """

    def __init__(
        self,
        image_encoder: str = "conv",
        image_options: dict[str, Any] | None = None,
        num_views: int = 6,
        cameras: Arrangement = "ring",
        pool: Pool = "mean",
        use_size: bool = False,
        up: Axis = "y",
        renderer: Renderer = "auto",
    ) -> None:
        super().__init__()
        image = build_encoder(IMAGE_MODALITY, image_encoder, image_options or {})
        self._build(image, num_views, cameras, pool, use_size, up, renderer)

    def _build(
        self,
        image: Encoder,
        num_views: int,
        cameras: Arrangement,
        pool: Pool,
        use_size: bool,
        up: Axis,
        renderer: Renderer,
    ) -> None:
        check_at_least(1, num_views=num_views)
        check_installed(renderer)
        self.image = image
        self.width = image.width
        self.num_views = num_views
        self.pool = pool
        self.size = SizeEmbedding(image.width) if use_size else None
        num_pixels = round(image.resolution or DEFAULT_PIXELS)
        prepare: Any = image.preprocess
        is_function = inspect.isfunction(prepare)
        stated = f"{prepare.__module__}.{prepare.__qualname__}" if is_function else repr(prepare)
        self.preprocess = PrepareViews(
            num_views, cameras, num_pixels, up, renderer, prepare, stated
        )
        self.collate = CollateViews(num_views, image.collate)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The batch of `CollateViews` to `(n, W)`."""
        images = {
            name.removeprefix(_IMAGE_PREFIX): tensor.flatten(0, 1)
            for name, tensor in batch.items()
            if name.startswith(_IMAGE_PREFIX)
        }
        features = self.image(images.get("", images)).unflatten(0, (-1, self.num_views))
        pooled = features.amax(1) if self.pool == "max" else features.mean(1)
        return pooled if self.size is None else pooled + self.size(batch["size"])

    def list_blocks(self) -> Sequence[nn.Module]:
        """Those of the image encoder."""
        return self.image.list_blocks()

    def save_files(self, folder: Path) -> None:
        """Those of the image encoder, in a folder of its own."""
        own = folder / IMAGE_MODALITY
        own.mkdir()
        self.image.save_files(own)

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        """Rebuilds the image encoder from its own files, and the rest around it."""
        given = inspect.signature(cls).bind(**options)
        given.apply_defaults()
        name, image_options, *rest = given.arguments.values()
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        own = folder / IMAGE_MODALITY
        encoder._build(build_encoder(IMAGE_MODALITY, name, image_options or {}, own), *rest)
        return encoder
