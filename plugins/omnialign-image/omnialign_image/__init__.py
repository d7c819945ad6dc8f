"""Images for OmniAlign.

Axes: H height, W width.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omnialign import Claim, Modality, Preview, hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class ImageModality(Modality["Tensor"]):
    """Still pictures as uint8 RGB tensors `(3, H, W)`.

    Orientation and colour profiles are applied, transparency is laid over white, and of an
    animation or a many-page file the first picture is taken. An animated GIF, WebP or PNG could
    also be a video, so it is only claimed where no other modality owns it.
    """

    name = "image"
    suffixes = frozenset(
        {".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
        | {".avif", ".heic", ".heif"}
    )
    long_input = "native"
    templates = (
        "a photo of a {}",
        "an image of a {}",
        "a picture of the {}",
        "a drawing of a {}",
        "an icon of a {}",
        "{}",
    )
    augmentations: ClassVar = {
        "crop": "omnialign_image.augmentations:Crop",
        "flip": "omnialign_image.augmentations:Flip",
        "rotation": "omnialign_image.augmentations:Rotation",
        "affine": "omnialign_image.augmentations:Affine",
        "color_jitter": "omnialign_image.augmentations:ColorJitter",
        "grayscale": "omnialign_image.augmentations:Grayscale",
        "erasing": "omnialign_image.augmentations:Erasing",
    }
    encoders: ClassVar = {
        "conv": "omnialign_image.conv:ConvEncoder",
        "vit": "omnialign_image.vit:ViTEncoder",
        "torchvision": "omnialign_image.backbone:TorchvisionEncoder",
    }
    default_encoder = "conv"

    def read(self, source: Any) -> Tensor:
        """A picture from a path, bytes, an open binary file, a PIL image or an array.

        Arrays are `(H, W)`, `(H, W, 1|3|4)` and tensors `(1|3|4, H, W)`: bool, uint8, uint16, or
        floats in 0..1. Raises `ReadError` for anything else and for more than `MAX_PIXELS`.
        """
        from omnialign_image.reading import read_image

        return read_image(source)

    def open(self, source: Any, resolution: float | None = None) -> Tensor:
        """As `read`; a JPEG may come at a half, a quarter or an eighth of its size, still with half
        as many pixels again on the shorter side as `resolution` says."""
        from omnialign_image.reading import read_image

        return read_image(source, resolution)

    def claim(self, source: Any) -> Claim:
        """Owns PIL images and still pictures; an animation it could read."""
        from PIL.Image import Image

        from omnialign_image.formats import is_animated, magic

        if isinstance(source, Image):
            return Claim.OWNS
        if isinstance(source, bytes) or hasattr(source, "read"):
            if magic(source) is None:
                return Claim.NO
            return Claim.COULD if is_animated(source) else Claim.OWNS
        claim = super().claim(source)
        suffix = Path(source).suffix.lower() if claim else ""
        if suffix in {".gif", ".webp", ".png"}:
            return Claim.COULD if is_animated(source) else Claim.OWNS
        return Claim.COULD if suffix == ".apng" else claim

    def preview(self, sample: Tensor) -> Preview:
        """A JPEG of at most 256 pixels a side."""
        from io import BytesIO

        from PIL import Image

        picture = Image.fromarray(sample.permute(1, 2, 0).contiguous().numpy())
        picture.thumbnail((256, 256))
        file = BytesIO()
        picture.save(file, "JPEG", quality=85)
        return Preview("image/jpeg", file.getvalue())

    def example_samples(self, n: int) -> list[Tensor]:
        """Discs of random colour, size and place, before a random gradient."""
        import torch

        samples: list[Tensor] = []
        for index in range(n):
            random = torch.Generator().manual_seed(index)
            H, W = 48 + 8 * (index % 3), 64
            start, end, disc = torch.randint(0, 256, (3, 3, 1, 1), generator=random).float()
            middle_y, middle_x, radius = (torch.rand(3, generator=random) * 0.4 + 0.3).tolist()
            y = torch.linspace(0, 1, H)[:, None]
            x = torch.linspace(0, 1, W)[None, :]
            inside = (y - middle_y) ** 2 + (x - middle_x) ** 2 < (radius / 2) ** 2
            ground = start + (end - start) * (x + y) / 2
            samples.append(torch.where(inside, disc, ground).to(torch.uint8))
        return samples


@hookimpl
def omnialign_modalities() -> list[ImageModality]:
    return [ImageModality()]
