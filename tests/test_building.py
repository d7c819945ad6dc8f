"""Spaces of what others left: formats of plugins, some towers only, models to start from."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import omnialign as oa
from omnialign.building import build_encoder
from omnialign.contract import AlignedModel, AlignedTower, hookimpl
from omnialign.engine import train
from omnialign.errors import ModalityError, ModelError, RecipeError
from omnialign.evaluation import evaluate
from omnialign.recipe import parse_recipe
from omnialign.registry import Registry
from omnialign.testing import toy

SIGNALS = [torch.linspace(-1, k, 12) for k in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    with toy.installed():
        train(parse_recipe(toy.recipe(num_steps=5)), path)
    return path


@pytest.mark.usefixtures("toys")
class TestSomeTowers:
    def test_they_are_those_of_the_whole(self, folder: Path) -> None:
        whole, part = oa.load(folder), oa.load(folder, modalities=["toy_signal"])
        assert part.modalities == ["toy_signal"]
        assert part.embed(SIGNALS, "toy_signal").equal(whole.embed(SIGNALS, "toy_signal"))
        for x in ("toy_signal", "toy_words"):
            assert part.logit_scale("toy_signal", x).equal(whole.logit_scale("toy_signal", x))

    def test_no_byte_of_the_others_is_read(self, folder: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        oa.load(folder).save(copy)
        file = copy / "model.safetensors"
        data = bytearray(file.read_bytes())
        header = int.from_bytes(data[:8], "little")
        for name, about in json.loads(data[8 : 8 + header]).items():
            if name.startswith("towers.toy_words."):
                start, end = (8 + header + offset for offset in about["data_offsets"])
                data[start:end] = b"\xff" * (end - start)
        file.write_bytes(data)
        part = oa.load(copy, modalities=["toy_signal"])
        assert part.embed(SIGNALS, "toy_signal").equal(oa.load(folder).embed(SIGNALS, "toy_signal"))
        for wanted in (None, ["toy_words"]):
            with pytest.raises(ModelError, match=r"config\.json was written for"):
                oa.load(copy, modalities=wanted)

    def test_a_modality_that_the_model_lacks(self, folder: Path) -> None:
        with pytest.raises(ModalityError, match=r"no modality 'toy_echo'; it has: toy_signal"):
            oa.load(folder, modalities=["toy_signal", "toy_echo"])
        with pytest.raises(ModalityError, match=r"'toy_echo'; it has: toy_signal, toy_words$"):
            oa.load(folder, modalities=["toy_echo"])


def read_made(name: str, *, revision: str | None, modalities: Sequence[str] | None) -> AlignedModel:
    """A format whose models are all alike."""
    if name != "known":
        raise ModelError(f"there is no '{name}'")
    torch.manual_seed(int(revision or 0))
    signal, words = toy.Mlp(width=8), toy.HashedWords(width=16)
    towers = {
        "toy_signal": AlignedTower(signal, "mlp", {"width": 8}, torch.randn(16, 8)),
        "toy_words": AlignedTower(words, "hashed", {"width": 16}),
    }
    wanted = {m: t for m, t in towers.items() if modalities is None or m in modalities}
    pair = ("toy_signal", "toy_words")
    return AlignedModel(16, wanted, {pair: 20.0}, {pair: -3.0})


class Made:
    @hookimpl
    def omnialign_formats(self) -> dict[str, object]:
        return {"made": read_made}


@pytest.fixture
def formats(toys: Registry) -> None:
    toys.add(Made(), "made")


@pytest.mark.usefixtures("formats")
class TestFormats:
    def test_a_model_comes_in_whole(self, tmp_path: Path) -> None:
        space = oa.load("made:known@7", "cpu")
        given = read_made("known", revision="7", modalities=None).towers["toy_signal"]
        assert given.projection is not None
        inputs = torch.stack([given.encoder.preprocess(x) for x in SIGNALS])
        features = given.encoder.eval()(inputs) @ given.projection.T
        exact = nn.functional.normalize(features, dim=-1)
        torch.testing.assert_close(space.embed(SIGNALS, "toy_signal"), exact)
        assert space.logit_scale("toy_words", "toy_signal").item() == pytest.approx(20)
        assert space.logit_bias("toy_words", "toy_signal") == -3
        space.save(tmp_path)
        assert oa.load(tmp_path, "cpu").fingerprint() == space.fingerprint()

    def test_some_towers(self) -> None:
        assert oa.load("made:known", modalities=["toy_words"]).modalities == ["toy_words"]
        with pytest.raises(ModalityError, match="no modality 'toy_echo'"):
            oa.load("made:known", modalities=["toy_echo"])

    def test_mistakes(self) -> None:
        with pytest.raises(ModelError, match="there is no 'other'"):
            oa.load("made:other")
        with pytest.raises(ModelError, match=r"no installed plugin reads models 'maid:…'; .*made:"):
            oa.load("maid:known")

    def test_it_is_the_anchor_of_a_run(self, tmp_path: Path) -> None:
        table = toy.recipe(num_steps=3)
        table |= {
            "start_from": "made:known",
            "towers": {"toy_words": {"frozen": "tower"}},
            "pairs": [{"modalities": ["toy_echo", "toy_words"], "train": "rows"}],
        }
        trained = train(parse_recipe(table), tmp_path / "run")
        anchor = oa.load("made:known")
        words = ["high calm", "low rising"]
        assert trained.embed(words, "toy_words").equal(anchor.embed(words, "toy_words"))
        assert trained.tower("toy_words").config == anchor.tower("toy_words").config
        longer = {**table, "train": {**table["train"], "num_steps": 4}}
        again = train(parse_recipe(longer), tmp_path / "run", resume=True)
        assert again.embed(words, "toy_words").equal(anchor.embed(words, "toy_words"))

    def test_its_other_towers_come_along(self, tmp_path: Path) -> None:
        table = toy.recipe(num_steps=3)
        table |= {
            "start_from": "made:known",
            "towers": {"toy_words": {"frozen": "tower"}, "toy_signal": {"frozen": "tower"}},
            "pairs": [{"modalities": ["toy_echo", "toy_words"], "train": "rows"}],
            "evaluations": [
                {"task": "retrieval", "modalities": ["toy_signal", other], "rows": "unseen"}
                for other in ("toy_echo", "toy_words")
            ],
        }
        space = train(parse_recipe(table), tmp_path / "run")
        anchor, again = oa.load("made:known"), oa.load(tmp_path / "run")
        for found in (space, again):
            assert found.modalities == ["toy_echo", "toy_words", "toy_signal"]
            own = found.embed(SIGNALS, "toy_signal")
            assert own.equal(anchor.embed(SIGNALS, "toy_signal"))
            assert found.logit_scale("toy_words", "toy_signal").item() == pytest.approx(20)
            assert found.logit_bias("toy_words", "toy_signal") == -3
        tasks = evaluate(again, parse_recipe(table))["tasks"]
        assert [(t["name"], t["emergent"]) for t in tasks] == [
            ("toy_signal-toy_echo", True),
            ("toy_signal-toy_words", False),
        ]

    def test_a_tower_that_it_lacks_cannot_come_along(self, tmp_path: Path) -> None:
        table = toy.recipe() | {"start_from": "made:known"}
        table["towers"] = {"toy_echo": {"frozen": "tower"}}
        with pytest.raises(ModalityError, match="no modality 'toy_echo'; it has: toy_signal"):
            train(parse_recipe(table), tmp_path / "run")
        del table["start_from"]
        with pytest.raises(RecipeError, match=r"toy_echo is in no pair; .*with frozen = 'tower'"):
            parse_recipe(table)

    def test_its_size_and_its_projection_are_its_own(self, tmp_path: Path) -> None:
        table = {**toy.recipe(), "start_from": "made:known", "space": {"dim": 8}}
        with pytest.raises(ModelError, match=r"of 16 dimensions, and space\.dim is 8; say"):
            train(parse_recipe(table), tmp_path / "a")
        table |= {"space": {"dim": 16}, "towers": {"toy_signal": {"projection": "mlp"}}}
        with pytest.raises(ModelError, match=r"toy_signal\.projection of made:known is 'linear'"):
            train(parse_recipe(table), tmp_path / "b")


@pytest.mark.usefixtures("toys")
class TestBuildEncoder:
    def test_options_are_checked(self) -> None:
        assert build_encoder("toy_signal", "mlp", {"width": 5}).width == 5
        with pytest.raises(RecipeError, match=r"unknown key 'widht'"):
            build_encoder("toy_signal", "mlp", {"widht": 5})
        with pytest.raises(RecipeError, match=r"has no encoder 'conv'; valid: mlp"):
            build_encoder("toy_signal", "conv")

    def test_from_what_was_saved(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kind = type(build_encoder("toy_signal", "mlp"))
        monkeypatch.setattr(
            kind, "from_files", classmethod(lambda cls, folder, **options: (cls, folder, options))
        )
        rebuilt = build_encoder("toy_signal", "mlp", {"width": 5}, tmp_path)
        assert rebuilt == (kind, tmp_path, {**rebuilt[2], "width": 5})
