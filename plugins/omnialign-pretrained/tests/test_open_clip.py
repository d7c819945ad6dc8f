"""Models of open_clip, made on the spot, against what open_clip itself makes of the same files."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub.constants
import open_clip
import pytest
import torch
from omnialign_image import ImageModality
from omnialign_pretrained import ENCODERS
from omnialign_text import Text
from PIL import Image
from safetensors.torch import load_file, save_file

import omnialign as oa
from omnialign.contract import Modality
from omnialign.errors import ModelError
from omnialign.testing import ModalityConformance

VIT = {"image_size": 32, "layers": 2, "width": 32, "patch_size": 8, "head_width": 16}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}
TRUNK = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear"}
TEXT = {"width": 32, "heads": 2, "layers": 2}
SIGLIP = TEXT | {
    "context_length": 12,
    "vocab_size": 40,
    "hf_tokenizer_name": "an/elsewhere",
    "tokenizer_kwargs": {"clean": "canonicalize"},
    "no_causal_mask": True,
    "proj_bias": True,
    "pool_type": "last",
}
BERT = {
    "context_length": 12,
    "hf_model_name": "an/elsewhere",
    "hf_tokenizer_name": "an/elsewhere",
    "hf_proj_type": "linear",
    "hf_pooler_type": "mean_pooler",
}
MODELS: dict[str, dict[str, Any]] = {
    "vit": {"quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {"vision_cfg": RESNET, "text_cfg": TEXT},
    "custom": {"custom_text": True, "vision_cfg": VIT, "text_cfg": TEXT | {"embed_cls": True}},
    "siglip": {
        "custom_text": True,
        "init_logit_bias": -10,
        "vision_cfg": TRUNK,
        "text_cfg": SIGLIP,
    },
    "bert": {"vision_cfg": VIT, "text_cfg": BERT},
}
LONG = "a photo of two dogs and a red ball " * 20
TEXTS = ["a red dog", "Two DOGS & a ball…", "a", LONG]


def write_words(folder: Path) -> None:
    """A tokenizer of a few words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "two", "red", "dog", "dogs", "ball", "photo"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    ).save_pretrained(folder)


def write_model(folder: Path, kind: str) -> None:
    from transformers import BertConfig

    folder.mkdir()
    config = json.loads(json.dumps({"embed_dim": 16} | MODELS[kind]))
    if kind in ("siglip", "bert"):
        write_words(folder)
    if kind == "bert":
        about = BertConfig(
            vocab_size=40,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
        )
        about.save_pretrained(folder / "text_config")
        config["text_cfg"]["hf_model_name"] = str(folder / "text_config")
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}
    if kind == "siglip":
        preprocess |= {"resize_mode": "squash", "interpolation": "bilinear"}
    whole = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(whole))
    torch.manual_seed(3)
    kwargs = {k: v for k, v in config.items() if k != "custom_text"}
    if kind == "bert":
        kwargs["text_cfg"]["hf_model_pretrained"] = False
    is_custom = kind in ("custom", "siglip", "bert")
    model = (open_clip.CustomTextCLIP if is_custom else open_clip.CLIP)(**kwargs)
    state = model.state_dict()
    if kind == "resnet":
        for name, tensor in state.items():
            if name.endswith("running_mean"):
                tensor.normal_(std=0.1)
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(state, folder / "open_clip_model.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("open_clip")

    def model(kind: str) -> Path:
        if not (root / kind).exists():
            write_model(root / kind, kind)
        return root / kind

    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    paths = []
    for i, size in enumerate([(200, 130), (50, 90), (33, 32)]):
        pixels = torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(i))
        small = Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy())
        paths.append(tmp_path_factory.mktemp("photos") / f"{i}.jpg")
        small.resize(size, Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


@pytest.mark.parametrize("kind", MODELS)
@torch.no_grad()
def test_embeddings_are_those_of_open_clip(
    kind: str, made: Callable[[str], Path], photos: list[Path], tmp_path: Path
) -> None:
    folder = made(kind)
    space = oa.load(f"open_clip:{folder}", "cpu")
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in photos])
    images = model.encode_image(pixels, normalize=True)
    texts = model.encode_text(tokenizer(TEXTS), normalize=True)
    torch.testing.assert_close(space.embed(photos, "image"), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(space.embed(TEXTS, "text"), texts, rtol=0, atol=1e-5)
    assert space.logit_scale("text", "image").item() == pytest.approx(model.logit_scale.exp())
    if model.logit_bias is not None:
        assert space.logit_bias("text", "image") == model.logit_bias
    space.save(tmp_path / "saved")
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    try:
        again = oa.load(tmp_path / "saved", "cpu")
    finally:
        shutil.move(moved, folder)
    assert again.fingerprint() == space.fingerprint()
    torch.testing.assert_close(again.embed(TEXTS, "text"), texts, rtol=0, atol=1e-5)


class TestSomeTowers:
    @pytest.mark.parametrize("kind", ["vit", "resnet", "custom"])
    def test_no_byte_of_the_other_is_read(
        self, kind: str, made: Callable[[str], Path], photos: list[Path], tmp_path: Path
    ) -> None:
        exact = oa.load(f"open_clip:{made(kind)}", "cpu").embed(photos, "image")
        folder = shutil.copytree(made(kind), tmp_path / "copy")
        file = next(f for f in folder.iterdir() if f.suffix in (".safetensors", ".bin"))
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file)
        data = file.read_bytes()
        for name, tensor in state.items():
            if not name.startswith(("visual.", "logit_")) and tensor.std() > 0:
                raw = tensor.numpy().tobytes()
                assert raw in data
                data = data.replace(raw, b"\xff" * len(raw))
        file.write_bytes(data)
        part = oa.load(f"open_clip:{folder}", "cpu", modalities=["image"])
        assert part.modalities == ["image"]
        assert part.embed(photos, "image").equal(exact)
        assert oa.load(f"open_clip:{folder}", "cpu").embed(["a dog"], "text").isnan().any()

    def test_an_encoder_alone(self, made: Callable[[str], Path]) -> None:
        encoder = oa.build_encoder("text", "open_clip", {"model": str(made("vit"))}).eval()
        whole = oa.load(f"open_clip:{made('vit')}", "cpu").tower("text").encoder
        ids = torch.stack([encoder.preprocess(t) for t in TEXTS])
        assert encoder(ids).equal(whole(ids))


class TestNames:
    def test_of_the_hub(
        self, made: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cache as the hub's library leaves it, with one branch."""
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        commit = "0123456789abcdef0123456789abcdef01234567"
        cache = tmp_path / "models--laion--CLIP-tiny"
        shutil.copytree(made("vit"), cache / "snapshots" / commit)
        for branch in ("main", "later"):
            (cache / "refs").mkdir(exist_ok=True)
            (cache / "refs" / branch).write_text(commit)
        local = oa.load(f"open_clip:{made('vit')}", "cpu").embed(TEXTS, "text")
        for name in ("laion/CLIP-tiny", "hf-hub:laion/CLIP-tiny@later"):
            space = oa.load(f"open_clip:{name}", "cpu")
            assert space.embed(TEXTS, "text").equal(local)
            assert space.tower("text").config["encoder"]["revision"] == commit
        with pytest.raises(ModelError, match="is on this machine and has no revision 'later'"):
            oa.load(f"open_clip:{made('vit')}@later")
        with pytest.raises(ModelError, match=r"the hub gave no open_clip_config\.json of 'laion/x"):
            oa.load("open_clip:laion/x", "cpu")

    def test_a_training_checkpoint(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        state = load_file(made("vit") / "open_clip_model.safetensors")
        optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
        whole = {
            "epoch": 3,
            "name": "run",
            "state_dict": {f"module.{name}": tensor.half() for name, tensor in state.items()},
            "optimizer": optimizer.state_dict(),
        }
        file = tmp_path / "epoch_3.pt"
        exact = oa.load(f"open_clip:{made('vit')}", "cpu").embed(TEXTS, "text")
        for is_old in (False, True):
            torch.save(whole, file, _use_new_zipfile_serialization=not is_old)
            if not is_old:
                with pytest.raises(ModelError, match=r"has no open_clip_config\.json"):
                    oa.load(f"open_clip:{file}", "cpu")
                shutil.copy(made("vit") / "open_clip_config.json", tmp_path)
            found = oa.load(f"open_clip:{file}", "cpu").embed(TEXTS, "text")
            torch.testing.assert_close(found, exact, rtol=0, atol=2e-3)

    def test_a_custom_text_tower_under_the_old_names(
        self, made: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(made("vit"), tmp_path / "copy")
        config = json.loads((folder / "open_clip_config.json").read_text())
        config["model_cfg"]["custom_text"] = True
        (folder / "open_clip_config.json").write_text(json.dumps(config))
        exact = oa.load(f"open_clip:{made('vit')}", "cpu").embed(TEXTS, "text")
        assert oa.load(f"open_clip:{folder}", "cpu").embed(TEXTS, "text").equal(exact)


class TestMistakes:
    def test_names_of_weights_that_do_not_fit(
        self, made: Callable[[str], Path], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(made("vit"), tmp_path / "copy")
        file = folder / "open_clip_model.safetensors"
        state = load_file(file)
        taken = state.pop("visual.ln_post.bias")
        save_file(state | {"visual.ln_last.bias": taken, "extra": taken.clone()}, file)
        expected = r"missing visual\.ln_post\.bias; unexpected extra, visual\.ln_last\.bias"
        with pytest.raises(ModelError, match=expected):
            oa.load(f"open_clip:{folder}")
        with pytest.raises(ModelError, match=r"missing none; unexpected extra$"):
            oa.load(f"open_clip:{folder}", modalities=["text"])
        save_file(state | {"visual.ln_post.bias": taken[:5].clone()}, file)
        with pytest.raises(ModelError, match=r"visual\.ln_post\.bias \(5,\) for \(32,\)"):
            oa.load(f"open_clip:{folder}")

    def test_a_model_that_is_not_read(self, made: Callable[[str], Path], tmp_path: Path) -> None:
        folder = shutil.copytree(made("vit"), tmp_path / "copy")
        file = folder / "open_clip_config.json"
        config = json.loads(file.read_text())
        config["model_cfg"]["multimodal_cfg"] = {}
        file.write_text(json.dumps(config))
        with pytest.raises(ModelError, match="is a CoCa"):
            oa.load(f"open_clip:{folder}")
        config["model_cfg"] = {"embed_dim": 16, "text_cfg": {}, "vision_cfg": {"sise": 3}}
        file.write_text(json.dumps(config))
        with pytest.raises(ModelError, match=r"cannot build this model: .*'sise'"):
            oa.load(f"open_clip:{folder}")
        file.write_text("[")
        with pytest.raises(ModelError, match=r"open_clip_config\.json' is damaged"):
            oa.load(f"open_clip:{folder}")

    def test_without_the_library(
        self, made: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "open_clip", None)
        with pytest.raises(ModelError, match=r"pip install 'omnialign-pretrained\[open-clip\]'"):
            oa.load(f"open_clip:{made('vit')}")


def conforming(modality: Modality[Any]) -> type[ModalityConformance]:
    class Conformance(ModalityConformance):
        encoders: ClassVar = {"open_clip": ENCODERS[modality.name]["open_clip"]}

        def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any]:
            if not (folder / "made").exists():
                write_model(folder / "made", "custom")
            return {"model": str(folder / "made")}

    Conformance.modality = modality
    return Conformance


TestImageConformance = conforming(ImageModality())
TestTextConformance = conforming(Text())
