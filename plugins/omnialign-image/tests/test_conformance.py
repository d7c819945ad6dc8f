from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pillow_heif
from omnialign_image import ImageModality
from PIL import Image

from omnialign.testing import ModalityConformance


class TestImage(ModalityConformance):
    modality = ImageModality()
    encoder_options: ClassVar = {
        "conv": {"image_size": 32, "channels": [8, 16, 32], "width": 24},
        "vit": {"image_size": 32, "width": 24, "num_heads": 2, "depth": 2, "pooling": "class"},
        "torchvision": {"backbone": "squeezenet1_1", "image_size": 48},
    }

    def files(self, folder: Path) -> Sequence[Path]:
        picture = Image.linear_gradient("L").resize((40, 30)).convert("RGB")
        paths = [folder / f"picture{suffix}" for suffix in sorted(self.modality.suffixes)]
        for path in paths:
            if path.suffix in (".heic", ".heif"):
                pillow_heif.from_pillow(picture).save(path)
            else:
                picture.save(path)
        return paths
