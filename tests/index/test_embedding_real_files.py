"""Real files of real plugins come out as they do alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omnialign.building import build
from omnialign.index.embedding import embed_files
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace

soundfile = pytest.importorskip("soundfile")
RATE_HZ = 8000


@pytest.fixture(scope="module")
def space() -> SharedSpace:
    torch.manual_seed(0)
    rows = {"source": {"name": "scenes", "num_scenes": 8}}
    return build(
        parse_recipe(
            {
                "space": {"dim": 16},
                "data": {"rows": rows},
                "pairs": [
                    {"modalities": [m, "text"], "train": "rows", "test": "rows"}
                    for m in ("image", "audio")
                ],
                "towers": {"text": {"encoder": {"name": "transformer"}}},
            }
        )
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path, str]]:
    """Pictures and texts of several sizes, a long recording, and one broken file of each."""
    folder, draw = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    found: list[tuple[str, Path, str]] = []

    def add(name: str, modality: str) -> Path:
        found.append((name, folder / name, modality))
        return folder / name

    for i in range(5):
        pixels = draw.integers(0, 256, (30 + 20 * i, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(add(f"{i}.jpg", "image"))
        add(f"{i}.txt", "text").write_text("a dog barks in the rain. " * (1 + 3 * i % 5))
    for seconds in (1, 47):
        noise = 0.1 * draw.standard_normal(seconds * RATE_HZ)
        soundfile.write(add(f"{seconds}.wav", "audio"), noise, RATE_HZ)
    for name, modality in (("b.jpg", "image"), ("b.wav", "audio"), ("b.txt", "text")):
        add(name, modality).write_bytes(b"\xff\xfe\xfd")
    return found


@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_what_each_gives_alone(
    space: SharedSpace, files: list[tuple[str, Path, str]], workers: int
) -> None:
    stream: Any = embed_files(space, files, workers=workers, batch_size=4)
    found = {file.key: file for file in stream}
    assert found.keys() == {name for name, _, _ in files}
    for name, path, modality in files:
        file = found[name]
        if name.startswith("b."):
            assert file.segments is None
            assert file.problem
            assert "\n" not in file.problem
            continue
        wanted = space.embed_segments(path, modality)
        assert [(s, e) for s, e, _ in file.segments] == [(s, e) for s, e, _ in wanted]
        vectors = torch.stack([vector for *_, vector in file.segments])
        alone = torch.stack([vector for *_, vector in wanted])
        torch.testing.assert_close(vectors, alone, rtol=0, atol=2e-6)
    assert len(found["47.wav"].segments) > 3
