"""Scenes as real files, with a manifest in the Hugging Face convention.

Axes: T frames or times, H = W pixels, N points.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omnialign_scenes.grammar import ATTRIBUTES, MODALITIES, Attribute, Modality
from omnialign_scenes.sampling import Split
from omnialign_scenes.source import FACTS, OTHER_FACTS, Scenes

MANIFEST = "metadata.jsonl"


def write_folder(
    folder: str | Path,
    modalities: Sequence[Modality] = MODALITIES,
    num_scenes: int = 32,
    split: Split = "test",
    seed: int = 0,
    attributes: Sequence[Attribute] = ATTRIBUTES,
) -> Path:
    """Writes PNG, WAV, GIF, PLY and NPZ files: up to `num_scenes` scenes in each modality.

    `metadata.jsonl` has a line a file: `file_name`, `modality`, `scene` (a number that files of
    one scene share), `text` (captions of what that file shows), `label` and the facts.

    Returns the path of the manifest. Raises `OmniAlignError` as `Scenes` does.
    """
    source = Scenes(
        modalities=tuple(modalities),
        split=split,
        num_scenes=num_scenes,
        seed=seed,
        attributes=tuple(attributes),
    )
    manifest = Path(folder) / MANIFEST
    for modality in modalities:
        (manifest.parent / modality).mkdir(parents=True, exist_ok=True)
    with manifest.open("w", encoding="utf-8") as lines:
        for index in range(len(source)):
            row = source[index]
            for modality in modalities:
                suffix, write = _WRITERS[modality]
                name = f"{modality}/{index:05d}{suffix}"
                write(manifest.parent / name, row[modality])
                entry = {"file_name": name, "modality": modality, "scene": index}
                entry |= {"text": row[f"text_{modality}"], "label": row["label"]}
                entry |= {fact: row[fact] for fact in (*FACTS, *OTHER_FACTS)}
                lines.write(json.dumps(entry) + "\n")
    return manifest


def _write_png(path: Path, pixels: Any) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path)


def _write_wav(path: Path, sound: tuple[Any, int]) -> None:
    values, sample_rate_hz = sound
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate_hz)
        file.writeframes((values * 2**15).astype("<i2").tobytes())


def _write_gif(path: Path, clip: tuple[Any, float]) -> None:
    from PIL import Image

    frames, frames_per_second = clip
    first, *rest = [Image.fromarray(frame) for frame in frames]
    duration_ms = round(1000 / frames_per_second)
    first.save(path, save_all=True, append_images=rest, duration=duration_ms, loop=0)


def _write_ply(path: Path, cloud: Any) -> None:
    """Binary, with positions as floats and colours as bytes."""
    fields = [(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    vertices = np.empty(len(cloud), dtype=fields)
    for column, (name, kind) in enumerate(fields):
        vertices[name] = cloud[:, column] if kind == "<f4" else np.round(cloud[:, column] * 255)
    names = [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in fields]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud)}", *names]
    path.write_bytes("\n".join([*header, "end_header\n"]).encode() + vertices.tobytes())


def _write_npz(path: Path, trace: tuple[Any, float]) -> None:
    values, sample_rate_hz = trace
    np.savez(
        path,
        values=values,
        sample_rate_hz=np.float64(sample_rate_hz),
        channels=np.array(["right", "up", "forward"]),
    )


_WRITERS: dict[str, tuple[str, Callable[[Path, Any], None]]] = {
    "image": (".png", _write_png),
    "audio": (".wav", _write_wav),
    "video": (".gif", _write_gif),
    "pointcloud": (".ply", _write_ply),
    "timeseries": (".npz", _write_npz),
}
"""A lossless format for each modality but video, whose GIF frames have 256 colours."""
