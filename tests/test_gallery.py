"""What is searched, and what is passed over with which reason."""

from pathlib import Path

import pytest
import torch

from omnialign.errors import ModalityError, OmniAlignError
from omnialign.gallery import Gallery
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
TOYS = ["toy_signal", "toy_words"]


def test_a_folder_is_searched_recursively_and_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "a.toy", tmp_path / "b" / "a.toy", tmp_path / "c.TOY"]
    for path in paths:
        toy.write_signal(path, [1])
    (tmp_path / "table.xyz").touch()
    toy.write_signal(tmp_path / "a.echo", [1])
    found = Gallery.gather(tmp_path, TOYS)
    assert found.items == paths
    assert found.modalities == ["toy_signal"] * 3
    assert "toy_echo would, but is not in this model" in found.skipped[str(tmp_path / "a.echo")]
    assert "no modality claims" in found.skipped[str(tmp_path / "table.xyz")]


def test_only_one_modality(tmp_path: Path) -> None:
    toy.write_signal(tmp_path / "a.toy", [1])
    toy.write_signal(tmp_path / "b.echo", [1])
    found = Gallery.gather(str(tmp_path), [*TOYS, "toy_echo"], only="toy_echo")
    assert [path.name for path in found.items] == ["b.echo"]
    with pytest.raises(ModalityError, match="pass modality="):
        Gallery.gather([torch.zeros(3)], TOYS)
    assert Gallery.gather([torch.zeros(3)], TOYS, only="toy_signal").modalities == ["toy_signal"]


def test_what_cannot_be_read_moves_to_skipped() -> None:
    gallery = Gallery(["a", "b", "c"], ["x", "y", "z"], {"d": "unknown"})
    rest = gallery.without({1: "broken"})
    assert (rest.items, rest.modalities) == (["a", "c"], ["x", "z"])
    assert rest.skipped == {"d": "unknown", "b": "broken"}


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OmniAlignError, match="is not a folder"):
        Gallery.gather(tmp_path / "nowhere", TOYS)
    assert Gallery.gather(tmp_path, TOYS) == Gallery()
