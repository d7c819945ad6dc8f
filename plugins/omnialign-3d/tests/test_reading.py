"""Every form of input, sound, odd and hostile."""

from __future__ import annotations

import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from omnialign_3d import PointClouds
from PIL import Image

from omnialign import Claim, ReadError

MODALITY = PointClouds()
TRIANGLE = "0 0 0\n1 0 0\n0 1 0\n"


def ply(num_vertices: int, num_faces: int, body: str, encoding: str = "ascii") -> bytes:
    header = f"ply\nformat {encoding} 1.0\nelement vertex {num_vertices}\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz")
    header += f"element face {num_faces}\nproperty list uchar int vertex_indices\nend_header\n"
    return (header + body).encode()


def refusal(source: Any) -> str:
    with pytest.raises(ReadError) as caught:
        MODALITY.read(source)
    return caught.value.reason


def hues(colors: torch.Tensor) -> list[list[float]]:
    """The different colours, but for rounding."""
    return (colors * 1000).round().div(1000).unique(dim=0).tolist()


class TestMeshes:
    def test_a_mesh_is_sampled_the_same_way_every_time(self) -> None:
        data = ply(3, 1, TRIANGLE + "3 0 1 2\n")
        cloud = MODALITY.read(data)
        assert len(cloud) == 4096
        assert cloud.points.equal(MODALITY.read(data).points)
        assert cloud.points.sum(-1).max() <= 1 + 1e-6
        assert cloud.colors is None
        assert cloud.normals is not None
        assert cloud.normals.equal(torch.tensor([0.0, 0, 1]).expand(4096, 3))

    def test_polygons(self) -> None:
        body = "0 0 0\n1 0 0\n1 1 0\n0.5 2 0\n0 1 0\n"
        cloud = MODALITY.read(ply(5, 2, body + "4 0 1 2 4\n3 2 3 4\n"))
        upper = (cloud.points[:, 1] > 1).float().mean().item()
        assert upper == pytest.approx(1 / 3, abs=0.03)

    def test_vertex_colors_are_interpolated(self) -> None:
        obj = b"v 0 0 0 1 0 0\nv 1 0 0 0 1 0\nv 0 1 0 0 0 1\nf 1 2 3\n"
        cloud = MODALITY.read(obj)
        assert cloud.colors is not None
        expected = torch.cat([1 - cloud.points[:, :2].sum(1, True), cloud.points[:, :2]], 1)
        torch.testing.assert_close(cloud.colors, expected, atol=0.01, rtol=0)

    def test_textures_are_baked(self) -> None:
        image = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8))
        uv = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        visual = trimesh.visual.TextureVisuals(uv, material)
        corners = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
        mesh = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
        for source in (mesh, trimesh.Scene(mesh), mesh.export(file_type="glb")):
            cloud = MODALITY.read(source)
            assert cloud.colors is not None
            left = cloud.points[:, 0] < 0.49
            assert hues(cloud.colors[left]) == [[1, 0, 0]]
            assert hues(cloud.colors[cloud.points[:, 0] > 0.51]) == [[0, 0, 1]]

    def test_a_scene_is_flattened_in_world_coordinates(self) -> None:
        red, ball = trimesh.creation.box(), trimesh.creation.icosphere()
        red.visual.face_colors = [255, 0, 0, 255]
        scene = trimesh.Scene()
        scene.add_geometry(red, transform=trimesh.transformations.translation_matrix([5, 0, 0]))
        scene.add_geometry(ball, transform=np.diag([-1.0, 1, 1, 1]))  # mirrored
        for source in (scene, scene.export(file_type="glb")):
            cloud = MODALITY.read(source)
            assert cloud.colors is not None
            assert cloud.normals is not None
            is_box = cloud.points[:, 0] > 3
            torch.testing.assert_close(
                cloud.points[is_box].abs().amax(0), torch.tensor([5.5, 0.5, 0.5])
            )
            assert hues(cloud.colors[is_box]) == [[1, 0, 0]]
            assert hues(cloud.colors[~is_box]) == [[0.5, 0.5, 0.5]], "neutral"
            outward = (cloud.points[~is_box] * cloud.normals[~is_box]).sum(-1)
            assert (outward > 0).all(), "a mirrored node keeps its outside"

    def test_faces_without_area_give_their_corners(self) -> None:
        cloud = MODALITY.read(ply(3, 1, "0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n"))
        assert cloud.points.tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0]]
        assert cloud.colors is None

    def test_faces_with_a_corner_that_is_not_finite_are_left_out(self) -> None:
        cloud = MODALITY.read(ply(4, 2, TRIANGLE + "nan 0 0\n3 0 1 2\n3 0 1 3\n"))
        assert len(cloud) == 4096
        assert cloud.points.isfinite().all()

    @pytest.mark.parametrize("index", [7, -7])
    def test_faces_that_point_outside(self, index: int) -> None:
        reason = refusal(ply(3, 1, f"{TRIANGLE}3 0 1 {index}\n"))
        assert f"names vertex {index}" in reason
        assert "0 to 2" in reason

    def test_nothing_to_read_in_a_scene(self) -> None:
        assert "neither triangles nor points" in refusal(trimesh.Scene())


class TestLinkedFiles:
    def obj(self, folder: Path, library: str) -> Path:
        path = folder / "model.obj"
        uv = "vt 0 0\nvt 1 0\nvt 0 1\n"
        corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
        path.write_text(f"mtllib {library}\n{corners}{uv}usemtl a\nf 1/1 2/2 3/3\n")
        return path

    def test_a_material_in_the_folder_is_used(self, tmp_path: Path) -> None:
        (tmp_path / "model.mtl").write_text("newmtl a\nKd 1 0 0\nmap_Kd skin.png\n")
        Image.new("RGB", (4, 4), (0, 255, 0)).save(tmp_path / "skin.png")
        cloud = MODALITY.read(self.obj(tmp_path, "model.mtl"))
        assert cloud.colors is not None
        assert hues(cloud.colors) == [[0, 1, 0]]

    def test_a_plain_material_gives_its_color(self, tmp_path: Path) -> None:
        (tmp_path / "model.mtl").write_text("newmtl a\nKd 1 0 0\n")
        cloud = MODALITY.read(self.obj(tmp_path, "model.mtl"))
        assert cloud.colors is not None
        assert hues(cloud.colors) == [[1, 0, 0]]

    def test_a_material_elsewhere_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "secret.mtl").write_text("newmtl a\nKd 1 0 0\n")
        inner = tmp_path / "inner"
        inner.mkdir()
        for library in ("../secret.mtl", str(tmp_path / "secret.mtl"), "missing.mtl"):
            assert MODALITY.read(self.obj(inner, library)).colors is None

    def gltf(self, uri: str) -> bytes:
        tree = {
            "asset": {"version": "2.0"},
            "buffers": [{"uri": uri, "byteLength": 36}],
            "bufferViews": [{"buffer": 0, "byteLength": 36}],
            "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
            "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
            "nodes": [{"mesh": 0}],
            "scenes": [{"nodes": [0]}],
            "scene": 0,
        }
        return json.dumps(tree).encode()

    def test_gltf_buffers_come_from_the_folder_only(self, tmp_path: Path) -> None:
        inner = tmp_path / "inner"
        inner.mkdir()
        data = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
        for place in (tmp_path / "secret.bin", inner / "own.bin"):
            place.write_bytes(data)
        path = inner / "model.gltf"
        path.write_bytes(self.gltf("own.bin"))
        assert len(MODALITY.read(path)) == 4096
        assert "its own" in refusal(self.gltf("own.bin")).replace("of its own", "its own")
        path.write_bytes(self.gltf("../secret.bin"))
        assert "outside the folder" in refusal(path)

    def test_linked_files_are_companions(self, tmp_path: Path) -> None:
        for name in ("own.bin", "two words.bin", "a.mtl", "skin.png", "other.png"):
            (tmp_path / name).touch()
        (tmp_path / "model.gltf").write_bytes(self.gltf("own.bin"))
        (tmp_path / "quoted.gltf").write_bytes(self.gltf("two%20words.bin"))
        (tmp_path / "inner.gltf").write_bytes(self.gltf("data:application/octet-stream;base64,AA"))
        (tmp_path / "model.obj").write_text("mtllib a.mtl\nv 0 0 0\n")
        (tmp_path / "a.mtl").write_text("newmtl x\nmap_Kd -s 1 1 skin.png\nmap_Ks gone.png\n")
        found = {
            name: [path.name for path in MODALITY.companions(tmp_path / name)]
            for name in ("model.gltf", "quoted.gltf", "inner.gltf", "model.obj", "own.bin")
        }
        assert found == {
            "model.gltf": ["own.bin"],
            "quoted.gltf": ["two words.bin"],
            "inner.gltf": [],
            "model.obj": ["a.mtl", "skin.png"],
            "own.bin": [],
        }


class TestHostileFiles:
    def test_a_ply_that_promises_a_billion_points(self) -> None:
        for encoding in ("ascii", "binary_little_endian"):
            data = ply(10**9, 0, "0 0 0\n" * 100, encoding)
            assert "promises data of at least" in refusal(data)

    def test_a_ply_without_points(self) -> None:
        assert "0 points" in refusal(ply(0, 0, ""))

    def test_a_ply_of_points_that_are_not_finite(self) -> None:
        assert "no point with finite" in refusal(ply(1, 0, "nan inf 0\n"))
        assert len(MODALITY.read(ply(2, 0, "nan 0 0\n1 1 1\n"))) == 1

    def test_an_off_that_promises_too_much(self) -> None:
        assert "promises" in refusal(b"OFF\n1000000000 1 0\n0 0 0\n")

    def test_an_stl_of_another_length_than_it_says(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.stl"
        path.write_bytes(b"\0" * 80 + struct.pack("<I", 10**9) + b"\0" * 50)
        assert "promises" in refusal(path)

    def test_textures_that_are_too_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("omnialign_3d.meshes.MAX_TEXTURE_PIXELS", 15)
        image = Image.new("RGB", (4, 4))
        visual = trimesh.visual.TextureVisuals(np.zeros((8, 2)), image=image)
        mesh = trimesh.creation.box()
        mesh.visual = visual
        assert "more than 15 pixels" in refusal(mesh)

    def test_a_cut_glb(self) -> None:
        data = trimesh.creation.box().export(file_type="glb")
        assert "cut off" in refusal(data[:-9])

    def test_npy(self) -> None:
        file = io.BytesIO()
        np.save(file, np.zeros((4, 3)))
        assert "cut off" in refusal(file.getvalue()[:-1])
        file = io.BytesIO()
        np.save(file, np.array([{}]), allow_pickle=True)
        assert "numbers" in refusal(file.getvalue())

    def test_a_zip_is_not_opened(self) -> None:
        assert "no format that is read" in refusal(b"PK\x03\x04" + b"\0" * 50)

    def test_huge_coordinates(self) -> None:
        assert "1e15" in refusal(np.array([[1e30, 0, 0], [-1e30, 0, 0]]))

    def test_chatter_is_held_back(
        self, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            MODALITY.read(b"mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl x\nf 1 2 3\n")
            refusal(ply(3, 1, "0 0 zero\n1 0 0\n0 1 0\n3 0 1 x\n"))
        assert capfd.readouterr() == ("", "")
        assert not caplog.records


class TestInMemory:
    def test_columns(self) -> None:
        values = np.random.default_rng(0).random((10, 9))
        cloud = MODALITY.read(values)
        assert cloud.colors is not None
        assert cloud.normals is not None
        np.testing.assert_allclose(cloud.points, values[:, :3], rtol=1e-6)
        np.testing.assert_allclose(cloud.colors, values[:, 3:6], rtol=1e-6)
        torch.testing.assert_close(cloud.normals.norm(dim=-1), torch.ones(10))
        assert MODALITY.read(values[:, :6]).normals is None
        assert MODALITY.read(torch.from_numpy(values[:, :3])).colors is None

    def test_mapping_and_own_type(self) -> None:
        given = {"points": [[0, 0, 0], [1, 1, 1]], "colors": np.full((2, 3), 255, np.uint8)}
        cloud = MODALITY.read(given)
        assert cloud.colors is not None
        assert cloud.colors.unique().tolist() == [1]
        again = MODALITY.read(cloud)
        assert again.points.equal(cloud.points)

    def test_trimesh_points(self) -> None:
        colors = np.full((10, 4), 51, np.uint8)
        cloud = MODALITY.read(trimesh.PointCloud(np.ones((10, 3)), colors=colors))
        assert cloud.colors is not None
        assert cloud.colors[0].tolist() == pytest.approx([0.2] * 3)

    def test_ply_points_keep_normals_and_colors(self) -> None:
        header = "ply\nformat ascii 1.0\nelement vertex 1\n"
        header += "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
        header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
        cloud = MODALITY.read(f"{header}end_header\n1 2 3 0 0 2 255 0 0\n".encode())
        assert cloud.colors is not None
        assert cloud.normals is not None
        assert cloud.colors.tolist() == [[1, 0, 0]]
        assert cloud.normals.tolist() == [[0, 0, 1]]

    def test_many_points_are_thinned_out_evenly(self) -> None:
        values = np.stack([np.arange(100_000.0)] * 3, axis=1)
        points = MODALITY.read(values).points
        assert len(points) == 4096
        assert (points[:, 0].diff() > 0).all(), "in their order"
        assert points[:, 0].diff().max() < 70

    def test_far_from_the_origin_keeps_its_shape(self) -> None:
        shape = np.random.default_rng(0).random((50, 3))
        near = MODALITY.read(shape + np.array([5e6, 4e5, 100])).points
        torch.testing.assert_close(torch.pdist(near), torch.pdist(torch.from_numpy(shape).float()))

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            (np.zeros((4, 4)), "(4, 4)"),
            (np.zeros((2, 4, 3)), "(2, 4, 3)"),
            (np.zeros((0, 3)), "no point"),
            (np.full((4, 6), 200.0), "0..1"),
            (np.zeros((4, 3), bool), "bool"),
            ({"pts": 1}, "'points'"),
            (
                {"points": np.zeros((3, 3)), "normals": np.zeros((2, 3))},
                "normals want",
            ),
            (b"", "empty"),
            (io.StringIO("text"), "binary mode"),
        ],
    )
    def test_refusals(self, source: Any, reason: str) -> None:
        assert reason in refusal(source)

    def test_a_folder(self, tmp_path: Path) -> None:
        assert "directory" in refusal(tmp_path)


class TestClaims:
    def test_paths(self) -> None:
        assert MODALITY.claim(Path("a/chair.GLB")) == Claim.OWNS
        assert MODALITY.claim(Path("a/points.npy")) == Claim.COULD
        assert MODALITY.claim(Path("a/photo.png")) == Claim.NO

    def test_objects(self) -> None:
        mesh = trimesh.creation.box()
        for owned in (mesh, trimesh.Scene(mesh), trimesh.PointCloud(np.ones((3, 3)))):
            assert MODALITY.claim(owned) == Claim.OWNS
        assert MODALITY.claim(MODALITY.example_samples(1)[0]) == Claim.OWNS
        for other in (np.zeros((5, 3)), torch.zeros(5, 3), {"points": 1}, "chair", object(), None):
            assert MODALITY.claim(other) == Claim.NO

    def test_marks(self) -> None:
        mesh = trimesh.creation.box()
        for kind in ("ply", "off", "stl", "stl_ascii", "glb"):
            data = mesh.export(file_type=kind)
            data = data.encode() if isinstance(data, str) else data
            assert MODALITY.claim(data) == Claim.OWNS, kind
            file = io.BytesIO(b"x" + data)
            file.seek(1)
            assert MODALITY.claim(file) == Claim.OWNS, kind
            assert file.tell() == 1
        file = io.BytesIO()
        np.save(file, np.zeros((4, 3)))
        assert MODALITY.claim(file.getvalue()) == Claim.COULD
        for other in (
            b"solid advice\n" * 9,
            b"v 1 2 3\n",
            b"OFFICE",
            b"",
            b'{"a": 1}',
            b"\0" * 200,
        ):
            assert MODALITY.claim(other) == Claim.NO
