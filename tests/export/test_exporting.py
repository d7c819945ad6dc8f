"""Files for other runtimes, of toy towers."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from omnialign.building import build
from omnialign.encoder import pad_and_stack
from omnialign.errors import ModelError, OmniAlignError, ReadError
from omnialign.export import export_tower
from omnialign.export import exporting as module
from omnialign.export.formats import Format, open_file
from omnialign.recipe import Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

FORMATS: list[Format] = ["onnx", "torch-export", "openvino"]

pytestmark = pytest.mark.usefixtures("toys")


def toy_recipe(**options: Any) -> Recipe:
    table = toy.recipe()
    table["space"] = {"dim": 16, "matryoshka": [4]}
    table["towers"] = {"toy_signal": {"encoder": {"name": "mlp", **options}}}
    return parse_recipe(table)


@pytest.fixture
def recipe() -> Recipe:
    return toy_recipe()


@pytest.fixture
def space(recipe: Recipe) -> SharedSpace:
    torch.manual_seed(0)
    return build(recipe)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_gives_what_embed_gives(
    space: SharedSpace, recipe: Recipe, format: Format, tmp_path: Path
) -> None:
    done = export_tower(space, "toy_words", format, tmp_path, recipe=recipe)
    run = open_file(format, done.file)
    texts = ["low", "high rising and trembling", "middle flat calm low low low low"]
    inputs = [space.tower("toy_words").pipeline.preprocess(text) for text in texts]
    torch.testing.assert_close(run(pad_and_stack(inputs)), space.embed(texts, "toy_words"))
    one = run(pad_and_stack(inputs[:1]))
    torch.testing.assert_close(one, space.embed(texts[:1], "toy_words"))
    checked = done.description["verification"]
    assert checked["minimum_cosine"] > 0.9999
    assert checked["num_samples"] > 20
    assert checked["samples"] == "test rows of data 'unseen' in the run's recipe"
    assert not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("format", FORMATS)
def test_the_description_says_what_a_server_has_to_know(
    space: SharedSpace, recipe: Recipe, format: Format, tmp_path: Path
) -> None:
    done = export_tower(space, "toy_words", format, tmp_path, recipe=recipe)
    told = json.loads(done.description_file.read_text("utf-8"))
    tower = space.tower("toy_words")
    assert told == json.loads(json.dumps(done.description))
    assert told["encoder"] == {"name": "hashed", "width": 16, "num_buckets": 512}
    assert told["preprocess"] == "WordBuckets(num_buckets=512)"
    assert told["collate"] == "omnialign.encoder.pad_and_stack"
    assert told["preprocess_does"] == inspect.getdoc(toy.WordBuckets)
    assert told["collate_does"] == inspect.getdoc(pad_and_stack)
    assert told["encoder_does"] == inspect.getdoc(toy.HashedWords)
    others = ["toy_words.bin"] if format == "openvino" else []
    assert told["files"] == [done.file.name, *others]
    assert all(file.is_file() for file in done.files)
    assert told["tower_fingerprint"] == tower.fingerprint()
    assert told["model_fingerprint"] == space.fingerprint()
    assert told["inputs"] == [
        {"name": "values", "dtype": "int64", "shape": ["n", "length"]},
        {"name": "mask", "dtype": "bool", "shape": ["n", "length"]},
    ]
    assert told["output"] == {"name": "embeddings", "dtype": "float32", "shape": ["n", 16]}
    assert told["versions"]["torch"] == torch.__version__


def test_the_example_is_what_the_file_gives(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    done = export_tower(space, "toy_words", "torch-export", tmp_path, recipe=recipe)
    with safe_open(done.example, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        names = json.loads(opened.metadata()["samples"])
    wanted = tensors.pop("embeddings")
    torch.testing.assert_close(open_file("torch-export", done.file)(tensors), wanted)
    torch.testing.assert_close(space.embed(names, "toy_words"), wanted)


def test_an_onnx_file_describes_itself_and_names_its_axes(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    import onnxruntime

    done = export_tower(space, "toy_signal", "onnx", tmp_path, recipe=recipe)
    session = onnxruntime.InferenceSession(done.file)
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("inputs", ["n", 12])]
    assert [(i.name, i.shape) for i in session.get_outputs()] == [("embeddings", ["n", 16])]
    told = json.loads(session.get_modelmeta().custom_metadata_map["omnialign"])
    assert told["preprocess"] == "Resample(num_points=12)"


def test_a_cut_model_gives_short_vectors(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    space.truncate(4)
    done = export_tower(space, "toy_words", "onnx", tmp_path, recipe=recipe)
    tower = space.tower("toy_words")
    batch = tower.pipeline.collate([tower.pipeline.preprocess("high flat calm")])
    found = open_file("onnx", done.file)(batch)
    torch.testing.assert_close(found, space.embed(["high flat calm"], "toy_words"))
    assert found.shape == (1, 4)


class Drifting(nn.Module):
    """Where it is served, it gives something else than in the model."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.flip(-1) if torch.compiler.is_exporting() else vectors


def test_a_file_that_gives_something_else_is_not_kept(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    file = tmp_path / "words.pt2"
    file.write_text("an older export")
    tower = space.tower("toy_words")
    tower.projection = nn.Sequential(tower.projection, Drifting())
    with pytest.raises(ModelError, match=r"words\.pt2 is not kept: its vector of .* a cosine of"):
        export_tower(space, "toy_words", "torch-export", file, recipe=recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["words.pt2"]
    assert file.read_text() == "an older export"


class Deciding(nn.Module):
    """Looks at values to decide what to do."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors if float(vectors.sum()) > 0 else -vectors


def test_an_encoder_that_cannot_be_traced_is_named(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    tower = space.tower("toy_signal")
    tower.encoder.add_module("layers", nn.Sequential(tower.encoder.layers, Deciding()))
    with pytest.raises(ModelError, match="the toy_signal encoder 'mlp' cannot be exported"):
        export_tower(space, "toy_signal", "onnx", tmp_path, recipe=recipe)


class OfThree(nn.Module):
    """Takes a batch of the one size that it was traced with."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors + torch.zeros(3, 1)


def test_what_torch_advises_its_own_people_is_not_told(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    tower = space.tower("toy_signal")
    tower.encoder.add_module("layers", nn.Sequential(tower.encoder.layers, OfThree()))
    with pytest.raises(ModelError, match="by the values or the size of a batch: ") as raised:
        export_tower(space, "toy_signal", "onnx", tmp_path, recipe=recipe)
    assert "TORCH_LOGS" in str(raised.value.__cause__)
    assert "TORCH_LOGS" not in str(raised.value)
    assert not str(raised.value).endswith(("batch: ", "batch: RuntimeError"))


def test_samples_that_are_given_are_those_it_is_checked_on(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "signals"
    folder.mkdir()
    for k in range(3):
        toy.write_signal(folder / f"{k}.toy", [float(k), 1.0, 2.0])
    done = export_tower(
        space, "toy_signal", "torch-export", tmp_path / "out", recipe=recipe, samples=[folder]
    )
    assert done.description["verification"]["num_samples"] == 3
    assert done.description["verification"]["samples"] == "given samples"
    with pytest.raises(ReadError, match=r"none\.toy"):
        export_tower(space, "toy_signal", "onnx", tmp_path, samples=[tmp_path / "none.toy"])
    with pytest.raises(OmniAlignError, match="holds no file of toy_signal"):
        export_tower(space, "toy_signal", "onnx", tmp_path, samples=[tmp_path / "out"])


def test_without_test_rows_the_plugins_own_samples_serve_and_the_file_says_so(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    done = export_tower(space, "toy_signal", "torch-export", tmp_path)
    told = done.description["verification"]["samples"]
    assert told == "example samples of the plugin, because there is no recipe beside the model"


def test_windows_of_a_long_sample_are_each_checked(tmp_path: Path) -> None:
    recipe = toy_recipe(window_seconds=5.0)
    done = export_tower(build(recipe), "toy_signal", "torch-export", tmp_path, recipe=recipe)
    checked = done.description["verification"]
    assert checked["num_inputs"] > 2 * checked["num_samples"]
    assert done.description["segments_of_one_item"].startswith("mean of their embeddings")


def test_the_model_is_left_as_it_was(space: SharedSpace, recipe: Recipe, tmp_path: Path) -> None:
    space.train()
    before = space.fingerprint()
    export_tower(space, "toy_words", "torch-export", tmp_path, recipe=recipe)
    assert space.training
    assert space.tower("toy_words").training
    assert space.fingerprint() == before


def test_a_suffix_of_another_format_is_refused(space: SharedSpace, tmp_path: Path) -> None:
    with pytest.raises(OmniAlignError, match=r"--format openvino ends in \.xml"):
        export_tower(space, "toy_words", "openvino", tmp_path / "words.onnx")


def test_a_missing_package_is_named_with_the_command(
    space: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(OmniAlignError, match=r"wants openvino.*pip install 'omnialign\[openvino\]"):
        export_tower(space, "toy_words", "openvino", tmp_path)


class TestInt8:
    def test_what_it_loses_has_to_be_accepted(
        self, space: SharedSpace, recipe: Recipe, tmp_path: Path
    ) -> None:
        with pytest.raises(OmniAlignError, match=r"int8 loses .* of recall at most on .* pairs"):
            export_tower(space, "toy_signal", "onnx", tmp_path, recipe=recipe, int8=True)
        assert not list(tmp_path.iterdir())
        done = export_tower(
            space, "toy_signal", "onnx", tmp_path, recipe=recipe, int8=True, max_loss=0.5
        )
        assert done.file.name == "toy_signal.int8.onnx"
        told = done.description["retrieval"]
        assert told["largest_loss"] <= 0.5
        assert set(told["directions"]) == {"toy_signal_to_toy_words", "toy_words_to_toy_signal"}
        assert 0.9 < done.description["verification"]["minimum_cosine"] < 1

    def test_more_than_is_allowed_is_not_kept(
        self,
        space: SharedSpace,
        recipe: Recipe,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        measured = module.retrieval_loss

        def worse(space: SharedSpace, modality: str, run: Any, recipe: Recipe) -> dict[str, Any]:
            return measured(space, modality, lambda batch: run(batch).flip(0), recipe)

        monkeypatch.setattr(module, "retrieval_loss", worse)
        space = trained(recipe, tmp_path / "run")
        with pytest.raises(OmniAlignError, match=r"that is more than --max-loss 0\.05"):
            export_tower(
                space, "toy_signal", "onnx", tmp_path, recipe=recipe, int8=True, max_loss=0.05
            )
        assert not list(tmp_path.glob("*.onnx"))

    def test_what_cannot_be_measured_is_not_passed_over(
        self, space: SharedSpace, tmp_path: Path
    ) -> None:
        with pytest.raises(OmniAlignError, match="cannot be measured: there is no recipe"):
            export_tower(space, "toy_signal", "onnx", tmp_path, int8=True, max_loss=0.5)
        done = export_tower(space, "toy_signal", "onnx", tmp_path, int8=True, max_loss=1.0)
        assert "not_measured" in done.description["retrieval"]

    @pytest.mark.parametrize("format", ["torch-export", "openvino"])
    def test_other_formats_have_none(
        self, space: SharedSpace, format: Format, tmp_path: Path
    ) -> None:
        with pytest.raises(OmniAlignError, match="int8 is there for --format onnx"):
            export_tower(space, "toy_words", format, tmp_path, int8=True)


def trained(recipe: Recipe, folder: Path) -> SharedSpace:
    from omnialign.engine import train

    return train(recipe, folder)


class Unheard(nn.Module):
    """What ONNX has no operation for."""

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors + torch.special.airy_ai(vectors)


def test_an_encoder_that_a_format_cannot_hold_is_named(
    space: SharedSpace, recipe: Recipe, tmp_path: Path
) -> None:
    tower = space.tower("toy_signal")
    tower.projection = nn.Sequential(tower.projection, Unheard())
    with pytest.raises(ModelError, match="onnx cannot hold the toy_signal encoder 'mlp'"):
        export_tower(space, "toy_signal", "onnx", tmp_path, recipe=recipe)
    assert not list(tmp_path.iterdir())
    export_tower(space, "toy_signal", "torch-export", tmp_path, recipe=recipe)
