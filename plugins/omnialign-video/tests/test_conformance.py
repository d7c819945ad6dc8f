from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
from omnialign_video import VideoModality
from PIL import Image

from omnialign.testing import ModalityConformance


class TestVideo(ModalityConformance):
    modality = VideoModality()
    encoder_options: ClassVar = {
        "frames": {"num_frames": 4, "image_size": 24, "channels": [8, 16], "width": 24},
        "spacetime": {
            "num_frames": 4,
            "image_size": 24,
            "width": 24,
            "num_heads": 2,
            "depth": 2,
        },
    }

    def files(self, folder: Path) -> Sequence[Path]:
        paths = [folder / f"clip{suffix}" for suffix in sorted(self.modality.suffixes)]
        for path in paths:
            frames = [np.full((32, 48, 3), 40 * t, np.uint8) for t in range(5)]
            if path.suffix in {".gif", ".webp", ".apng"}:
                pictures = [Image.fromarray(frame) for frame in frames]
                format = {".apng": "PNG"}.get(path.suffix)
                pictures[0].save(
                    path, format, save_all=True, append_images=pictures[1:], duration=200
                )
                continue
            if path.suffix == ".mkv":
                frames *= 20
            with av.open(path, "w") as container:
                codec = "libvpx-vp9" if path.suffix == ".webm" else "mpeg4"
                stream = container.add_stream(codec, rate=5, width=48, height=32)
                stream.pix_fmt = "yuv420p"
                for frame in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
                container.mux(stream.encode(None))
        return paths
