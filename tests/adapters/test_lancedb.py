"""LanceDB embeds rows and questions by a space, and finds the same model again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import pytest
from lancedb.embeddings import get_registry
from lancedb.pydantic import LanceModel, Vector
from PIL import Image

from omnialign.adapters.lancedb import OmniAlignFunction
from omnialign.errors import ModelError, ReadError
from omnialign.model_folder import load
from omnialign.space import SharedSpace

REOPEN = """
import json, sys, lancedb
import omnialign.adapters.lancedb
table = lancedb.connect(sys.argv[1]).open_table("pictures")
print(json.dumps([hit["name"] for hit in table.search(sys.argv[2]).limit(5).to_list()]))
"""


def make(folder: Path, **options: Any) -> OmniAlignFunction:
    return get_registry().get("omnialign").create(model=str(folder), **options)


@pytest.fixture
def pictures(folder: Path, tmp_path: Path, emoji: list[dict[str, Any]]) -> Any:
    function = make(folder, modality="image")

    class Picture(LanceModel):
        path: str = function.SourceField()
        name: str
        vector: Vector(function.ndims()) = function.VectorField()  # pyright: ignore

    table = lancedb.connect(tmp_path).create_table("pictures", schema=Picture)
    table.add([{"path": row["path"], "name": row["text"]} for row in emoji[:30]])
    return table


def names(table: Any, query: Any, k: int = 5) -> list[str]:
    return [hit["name"] for hit in table.search(query).limit(k).to_list()]


def test_words_find_pictures_as_the_space_ranks_them(
    pictures: Any, space: SharedSpace, emoji: list[dict[str, Any]]
) -> None:
    by_path = {row["path"]: row["text"] for row in emoji}
    hits = space.rank("a red heart", [*by_path][:30], modality="text")
    assert names(pictures, "a red heart") == [by_path[str(hit.item)] for hit in hits[:5]]


def test_a_picture_finds_itself(pictures: Any, emoji: list[dict[str, Any]]) -> None:
    with Image.open(emoji[7]["path"]) as picture:
        assert names(pictures, picture, k=1) == [emoji[7]["text"]]


def test_another_process_finds_the_model_again(pictures: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REOPEN, str(tmp_path), "a red heart"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == names(pictures, "a red heart")


def test_a_table_refuses_another_model(
    pictures: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = tmp_path / "retrained"
    other = load(folder, "cpu")
    next(other.tower("image").parameters()).data.add_(0.01)
    other.save(retrained)
    opened = lancedb.connect(tmp_path).open_table("pictures")
    (config,) = opened.embedding_functions.values()
    monkeypatch.setattr(config.function, "model", str(retrained))
    with pytest.raises(ModelError, match="not the model that the vectors of this table come from"):
        config.function.ndims()


def test_words_and_missing_values(folder: Path, space: SharedSpace) -> None:
    function = make(folder, dim=64)
    cat, nothing, path = function.compute_source_embeddings(["a cat", None, "photos/cat.png"])
    assert nothing is None
    assert function.ndims() == 64 == len(cat) == len(path)
    (asked,) = function.compute_query_embeddings("a cat")
    assert asked == pytest.approx(cat, abs=1e-5)


def test_what_cannot_be_read_fails_at_once(folder: Path) -> None:
    with pytest.raises(ReadError, match=r"none\.png"):
        make(folder, modality="image").compute_source_embeddings(["none.png"])
    with pytest.raises(ModelError, match="no model folder"):
        make(folder / "none")
