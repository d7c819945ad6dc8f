"""What a page is given to turn, read back."""

import io

import numpy as np
import torch
import trimesh
from omnialign_3d import PointClouds
from omnialign_3d.cloud import PointCloud
from omnialign_3d.interactive import glb
from omnialign_3d.surface import Surface


def read_back(data: bytes) -> trimesh.Scene:
    found = trimesh.load(io.BytesIO(data), file_type="glb")
    assert isinstance(found, trimesh.Scene)
    return found


def test_a_mesh_keeps_its_triangles_and_colours() -> None:
    box = trimesh.creation.box((1, 2, 3))
    box.visual.vertex_colors = [200, 30, 10, 255]
    modality = PointClouds()
    preview = modality.interactive_preview(modality.read(box))
    assert preview.mime == "model/gltf-binary"
    (shape,) = read_back(preview.data).geometry.values()
    assert len(shape.faces) == 12
    assert np.allclose(sorted(shape.extents), [1, 2, 3])
    assert (shape.visual.vertex_colors == [200, 30, 10, 255]).all()


def test_points_stay_points() -> None:
    cloud = PointCloud(torch.rand(50, 3), colors=torch.rand(50, 3))
    (shape,) = read_back(glb(cloud)).geometry.values()
    assert isinstance(shape, trimesh.PointCloud)
    assert np.allclose(shape.vertices, cloud.points.numpy(), atol=1e-6)
    assert cloud.colors is not None
    assert np.abs(shape.colors[:, :3] / 255 - cloud.colors.numpy()).max() < 0.01


def test_very_many_triangles_are_shown_as_points() -> None:
    triangles = torch.rand(200_001, 3, 3)
    cloud = PointCloud(torch.rand(9, 3), surface=Surface(triangles))
    (shape,) = read_back(glb(cloud)).geometry.values()
    assert len(shape.vertices) == 9
