"""Scenes of glTF: nodes, transforms, materials, and what is refused."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from omnialign_3d import PointCloud, PointClouds

from omnialign import ReadError

MODALITY = PointClouds()
TRIANGLE = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]
FLOAT32, UINT8, UINT16 = 5126, 5121, 5123
HALF = math.sqrt(0.5)


def scene(
    *nodes: dict[str, Any],
    vertices: list[tuple[float, ...]] = TRIANGLE,
    further: tuple[tuple[dict[str, Any], bytes], ...] = (),
    **tree: Any,
) -> bytes:
    """A glTF file whose accessor 0 holds the vertices; `further` accessors follow.

    The first node is the scene's only root, and mesh 0 is all vertices.
    """
    positions = {"componentType": FLOAT32, "count": len(vertices), "type": "VEC3"}
    parts = [(positions, np.array(vertices, "<f4").tobytes()), *further]
    views: list[dict[str, int]] = []
    for _, data in parts:
        start = sum(view["byteLength"] for view in views)
        views.append({"buffer": 0, "byteOffset": start, "byteLength": len(data)})
    data = b"".join(part for _, part in parts)
    uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
    whole = {
        "asset": {"version": "2.0"},
        "buffers": [{"uri": uri, "byteLength": len(data)}],
        "bufferViews": views,
        "accessors": [{"bufferView": i, **accessor} for i, (accessor, _) in enumerate(parts)],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "nodes": list(nodes),
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    return json.dumps({**whole, **tree}).encode()


def corners(cloud: PointCloud) -> set[tuple[float, ...]]:
    """Of the triangles, rounded."""
    assert cloud.surface is not None
    rows = cloud.surface.triangles.flatten(0, 1).mul(1000).round().div(1000).tolist()
    return {tuple(value + 0.0 for value in row) for row in rows}


def only_color(cloud: PointCloud) -> list[float]:
    assert cloud.colors is not None
    (color,) = cloud.colors.mul(1000).round().div(1000).unique(dim=0).tolist()
    return color


def refusal(source: bytes) -> str:
    with pytest.raises(ReadError) as caught:
        MODALITY.read(source)
    return caught.value.reason


class TestScenes:
    def test_transforms_of_nested_nodes_are_applied_from_the_inside_out(self) -> None:
        cloud = MODALITY.read(
            scene(
                {"translation": [10, 0, 0], "children": [1]},
                {"rotation": [0, 0, HALF, HALF], "scale": [2, 2, 2], "children": [2]},
                {"mesh": 0, "translation": [1, 0, 0]},
            )
        )
        assert corners(cloud) == {(10, 2, 0), (10, 4, 0), (8, 2, 0)}

    def test_a_matrix_is_a_transform_too(self) -> None:
        matrix = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 5, 6, 7, 1]
        cloud = MODALITY.read(scene({"mesh": 0, "matrix": matrix}))
        assert corners(cloud) == {(5, 6, 7), (6, 6, 7), (5, 7, 7)}

    def test_a_mesh_may_stand_in_several_places_and_be_mirrored(self) -> None:
        cloud = MODALITY.read(
            scene(
                {"children": [1, 2]},
                {"mesh": 0, "translation": [-5, 0, 0]},
                {"mesh": 0, "translation": [5, 0, 0], "scale": [-1, 1, 1]},
            )
        )
        assert corners(cloud) == {
            (-5, 0, 0),
            (-4, 0, 0),
            (-5, 1, 0),
            (5, 0, 0),
            (4, 0, 0),
            (5, 1, 0),
        }
        assert cloud.normals is not None
        assert cloud.normals.unique(dim=0).tolist() == [[0, 0, 1]], "the outside stays outside"

    def test_only_the_scene_that_is_shown_counts(self) -> None:
        nodes = ({"mesh": 0}, {"mesh": 0, "translation": [9, 0, 0]}, {"camera": 0})
        scenes = [{"nodes": [0]}, {"nodes": [1, 2]}]
        cameras = [{"type": "perspective", "perspective": {"yfov": 1, "znear": 0.1}}]
        cloud = MODALITY.read(scene(*nodes, scenes=scenes, scene=1, cameras=cameras))
        assert corners(cloud) == {(9, 0, 0), (10, 0, 0), (9, 1, 0)}

    def test_up_is_y(self) -> None:
        assert MODALITY.read(scene({"mesh": 0})).up == "y"
        assert MODALITY.read(trimesh.creation.box().export(file_type="glb")).up == "y"
        assert MODALITY.read(trimesh.creation.box().export(file_type="stl")).up is None

    def test_empty_meshes_lines_and_fans_are_left_out(self) -> None:
        triangles, lines, fan = (
            {"attributes": {"POSITION": 0}, "mode": mode} for mode in (4, 1, 6)
        )
        meshes = [{"primitives": []}, {"primitives": [lines, fan, triangles]}]
        nodes = ({"children": [1, 2]}, {"mesh": 0}, {"mesh": 1})
        assert len(corners(MODALITY.read(scene(*nodes, meshes=meshes)))) == 3

    def test_strips_are_triangles_and_points_are_points(self) -> None:
        square: list[tuple[float, ...]] = [*TRIANGLE, (1, 1, 0)]
        primitive: dict[str, Any] = {"attributes": {"POSITION": 0}}
        strip = [{"primitives": [{**primitive, "mode": 5}]}]
        cloud = MODALITY.read(scene({"mesh": 0}, vertices=square, meshes=strip))
        assert len(corners(cloud)) == 4
        points = [{"primitives": [{**primitive, "mode": 0}]}]
        cloud = MODALITY.read(scene({"mesh": 0}, vertices=square, meshes=points))
        assert cloud.points.tolist() == [[*map(float, corner)] for corner in square]
        assert cloud.surface is None


class TestColors:
    def colored(self, data: bytes, accessor: dict[str, Any], **tree: Any) -> PointCloud:
        primitive: dict[str, Any] = {"attributes": {"POSITION": 0, "COLOR_0": 1}}
        if "materials" in tree:
            primitive["material"] = 0
        meshes = [{"primitives": [primitive]}]
        further = (({"count": 3, "type": "VEC3", **accessor}, data),)
        return MODALITY.read(scene({"mesh": 0}, meshes=meshes, further=further, **tree))

    def test_factors_are_linear_light(self) -> None:
        material = {"pbrMetallicRoughness": {"baseColorFactor": [0.2158605, 0, 1, 1]}}
        meshes = [{"primitives": [{"attributes": {"POSITION": 0}, "material": 0}]}]
        cloud = MODALITY.read(scene({"mesh": 0}, meshes=meshes, materials=[material]))
        assert only_color(cloud) == pytest.approx([128 / 255, 0, 1], abs=0.003)

    def test_corners_are_linear_light_and_multiply_the_factor(self) -> None:
        data = np.full((3, 3), 0.2158605, "<f4").tobytes()
        accessor = {"componentType": FLOAT32}
        assert only_color(self.colored(data, accessor)) == pytest.approx([0.5] * 3, abs=0.005)
        materials = [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0.2158605, 0, 1]}}]
        tinted = self.colored(data, accessor, materials=materials)
        assert only_color(tinted) == pytest.approx([0.5, 0.25, 0], abs=0.005)

    def test_corners_in_integers(self) -> None:
        data = struct.pack("<9H", *(65535, 0, 0) * 3) + b"\0\0"
        accessor = {"componentType": UINT16, "normalized": True}
        assert only_color(self.colored(data, accessor)) == [1, 0, 0]

    def test_colors_of_other_formats_are_as_shown(self) -> None:
        mesh = trimesh.creation.box()
        mesh.visual.face_colors = [128, 0, 255, 255]
        assert only_color(MODALITY.read(mesh)) == pytest.approx([128 / 255, 0, 1], abs=0.001)


class TestRefusals:
    def test_nothing_to_see(self) -> None:
        cameras = [{"type": "perspective", "perspective": {"yfov": 1, "znear": 0.1}}]
        assert "neither triangles nor points" in refusal(scene({"camera": 0}, cameras=cameras))
        for scenes in ([], None):
            assert "no scene" in refusal(scene({"mesh": 0}, scenes=scenes))
        nan = float("nan")
        assert "finite" in refusal(scene({"mesh": 0, "translation": [nan, 0, 0]}))

    def test_a_mesh_without_area_gives_its_corners(self) -> None:
        assert len(MODALITY.read(scene({"mesh": 0, "scale": [1, 0, 1]})).points) == 3
        broken: list[tuple[float, ...]] = [*TRIANGLE[:2], (float("nan"), 1, 0)]
        assert MODALITY.read(scene({"mesh": 0}, vertices=broken)).points.tolist() == [
            [0, 0, 0],
            [1, 0, 0],
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "KHR_draco_mesh_compression",
            "EXT_meshopt_compression",
            "KHR_mesh_quantization",
            "KHR_texture_transform",
            "KHR_materials_pbrSpecularGlossiness",
            "VENDOR_of_tomorrow",
        ],
    )
    def test_required_extensions_that_are_not_read(self, name: str) -> None:
        reason = refusal(scene({"mesh": 0}, extensionsRequired=[name], extensionsUsed=[name]))
        assert name in reason
        assert "save it without" in reason
        if name == "VENDOR_of_tomorrow":
            assert len(MODALITY.read(scene({"mesh": 0}, extensionsUsed=[name])).points) > 0

    def test_copies_made_by_an_extension(self) -> None:
        name = "EXT_mesh_gpu_instancing"
        assert name in refusal(scene({"mesh": 0}, extensionsUsed=[name]))

    def test_required_extensions_of_materials_change_nothing(self) -> None:
        extension = {"extensions": {"KHR_materials_unlit": {}}}
        material = {"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}, **extension}
        primitive = {"attributes": {"POSITION": 0}, "material": 0}
        cloud = MODALITY.read(
            scene(
                {"mesh": 0},
                meshes=[{"primitives": [primitive]}],
                materials=[material],
                extensionsRequired=["KHR_materials_unlit"],
            )
        )
        assert only_color(cloud) == [1, 0, 0]

    def test_values_that_would_be_taken_for_others(self) -> None:
        sparse = {"count": 1, "indices": {"bufferView": 1}, "values": {"bufferView": 2}}
        accessor = {"componentType": FLOAT32, "count": 3, "type": "VEC3", "sparse": sparse}
        meshes = [{"primitives": [{"attributes": {"POSITION": 1}}]}]
        assert "sparse" in refusal(scene({"mesh": 0}, further=((accessor, b""),), meshes=meshes))
        accessor = {"componentType": UINT8, "count": 3, "type": "VEC2", "normalized": True}
        meshes = [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}}]}]
        data = scene({"mesh": 0}, further=((accessor, bytes(8)),), meshes=meshes)
        assert "texture coordinates in integers" in refusal(data)

    def test_what_unfolds_to_too_much(self) -> None:
        accessor = {"componentType": FLOAT32, "count": 10**12, "type": "VEC3"}
        tree: dict[str, Any] = {"asset": {"version": "2.0"}, "accessors": [accessor]}
        assert "unfolds" in refusal(json.dumps(tree).encode())
        tree["accessors"] = [{**accessor, "count": 10**6, "bufferView": 0}]
        tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": 0}}] * 100}]
        assert "unfolds" in refusal(json.dumps(tree).encode())

    def test_nodes_in_a_circle(self) -> None:
        assert "circle" in refusal(scene({"children": [1]}, {"children": [0]}))

    def test_json_that_is_too_deep(self) -> None:
        assert "glTF" in refusal(b'{"asset":' + b"[" * 100_000)


def test_a_surface_comes_with_the_points_that_were_drawn_from_it() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=2)
    cloud = MODALITY.read(mesh.export(file_type="glb"))
    assert cloud.surface is not None
    assert cloud.surface.triangles.shape == (320, 3, 3)
    assert cloud.surface.triangles.dtype == torch.float32
    again = MODALITY.read(cloud)
    assert again.surface is cloud.surface
    assert again.up == "y"
