"""Whole models beside the originals: embeddings, zero-shot probabilities, some towers only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omnialign_audio import Waveform
from PIL import Image
from torch.nn import functional as F  # noqa: N812
from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    CLIPModel,
)

import omnialign as oa
from omnialign.engine import train
from omnialign.errors import ModalityError, ModelError, OmniAlignError
from omnialign.recipe import parse_recipe

LABELS = ["a red circle", "two blue squares", "a long line of words that goes on and on " * 4]
Checkpoint = Callable[[str], str]


@pytest.fixture
def picture() -> Image.Image:
    random = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (40, 56, 3), generator=random, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def sound(rate: int, seconds: float) -> Waveform:
    random = torch.Generator().manual_seed(4)
    return Waveform(0.3 * torch.randn(1, int(rate * seconds), generator=random), rate)


def asked(folder: str, picture: Image.Image, **padding: Any) -> Any:
    """What the original says of a picture and `LABELS`, its processors' way."""
    model: Any = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        LABELS, return_tensors="pt", truncation=True, **({"padding": True} | padding)
    )
    tokens = {k: v for k, v in tokens.items() if k != "token_type_ids"}
    pixels = AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
    with torch.no_grad():
        return model(**tokens, **pixels)


TO_64 = {"padding": "max_length", "max_length": 64}


@pytest.mark.parametrize(
    ("name", "padding"), [("clip", {}), ("metaclip2", {}), ("tipsv2", TO_64), ("siglip", TO_64)]
)
def test_pictures_and_words(
    checkpoint: Checkpoint, picture: Image.Image, name: str, padding: dict[str, Any], tmp_path: Path
) -> None:
    folder = checkpoint(name)
    space = oa.load(f"hf:{folder}", "cpu")
    original = asked(folder, picture, **padding)
    texts, pixels = (F.normalize(x) for x in (original.text_embeds, original.image_embeds))
    torch.testing.assert_close(space.embed(LABELS, "text"), texts, rtol=0, atol=1e-5)
    torch.testing.assert_close(space.embed([picture]), pixels, rtol=0, atol=1e-5)
    chances = space.classify(picture, LABELS)
    logits = original.logits_per_image[0]
    if name == "siglip":
        bias = space.logit_bias("image", "text")
        assert bias is not None
        assert bias.item() == pytest.approx(AutoModel.from_pretrained(folder).logit_bias.item())
    for label, wanted in zip(LABELS, logits.softmax(0).tolist(), strict=True):
        assert chances[label] == pytest.approx(wanted, abs=1e-4)
    space.save(tmp_path)
    assert oa.load(tmp_path, "cpu").fingerprint() == space.fingerprint()


def test_siglip_says_yes_or_no_of_each_label(checkpoint: Checkpoint, picture: Image.Image) -> None:
    for name in ("siglip", "siglip2", "siglip2-naflex"):
        space = oa.load(f"hf:{checkpoint(name)}", "cpu")
        wanted = asked(checkpoint(name), picture, **TO_64).logits_per_image.sigmoid()[0]
        chances = space.classify(picture, LABELS, independent=True)
        for label, chance in zip(LABELS, wanted.tolist(), strict=True):
            assert chances[label] == pytest.approx(chance, abs=1e-4)
    with pytest.raises(OmniAlignError, match="image and text have no bias"):
        oa.load(f"hf:{checkpoint('clip')}", "cpu").classify(picture, LABELS, independent=True)


def test_sounds_and_words(checkpoint: Checkpoint) -> None:
    folder = checkpoint("clap")
    space = oa.load(f"hf:{folder}", "cpu")
    model: Any = AutoModel.from_pretrained(folder).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(
        LABELS, return_tensors="pt", padding=True, truncation=True
    )
    recording = sound(8000, 1.5)
    heard = AutoFeatureExtractor.from_pretrained(folder)(
        recording.values[0].numpy(), sampling_rate=8000, return_tensors="pt"
    )
    with torch.no_grad():
        original = model(tokens["input_ids"], attention_mask=tokens["attention_mask"], **heard)
    torch.testing.assert_close(space.embed(LABELS, "text"), original.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(space.embed([recording]), original.audio_embeds, rtol=0, atol=1e-5)
    chances = space.classify(recording, LABELS)
    for label, wanted in zip(LABELS, original.logits_per_audio[0].softmax(0), strict=True):
        assert chances[label] == pytest.approx(wanted.item(), abs=1e-4)
    long = sound(8000, 9)
    assert space.embed([long]).equal(space.embed([long])), "a long recording is cut at random"


def test_clips_and_words(checkpoint: Checkpoint) -> None:
    space = oa.load(f"hf:{checkpoint('xclip')}", "cpu")
    assert space.modalities == ["text", "video"]
    assert space.logit_scale("video", "text").item() == pytest.approx(
        AutoModel.from_pretrained(checkpoint("xclip")).logit_scale.exp().item()
    )


def blotted(folder: str, to: Path, spared: tuple[str, ...]) -> Path:
    """A copy whose weights are overwritten, but for names that begin as `spared`."""
    for file in Path(folder).iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    file = to / "model.safetensors"
    data = bytearray(file.read_bytes())
    header = int.from_bytes(data[:8], "little")
    for name, about in json.loads(data[8 : 8 + header]).items():
        if name != "__metadata__" and not name.startswith(spared):
            start, end = (8 + header + offset for offset in about["data_offsets"])
            data[start:end] = b"\xff" * (end - start)
    file.write_bytes(data)
    return to


@pytest.mark.parametrize(
    ("name", "modality"),
    [("clip", "text"), ("clip", "image"), ("siglip", "text"), ("clap", "text")],
)
def test_no_byte_of_another_tower_is_read(
    checkpoint: Checkpoint, tmp_path: Path, picture: Image.Image, name: str, modality: str
) -> None:
    spared = {"text": ("text_",), "image": ("vision_", "visual_")}[modality]
    copy = blotted(checkpoint(name), tmp_path, (*spared, "logit_"))
    part = oa.load(f"hf:{copy}", "cpu", modalities=[modality])
    assert part.modalities == [modality]
    item = {"text": "a red circle", "image": picture}[modality]
    whole = oa.load(f"hf:{checkpoint(name)}", "cpu")
    assert part.embed([item], modality).equal(whole.embed([item], modality))
    other = next(m for m in whole.modalities if m != modality)
    assert part.logit_scale(modality, other).equal(whole.logit_scale(modality, other))
    spoilt = oa.load(f"hf:{copy}", "cpu", modalities=[other]).tower(other).state_dict()
    assert any(bool(x.isnan().any()) for x in spoilt.values()), "nothing was overwritten"


def test_weights_in_several_files(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("clip")
    for file in Path(folder).iterdir():
        if file.name != "model.safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    CLIPModel.from_pretrained(folder).save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    sharded = oa.load(f"hf:{tmp_path}", "cpu", modalities=["text"])
    whole = oa.load(f"hf:{folder}", "cpu")
    assert sharded.embed(LABELS, "text").equal(whole.embed(LABELS, "text"))


def test_mistakes(checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelError, match="a bert model, whose towers share no space; take it as"):
        oa.load(f"hf:{checkpoint('bert')}")
    with pytest.raises(ModalityError, match=r"no modality 'audio'; it has: image, text$"):
        oa.load(f"hf:{checkpoint('clip')}", modalities=["audio"])
    for source in ("hf:", "hf:@main"):
        with pytest.raises(ModelError, match=f"'{source}' names no model; say hf:NAME"):
            oa.load(source)
    with pytest.raises(
        ModelError, match=rf"another library saved; say SCHEME:{checkpoint('clip')} .* hf:"
    ):
        oa.load(checkpoint("clip"))


def test_it_is_the_anchor_of_a_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = checkpoint("clip")
    scenes = {"name": "scenes", "modalities": ["audio"], "num_scenes": 24}
    table = {
        "start_from": f"hf:{folder}",
        "space": {"dim": 24},
        "towers": {
            "text": {"frozen": "tower"},
            "audio": {"encoder": {"name": "conv", "width": 64, "clip_seconds": 1.0}},
        },
        "data": {"sounds": {"source": scenes}},
        "pairs": [{"modalities": ["audio", "text"], "train": "sounds"}],
        "train": {"num_steps": 3, "batch_size": 8, "trackers": []},
    }
    trained = train(parse_recipe(table), tmp_path / "run")
    anchor = oa.load(f"hf:{folder}", "cpu")
    words = ["a high tone", "two low beeps"]
    assert trained.embed(words, "text").cpu().equal(anchor.embed(words, "text"))
    again = oa.load(tmp_path / "run", "cpu")
    assert again.embed(words, "text").equal(anchor.embed(words, "text"))
    assert again.modalities == ["audio", "text"]
