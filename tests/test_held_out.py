"""A held-out sample: written, read, and refused where it is not the model's."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

import omnialign as oa
from omnialign.building import build
from omnialign.errors import ModelError
from omnialign.held_out import HeldOut
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


def sample(fingerprints: dict[str, str], dim: int = 8) -> HeldOut:
    torch.manual_seed(0)
    return HeldOut(
        {m: normalize(torch.randn(5, dim), dim=1) for m in fingerprints},
        {("toy_signal", "toy_words"): torch.tensor([[0, 0], [1, 1], [1, 2]])},
        fingerprints,
    )


@pytest.fixture
def space() -> SharedSpace:
    torch.manual_seed(0)
    made = build(parse_recipe(toy.recipe()))
    made.held_out = sample({m: made.tower(m).fingerprint() for m in made.modalities})
    return made


def equal(one: HeldOut | None, other: HeldOut | None) -> bool:
    assert one is not None
    assert other is not None
    return (
        one.fingerprints == other.fingerprints
        and one.vectors.keys() == other.vectors.keys()
        and one.partners.keys() == other.partners.keys()
        and all(one.vectors[m].equal(other.vectors[m]) for m in one.vectors)
        and all(one.partners[pair].equal(other.partners[pair]) for pair in one.partners)
    )


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    found = sample({"toy_words": "a", "toy_signal": "b"})
    for name in ("one", "two"):
        found.save(tmp_path / f"{name}.safetensors")
    assert equal(HeldOut.load(tmp_path / "one.safetensors"), found)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("by_tower", [False, True])
def test_it_goes_with_its_model(space: SharedSpace, tmp_path: Path, by_tower: bool) -> None:
    from omnialign.model_folder import save

    save(space, tmp_path, by_tower=by_tower)
    assert equal(oa.load(tmp_path).held_out, space.held_out)
    words_alone = oa.load(tmp_path, modalities=["toy_words"])
    assert equal(words_alone.held_out, space.held_out)


def test_towers_of_other_weights_leave_theirs_behind(space: SharedSpace, tmp_path: Path) -> None:
    with torch.no_grad():
        next(space.tower("toy_signal").parameters()).add_(1)
    space.save(tmp_path)
    found = oa.load(tmp_path).held_out
    assert found is not None
    assert [*found.vectors] == ["toy_words"]
    assert not found.partners


def test_saving_again_leaves_no_sample_of_another(space: SharedSpace, tmp_path: Path) -> None:
    space.save(tmp_path)
    space.held_out = None
    space.save(tmp_path)
    assert oa.load(tmp_path).held_out is None


def test_that_of_another_model_is_refused(space: SharedSpace, tmp_path: Path) -> None:
    space.save(tmp_path)
    ours = {m: space.tower(m).fingerprint() for m in space.modalities}
    sample({**ours, "toy_words": "0123"}).save(tmp_path / "calibration.safetensors")
    with pytest.raises(
        ModelError,
        match=f"toy_words tower has the fingerprint 0123, .* {ours['toy_words']}; delete it",
    ):
        oa.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "places", "format"])
def test_a_damaged_one_is_named(space: SharedSpace, tmp_path: Path, damage: str) -> None:
    space.save(tmp_path)
    file = tmp_path / "calibration.safetensors"
    if damage == "places":
        assert space.held_out is not None
        space.held_out.partners["toy_signal", "toy_words"][0, 0] = 99
        space.held_out.save(file)
    else:
        data = file.read_bytes()
        other = data.replace(b'format\\": 1', b'format\\": 7')
        file.write_bytes(data[:40] if damage == "cut" else other)
        assert file.read_bytes() != data
    with pytest.raises(ModelError, match=r"calibration\.safetensors is damaged"):
        oa.load(tmp_path)
