"""LanguageBind's published layout in small, against a reference of torch's own layers.

Axes: n samples, F frames, L tokens, W width.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from omnialign_audio import Waveform
from omnialign_pretrained import ENCODERS
from omnialign_video import VideoModality
from omnialign_video.clip import Clip
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample
from torchvision import transforms

import omnialign as oa
from omnialign.errors import ModalityError, ModelError
from omnialign.testing import ModalityConformance

WORDS = ["<|startoftext|>", "<|endoftext|>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz!"]
NUM_WORDS = 2 * len(LETTERS) + len(WORDS)
W, DEPTH, HEADS, HIDDEN, DIM = 24, 2, 2, 48, 12
TRUNK = {
    "hidden_size": W,
    "intermediate_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": DEPTH,
    "hidden_act": "gelu",
}
VISION = TRUNK | {"image_size": 28, "patch_size": 14, "lora_r": 0}
KINDS: dict[str, dict[str, Any]] = {
    "Image": VISION,
    "Thermal": VISION,
    "Depth": VISION,
    "Video": VISION | {"add_time_attn": True, "num_frames": 4},
    "Video 1.5": VISION | {"add_time_attn": True, "num_frames": 4, "clip_type": "vl_new"},
    "Audio": VISION
    | {
        "num_mel_bins": 28,
        "target_length": 70,
        "audio_mean": -4.2677393,
        "audio_std": 4.5689974,
        "lora_r": 2,
        "lora_alpha": 16,
    },
}
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])
DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])
TEXTS = ["a dog", "Two cats!", "abc " * 99]


def published(kind: str) -> dict[str, tuple[int, ...]]:
    """All names of a published file, and small shapes."""
    stated = KINDS[kind]
    num_tokens = 11 if kind == "Audio" else 5
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual_projection.weight": (DIM, W),
        "text_projection.weight": (DIM, W),
        "vision_model.embeddings.class_embedding": (W,),
        "vision_model.embeddings.position_ids": (1, num_tokens),
        "vision_model.embeddings.patch_embedding.weight": (W, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (num_tokens, W),
        "vision_model.pre_layrnorm.weight": (W,),
        "vision_model.pre_layrnorm.bias": (W,),
        "vision_model.post_layernorm.weight": (W,),
        "vision_model.post_layernorm.bias": (W,),
        "text_model.embeddings.position_ids": (1, 77),
        "text_model.embeddings.token_embedding.weight": (NUM_WORDS, W),
        "text_model.embeddings.position_embedding.weight": (77, W),
        "text_model.final_layer_norm.weight": (W,),
        "text_model.final_layer_norm.bias": (W,),
    }
    if kind == "Video 1.5":
        shapes["vision_model.embeddings.class_embedding"] = (4, W)
        shapes["vision_model.embeddings.patch_embedding.weight"] = (W, 3, 1, 14, 14)
    lora = stated["lora_r"]
    encoder = "vision_model.encoder." + ("base_model.model." if lora else "")
    for at in ("text_model.encoder.", encoder):
        for i in range(DEPTH):
            layer = f"{at}layers.{i}."
            attentions, norms = ["self_attn"], ["layer_norm1", "layer_norm2"]
            if "Video" in kind and at == encoder:
                attentions.append("temporal_attn")
                norms.append("temporal_layer_norm1")
                shapes[f"{layer}temporal_embedding"] = (1, 4, W)
            for norm in norms:
                shapes |= {f"{layer}{norm}.weight": (W,), f"{layer}{norm}.bias": (W,)}
            for x in [f"{a}.{p}_proj" for a in attentions for p in ("q", "k", "v", "out")]:
                shapes |= {f"{layer}{x}.weight": (W, W), f"{layer}{x}.bias": (W,)}
                if lora and at == encoder:
                    shapes[f"{layer}{x}.lora_A.default.weight"] = (lora, W)
                    shapes[f"{layer}{x}.lora_B.default.weight"] = (W, lora)
            shapes |= {f"{layer}mlp.fc1.weight": (HIDDEN, W), f"{layer}mlp.fc1.bias": (HIDDEN,)}
            shapes |= {f"{layer}mlp.fc2.weight": (W, HIDDEN), f"{layer}mlp.fc2.bias": (W,)}
    return shapes


def write_tokenizer(folder: Path) -> None:
    """CLIP's kind, with letters for words."""
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *WORDS]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    about = {"tokenizer_class": "CLIPTokenizer", "pad_token": WORDS[1], "model_max_length": 77}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def write_model(folder: Path, kind: str) -> Path:
    folder.mkdir()
    text = TRUNK | {"vocab_size": NUM_WORDS, "max_position_embeddings": 77}
    config = {
        "model_type": f"LanguageBind{kind.split()[0]}",
        "projection_dim": DIM,
        "text_config": text,
        "vision_config": KINDS[kind],
    }
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    torch.manual_seed(1)
    state = {
        name: torch.arange(shape[1])[None]
        if name.endswith("position_ids")
        else torch.randn(shape) * 0.3
        for name, shape in published(kind).items()
    }
    if kind == "Video":
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models by kind."""
    root = tmp_path_factory.mktemp("languagebind")
    for kind in KINDS:
        write_model(root / kind, kind)
    return root


def linear(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    y = x @ state[f"{name}.weight"].T
    if f"{name}.lora_A.default.weight" in state:
        low = x @ state[f"{name}.lora_A.default.weight"].T
        y = y + 16 / 2 * (low @ state[f"{name}.lora_B.default.weight"].T)
    return y + state[f"{name}.bias"]


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return nn.functional.layer_norm(x, (W,), state[f"{name}.weight"], state[f"{name}.bias"])


def attention(state: dict[str, Tensor], name: str, x: Tensor, is_causal: bool = False) -> Tensor:
    """By the book: a softmax of products."""
    q, k, v = (linear(state, f"{name}.{p}_proj", x) for p in "qkv")
    parts = []
    for at in range(0, W, W // HEADS):
        part = slice(at, at + W // HEADS)
        scores = q[..., part] @ k[..., part].mT / (W // HEADS) ** 0.5
        if is_causal:
            scores = scores + torch.full(scores.shape[-2:], -torch.inf).triu(1)
        parts.append(scores.softmax(-1) @ v[..., part])
    return linear(state, f"{name}.out_proj", torch.cat(parts, -1))


def layers(state: dict[str, Tensor], at: str, x: Tensor, num_frames: int, causal: bool) -> Tensor:
    for i in range(DEPTH):
        layer = f"{at}layers.{i}."
        if num_frames > 1:
            videos = []
            for video in x.split(num_frames):  # (F, L, W)
                t = video.transpose(0, 1) + state[f"{layer}temporal_embedding"]
                y = norm(state, f"{layer}temporal_layer_norm1", t)
                t = t + attention(state, f"{layer}temporal_attn", y)
                videos.append(t.transpose(0, 1))
            x = torch.cat(videos)
        y = norm(state, f"{layer}layer_norm1", x)
        x = x + attention(state, f"{layer}self_attn", y, causal)
        y = linear(state, f"{layer}mlp.fc1", norm(state, f"{layer}layer_norm2", x))
        x = x + linear(state, f"{layer}mlp.fc2", nn.functional.gelu(y))
    return x


def reference(state: dict[str, Tensor], kind: str, batch: Tensor) -> Tensor:
    """`(n, F, 3, H, W)` to unit vectors."""
    n, F = batch.shape[:2]
    at = "vision_model.embeddings."
    stem = state[f"{at}patch_embedding.weight"].reshape(W, 3, 14, 14)
    x = nn.functional.conv2d(batch.flatten(0, 1), stem, stride=14).flatten(2).transpose(1, 2)
    first = state[f"{at}class_embedding"].expand(F, W).repeat(n, 1)
    x = torch.cat([first[:, None], x], 1)
    x = norm(state, "vision_model.pre_layrnorm", x + state[f"{at}position_embedding.weight"])
    peft = "base_model.model." if KINDS[kind]["lora_r"] else ""
    x = layers(state, f"vision_model.encoder.{peft}", x, F, False)[:, 0]
    x = norm(state, "vision_model.post_layernorm", x).reshape(n, F, W).mean(1)
    return nn.functional.normalize(x @ state["visual_projection.weight"].T, dim=-1)


def reference_texts(state: dict[str, Tensor]) -> Tensor:
    rows = []
    for text in TEXTS:
        letters = [c for word in text.lower().replace("!", " !").split() for c in _letters(word)]
        ids = [NUM_WORDS - 2, *letters[:75], NUM_WORDS - 1]
        rows.append(ids + [NUM_WORDS - 1] * (77 - len(ids)))
    ids = torch.tensor(rows)
    at = "text_model.embeddings."
    x = state[f"{at}token_embedding.weight"][ids] + state[f"{at}position_embedding.weight"]
    x = layers(state, "text_model.encoder.", x, 1, True)
    x = norm(state, "text_model.final_layer_norm", x)[torch.arange(len(x)), ids.argmax(-1)]
    return nn.functional.normalize(x @ state["text_projection.weight"].T, dim=-1)


def _letters(word: str) -> list[int]:
    last = len(LETTERS) + LETTERS.index(word[-1])
    return [*(LETTERS.index(c) for c in word[:-1]), last]


def clips() -> list[Clip]:
    frames = [torch.randint(0, 256, (t, 3, 36, 50 - t), dtype=torch.uint8) for t in (11, 1, 4)]
    return [Clip(f, torch.arange(len(f)) / 8) for f in frames]


def inputs(kind: str) -> tuple[list[Any], Tensor]:
    """Samples, and what the published preprocessing makes of them."""
    torch.manual_seed(2)
    if kind == "Audio":
        sounds = [Waveform(torch.randn(2, n) / 9, 8000) for n in (8000 * 3, 3000, 5800)]
        return sounds, torch.stack([mels(sound) for sound in sounds])[:, None]
    if "Video" in kind:
        videos = clips()
        return videos, torch.stack([frames(clip) for clip in videos])
    pictures = [torch.randint(0, 256, (3, 40, 60 + i), dtype=torch.uint8) for i in range(2)]
    as_published = transforms.Compose(
        [
            transforms.Resize(28, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(28),
            transforms.Normalize(MEAN.tolist(), DEVIATION.tolist()),
        ]
    )
    return pictures, torch.stack([as_published(p / 255) for p in pictures])[:, None]


def frames(clip: Clip) -> Tensor:
    chosen = np.linspace(0, len(clip) - 1, 4, dtype=int)
    pixels = clip.frames[chosen] / 255
    pixels = (pixels - MEAN[:, None, None]) / DEVIATION[:, None, None]
    wide = int(clip.frames.shape[-1] / 36 * 28)
    pixels = nn.functional.interpolate(pixels, (28, wide), mode="bilinear", align_corners=False)
    left = round((wide - 28) / 2)
    return pixels[..., left : left + 28]


def mels(sound: Waveform) -> Tensor:
    values = resample(sound.values, 8000, 16_000)
    mel = fbank(
        values - values.mean(),
        htk_compat=True,
        sample_frequency=16_000,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=28,
        dither=0.0,
        frame_length=25,
        frame_shift=10,
    )
    if len(mel) > 70:
        ranges = np.array_split(range(len(mel) - 70 + 1), 3)
        parts = [mel[r[0] : r[0] + 70] if len(r) else mel[:70] for r in ranges]
    else:
        parts = [mel.repeat(70 // len(mel) + 1, 1)[:70]] * 3
    return (torch.stack(parts).transpose(1, 2) + 4.2677393) / (2 * 4.5689974)


def state_of(folder: Path) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    return load_file(file) if file.exists() else torch.load(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("kind", "modality"),
    [
        ("Image", "image"),
        ("Thermal", "image"),
        ("Video", "video"),
        ("Video 1.5", "video"),
        ("Audio", "audio"),
    ],
)
@torch.no_grad()
def test_embeddings_are_those_of_the_reference(
    kind: str, modality: str, made: Path, tmp_path: Path
) -> None:
    state = state_of(made / kind)
    space = oa.load(f"languagebind:{made / kind}", "cpu")
    assert sorted(space.modalities) == sorted(["text", modality])
    items, batch = inputs(kind)
    expected = reference(state, kind, batch)
    torch.testing.assert_close(space.embed(items, modality), expected, rtol=0, atol=1e-5)
    texts = reference_texts(state)
    torch.testing.assert_close(space.embed(TEXTS, "text"), texts, rtol=0, atol=1e-5)
    scale = state["logit_scale"].exp().item()
    assert space.logit_scale("text", modality).item() == pytest.approx(scale)
    space.save(tmp_path)
    again = oa.load(tmp_path, "cpu")
    assert again.fingerprint() == space.fingerprint()
    torch.testing.assert_close(again.embed(TEXTS, "text"), texts, rtol=0, atol=1e-5)
    encoder = oa.build_encoder(modality, "languagebind", {"model": str(made / kind)})
    own = space.tower(modality).encoder.state_dict()
    assert all(tensor.equal(own[name]) for name, tensor in encoder.state_dict().items())


def test_names_that_newer_peft_gives(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "Audio", tmp_path / "copy")
    state = state_of(folder)
    wrapped = {n.removesuffix("lora_A.default.weight") for n in state if "lora_A" in n}
    for layer in wrapped:
        for part in ("weight", "bias"):
            state[f"{layer}base_layer.{part}"] = state.pop(f"{layer}{part}")
    torch.save(state, folder / "pytorch_model.bin")
    sounds = inputs("Audio")[0]
    exact = oa.load(f"languagebind:{made / 'Audio'}", "cpu").embed(sounds, "audio")
    assert oa.load(f"languagebind:{folder}", "cpu").embed(sounds, "audio").equal(exact)


def test_depth_maps_are_no_pictures(made: Path) -> None:
    assert oa.load(f"languagebind:{made / 'Depth'}", "cpu").modalities == ["text"]
    with pytest.raises(ModelError, match="of type LanguageBindDepth has no tower for image"):
        oa.build_encoder("image", "languagebind", {"model": str(made / "Depth")})


def test_every_name_is_accounted_for(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "Video", tmp_path / "copy")
    file = folder / "model.safetensors"
    state = load_file(file)
    gone = state.pop("vision_model.encoder.layers.1.temporal_embedding")
    save_file(state | {"vision_model.encoder.layers.9.temporal_embedding": gone}, file)
    expected = r"missing \S+layers\.1\.temporal_embedding; unexpected \S+layers\.9\.temporal_emb"
    with pytest.raises(ModelError, match=expected):
        oa.load(f"languagebind:{folder}")
    texts = oa.load(f"languagebind:{folder}", "cpu", modalities=["text"])
    assert texts.modalities == ["text"]
    save_file(state | {"audio_model.weight": gone}, file)
    with pytest.raises(ModelError, match=r"missing none; unexpected audio_model\.weight"):
        oa.load(f"languagebind:{folder}", modalities=["text"])
    with pytest.raises(ModalityError, match="no modality 'audio'"):
        oa.load(f"languagebind:{made / 'Video'}", modalities=["audio"])


def test_mistakes(made: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(made / "Image", tmp_path / "copy")
    (folder / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match=r"of type 'clip'; wanted LanguageBindImage, "):
        oa.load(f"languagebind:{folder}")
    shutil.copy(made / "Image" / "config.json", folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(ModelError, match=r"the tokenizer of .* does not load"):
        oa.load(f"languagebind:{folder}")
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors or pytorch_model\.bin"):
        oa.load(f"languagebind:{folder}")


class TestConformance(ModalityConformance):
    modality = VideoModality()
    exempt: ClassVar = {"test_augmentations_are_seeded_and_keep_the_form": "tested with its plugin"}
    encoders: ClassVar = {"languagebind": ENCODERS["video"]["languagebind"]}

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any]:
        made = folder / "made"
        return {"model": str(made if made.exists() else write_model(made, "Video"))}
