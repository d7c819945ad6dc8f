from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from omnialign_3d import PointClouds

from omnialign.testing import ModalityConformance

PCD = """# .PCD v0.7
VERSION 0.7
FIELDS x y z
SIZE 4 4 4
TYPE F F F
COUNT 1 1 1
WIDTH 2
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 2
DATA ascii
0 0 0
1 2 3
"""


class TestPointClouds(ModalityConformance):
    modality = PointClouds()
    encoder_options = {  # noqa: RUF012
        "pointnet": {"num_points": 128, "width": 32},
        "transformer": {
            "num_points": 128,
            "num_patches": 16,
            "patch_size": 8,
            "width": 32,
            "depth": 2,
            "num_heads": 2,
        },
        "views": {
            "image_options": {"image_size": 32, "width": 16, "channels": [8, 16]},
            "num_views": 3,
            "use_size": True,
        },
    }

    def files(self, folder: Path) -> Sequence[Path]:
        folder = folder / "sound"
        folder.mkdir()
        mesh = trimesh.creation.icosphere(subdivisions=1)
        paths = [folder / f"ball.{kind}" for kind in ("ply", "obj", "off", "stl", "glb")]
        for path in paths:
            mesh.export(path)
        (folder / "points.pcd").write_text(PCD)
        np.save(folder / "points.npy", np.arange(30.0).reshape(10, 3))
        buffers = trimesh.Scene(mesh).export(file_type="gltf", merge_buffers=True)
        for name, data in buffers.items():
            (folder / name).write_bytes(data)
        return [*paths, folder / "points.pcd", folder / "points.npy"]
