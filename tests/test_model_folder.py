"""Saved models: exact, complete or refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import omnialign as oa
from omnialign.building import build
from omnialign.errors import ModalityError, ModelError, OmniAlignError
from omnialign.model_folder import load, save
from omnialign.recipe import parse_recipe
from omnialign.registry import Registry
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
SIGNALS = [torch.linspace(-1, k, 3 + 4 * k) for k in range(5)]


@pytest.fixture
def space() -> SharedSpace:
    table = toy.recipe()
    table["towers"] = {
        "toy_signal": {
            "encoder": {"name": "mlp", "window_seconds": 4.0, "dropout": 0.3},
            "projection": "mlp",
            "long_input": "truncate",
        }
    }
    table["pairs"].append({"modalities": ["toy_echo", "toy_signal"], "train": "rows"})
    torch.manual_seed(0)
    made = build(parse_recipe(table))
    with torch.no_grad():
        made.log_scales["toy_signal-toy_words"].fill_(3.0)
    return made


@pytest.fixture
def folder(space: SharedSpace, tmp_path: Path) -> Path:
    space.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_round_trip_is_exact(space: SharedSpace, folder: Path) -> None:
    again = oa.load(folder)
    assert again.fingerprint() == space.fingerprint()
    assert again.config() == space.config()
    assert not again.training
    assert again.embed(SIGNALS, "toy_signal").equal(space.embed(SIGNALS, "toy_signal"))
    assert again.embed(["a", "b"]).equal(space.embed(["a", "b"]))
    assert again.logit_scale("toy_signal", "toy_words").log().item() == pytest.approx(3)
    assert again.pairs == [("toy_signal", "toy_words"), ("toy_echo", "toy_signal")]


class TestSizes:
    @pytest.fixture
    def sized(self, tmp_path: Path) -> Path:
        table = toy.recipe()
        table["space"] |= {"matryoshka": [4, 8], "shared_temperature": True}
        table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": "rows"})
        build(parse_recipe(table)).save(tmp_path / "sized")
        return tmp_path / "sized"

    def test_a_model_is_loaded_in_a_size_that_it_was_trained_for(self, sized: Path) -> None:
        whole, small = load(sized), load(sized, dim=4)
        assert (whole.dim, small.dim) == (16, 4)
        assert whole.matryoshka == [4, 8]
        assert [*whole.log_scales] == ["shared"]
        expected = torch.nn.functional.normalize(whole.embed(["a", "b"])[:, :4], dim=1)
        torch.testing.assert_close(small.embed(["a", "b"]), expected)
        assert small.fingerprint() != whole.fingerprint()
        with pytest.raises(ModelError, match="cut to 5 dimensions; it was trained for: 4, 8, 16"):
            load(sized, dim=5)

    def test_a_truncated_model_stays_so(self, sized: Path, tmp_path: Path) -> None:
        small = load(sized, dim=4)
        small.save(tmp_path / "small")
        again = load(tmp_path / "small")
        assert again.dim == 4
        assert again.fingerprint() == small.fingerprint()
        assert load(tmp_path / "small", dim=16).fingerprint() == load(sized).fingerprint()

    def test_models_without_sizes_are_as_they_were(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        assert not {"matryoshka", "truncated_to", "shared_temperature"} & config.keys()
        with pytest.raises(ModelError, match=r"train with space\.matryoshka"):
            load(folder, dim=8)


def test_biases_are_part_of_the_model(space: SharedSpace, folder: Path, tmp_path: Path) -> None:
    """Of a model without any, nothing is written, so folders from before they were saved load."""
    assert "biased_pairs" not in json.loads((folder / "config.json").read_text())
    assert not [n for n in load_file(folder / "model.safetensors") if n.startswith("logit_biases")]
    assert space.logit_bias("toy_signal", "toy_words") is None
    table = toy.recipe()
    table["space"]["shared_temperature"] = True
    table["pairs"][0]["loss"] = "sigmoid"
    table["pairs"] += [
        {**table["pairs"][0], "modalities": ["toy_words", "toy_signal"]},
        {**table["pairs"][0], "modalities": ["toy_echo", "toy_words"], "loss": "info_nce"},
    ]
    made = build(parse_recipe(table))
    (bias,) = made.logit_biases.values()
    with torch.no_grad():
        bias.fill_(-3.0)
    made.save(tmp_path / "biased")
    again = load(tmp_path / "biased")
    found = again.logit_bias("toy_words", "toy_signal")
    assert found is not None
    assert found.item() == -3
    assert again.logit_bias("toy_echo", "toy_words") is None
    assert again.config() == made.config()
    assert again.fingerprint() == made.fingerprint()


class TestByTower:
    @pytest.fixture
    def apart(self, space: SharedSpace, tmp_path: Path) -> Path:
        save(space, tmp_path / "apart", by_tower=True)
        return tmp_path / "apart"

    def test_each_tower_has_a_file(self, space: SharedSpace, apart: Path, folder: Path) -> None:
        names = {path.stem for path in (apart / "weights").iterdir()}
        assert names == {"toy_signal", "toy_words", "toy_echo"}
        whole = load_file(folder / "model.safetensors")
        parts = [load_file(path) for path in apart.rglob("*.safetensors")]
        assert sum(map(len, parts)) == len(whole)
        assert load(apart).fingerprint() == space.fingerprint()

    def test_files_of_others_may_be_missing(self, space: SharedSpace, apart: Path) -> None:
        (apart / "weights" / "toy_signal.safetensors").unlink()
        words = load(apart, modalities=["toy_words", "toy_echo"])
        assert words.embed(["a"]).equal(space.embed(["a"]))
        with pytest.raises(ModelError, match=r"does not fit .* missing \['towers\.toy_signal"):
            load(apart)

    def test_a_whole_file_counts_before_what_lies_beside_it(
        self, space: SharedSpace, apart: Path
    ) -> None:
        with torch.no_grad():
            space.tower("toy_signal").projection[0].bias.fill_(1.0)
        save(space, apart)
        assert load(apart).fingerprint() == space.fingerprint()


def test_the_folder_holds_no_more_than_it_must(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert files == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["fingerprint"] == load(folder).fingerprint()
    assert "omnialign" not in config["towers"]


def test_whoever_may_read_one_file_may_read_all(folder: Path) -> None:
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()}
    assert len(modes) == 1


def test_saving_again_replaces(space: SharedSpace, folder: Path) -> None:
    with torch.no_grad():
        space.log_scales["toy_signal-toy_words"].fill_(1.0)
    save(space, folder)
    assert load(folder).fingerprint() == space.fingerprint()


def test_files_of_an_encoder_travel(
    toys: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Vocabulary(toy.HashedWords):
        def __init__(self, width: int = 16) -> None:
            super().__init__(width)
            self.words = "unknown"

        def save_files(self, folder: Path) -> None:
            (folder / "words.txt").write_text("known")

        @classmethod
        def from_files(cls, folder: Path, **options: Any) -> "Vocabulary":
            made = cls(**options)
            made.words = (folder / "words.txt").read_text()
            return made

    monkeypatch.setattr(toys.modality("toy_words"), "encoders", {"hashed": Vocabulary})
    build(parse_recipe(toy.recipe())).save(tmp_path)
    assert load(tmp_path).tower("toy_words").encoder.words == "known"
    (tmp_path / "encoders" / "toy_words" / "words.txt").unlink()
    with pytest.raises(ModelError, match=r"toy_words encoder 'hashed' cannot be rebuilt.*words"):
        load(tmp_path)


def change(key: str, value: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[key] = value
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def without(key: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        del config[key]
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def weights(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return apply


LAYER = "towers.toy_signal.encoder.layers.0.bias"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing; give the --output"),
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json is damaged"),
        (lambda f: (f / "config.json").write_bytes(b"\xff"), r"config\.json is damaged"),
        (lambda f: (f / "config.json").write_text("[]"), r"config\.json is damaged"),
        (change("format", 2), r"config\.json has format 2; this version of OmniAlign reads 1"),
        (change("dim", "wide"), r"config\.json: 'dim' is 'wide'"),
        (change("towers", []), r"config\.json: 'towers'"),
        (without("towers"), r"config\.json: 'towers' is missing"),
        (change("preprocessing", "other"), "preprocess differently"),
        (change("fingerprint", "other"), r"model\.safetensors holds other weights"),
        (change("dim", 8), "preprocess differently"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"x" * 100),
            r"model\.safetensors is damaged",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes(
                (f / "model.safetensors").read_bytes()[:-9]
            ),
            r"model\.safetensors is damaged",
        ),
        (weights(lambda s: s.pop(LAYER)), r"model\.safetensors does not fit .* missing \['towers"),
        (weights(lambda s: s.update(more=torch.zeros(1))), r"unexpected \['more'\]"),
        (
            weights(lambda s: s.update({LAYER: torch.zeros(3)})),
            r"of another shape \['towers\.toy_signal",
        ),
        (
            weights(lambda s: s.update({LAYER: s[LAYER] + 1})),
            r"model\.safetensors holds other weights",
        ),
    ],
)
def test_what_is_not_whole_is_refused(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_modality_that_is_no_longer_installed(
    toys: Registry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(toys.modalities, "toy_echo")
    with pytest.raises(OmniAlignError, match="no installed plugin provides modality 'toy_echo'"):
        load(folder)


def test_a_run_without_its_model(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(ModelError, match=r"not come to its end: config\.json is .* --resume$"):
        load(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model folder at .*nowhere"):
        load(tmp_path / "nowhere")


def test_a_model_of_another_library(
    tmp_path: Path, toys: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys, "formats", {"made": "nowhere:read", "also": "nowhere:read"})
    (tmp_path / "config.json").write_text('{"model_type": "odd", "architectures": ["OddModel"]}')
    with pytest.raises(ModelError, match=rf"saved; say SCHEME:{tmp_path} .*: also:, made: \(omni"):
        load(tmp_path)
    with pytest.raises(ModelError, match=r"on the hub, say SCHEME:ada/birds .*: also:, made:$"):
        load("ada/birds")
    with pytest.raises(ModelError, match=r"--output of a training run$"):
        load("some/deep/folder")


@pytest.mark.parametrize("modalities", ["toy_signal", "", []])
def test_modalities_that_are_no_list(folder: Path, modalities: Any) -> None:
    with pytest.raises(ModalityError, match=r"is no list of modalities; say modalities = .*leave"):
        load(folder, modalities=modalities)


def test_it_never_unpickles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load(folder)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot be saved in '.*/file': .*; choose a folder"):
        build(parse_recipe(toy.recipe())).save(tmp_path / "file")
