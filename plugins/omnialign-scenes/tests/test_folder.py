"""Real files: complete, described, and the same as what is rendered."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
from omnialign_scenes import Scenes, parse, write_folder
from omnialign_scenes.grammar import MODALITIES
from PIL import Image


def test_files_hold_what_was_rendered(tmp_path: Path) -> None:
    manifest = write_folder(tmp_path / "gallery", num_scenes=3)
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    rows = Scenes(modalities=MODALITIES, split="test", num_scenes=3)
    assert len(entries) == 3 * len(MODALITIES)
    for entry in entries:
        path, row = manifest.parent / entry["file_name"], rows[entry["scene"]]
        assert entry["text"] == row[f"text_{entry['modality']}"]
        assert entry["label"] == row["label"]
        assert parse(entry["text"][0]).nouns[0].kind == entry["kind"]
        match entry["modality"]:
            case "image":
                assert np.array_equal(np.asarray(Image.open(path)), row["image"])
            case "audio":
                with wave.open(str(path)) as file:
                    steps = np.frombuffer(file.readframes(file.getnframes()), "<i2")
                    assert file.getframerate() == row["audio"][1]
                assert np.array_equal(steps / np.float32(2**15), row["audio"][0])
            case "video":
                with Image.open(path) as clip:
                    assert clip.n_frames == len(row["video"][0])
                    first = np.asarray(clip.convert("RGB")).astype(int)
                assert np.abs(first - row["video"][0][0]).mean() < 6
            case "pointcloud":
                header, _, body = path.read_bytes().partition(b"end_header\n")
                assert b"element vertex 512\n" in header
                kinds = [(n, "<f4") for n in "xyz"] + [(n, "u1") for n in "rgb"]
                vertices = np.frombuffer(body, dtype=kinds)
                found = [vertices[n] / (255 if k == "u1" else 1) for n, k in kinds]
                assert np.array_equal(np.stack(found, 1).astype(np.float32), row["pointcloud"])
            case _:
                with np.load(path) as file:
                    assert np.array_equal(file["values"], row["timeseries"][0])
                    assert file["sample_rate_hz"] == row["timeseries"][1]


def test_folders_are_the_same_to_the_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_folder(tmp_path / name, ["audio", "pointcloud", "timeseries"], 2, "train", 7)
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:
        twin = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert twin.read_bytes() == path.read_bytes()
