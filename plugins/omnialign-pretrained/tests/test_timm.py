"""Networks of timm, against what timm itself makes of a file."""

import pickle
import sys
from pathlib import Path
from typing import ClassVar

import huggingface_hub.constants
import pytest
import timm
import torch
from omnialign_image import ImageModality
from omnialign_pretrained import ENCODERS
from omnialign_pretrained.from_timm import TimmEncoder
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config

import omnialign as oa
from omnialign.building import build
from omnialign.errors import ModelError
from omnialign.recipe import parse_recipe
from omnialign.registry import registry
from omnialign.testing import ModalityConformance


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0))
    small = Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())
    small.resize((230, 190), Image.Resampling.BICUBIC).save(tmp_path / "photo.jpg", quality=90)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_vit3.r160_in1k"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@torch.no_grad()
def test_features_are_those_of_timm(name: str, suffix: str, tmp_path: Path, photo: Path) -> None:
    torch.manual_seed(1)
    network = timm.create_model(name).eval()
    weights = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"epoch": 3, "state_dict": network.state_dict()}, weights)
    else:
        save_file(network.state_dict(), weights)
    encoder = oa.build_encoder("image", "timm", {"model": name, "weights": str(weights)}).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    pixels = transform(Image.open(photo))[None]
    exact = network.forward_head(network.forward_features(pixels), pre_logits=True)
    sample = registry().modality("image").read(photo)
    torch.testing.assert_close(encoder(encoder.preprocess(sample)[None]), exact, rtol=0, atol=1e-5)
    assert encoder.width == exact.shape[1]


def test_a_space_is_saved_and_loaded_without_the_file(tmp_path: Path, photo: Path) -> None:
    torch.manual_seed(1)
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_vit").state_dict(), weights)
    encoder = {"name": "timm", "model": "test_vit", "weights": str(weights)}
    table = {
        "towers": {"image": {"encoder": encoder}},
        "data": {"none": {"source": {"name": "manifest", "path": "none"}}},
        "pairs": [{"modalities": ["image", "text"], "train": "none"}],
    }
    space = build(parse_recipe(table))
    space.eval().save(tmp_path / "saved")
    weights.unlink()
    again = oa.load(tmp_path / "saved", "cpu")
    assert again.embed([photo], "image").equal(space.embed([photo], "image"))


class TestMistakes:
    @pytest.mark.parametrize("name", ["test_vitt", "test_vit.r161_in1k"])
    def test_a_name_that_is_near(self, name: str) -> None:
        with pytest.raises(ModelError, match=f"timm has no model '{name}'; near it: .*test_vi"):
            TimmEncoder(name)

    def test_weights_that_do_not_fit(self, tmp_path: Path) -> None:
        file = tmp_path / "weights.pth"
        torch.save(timm.create_model("test_vit").state_dict(), file)
        with pytest.raises(ModelError, match=r"missing .*layer1\.0\.bn1\.bias.*; unexpected "):
            TimmEncoder("test_resnet", weights=str(file))
        file.write_bytes(pickle.dumps(Path("x")))
        with pytest.raises(ModelError, match="nothing else is loaded"):
            TimmEncoder("test_resnet", weights=str(file))
        with pytest.raises(ModelError, match=r"pretrained or weights = .*, not both"):
            TimmEncoder("test_resnet", pretrained=True, weights=str(file))

    def test_weights_that_cannot_be_downloaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="timm does not give 'test_byobnet'"):
            TimmEncoder("test_byobnet", pretrained=True)

    def test_without_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(ModelError, match=r"pip install 'omnialign-pretrained\[timm\]'"):
            TimmEncoder("test_vit")


class TestConformance(ModalityConformance):
    modality = ImageModality()
    encoders: ClassVar = {"timm": ENCODERS["image"]["timm"]}
    encoder_options: ClassVar = {"timm": {"model": "test_vit"}}
