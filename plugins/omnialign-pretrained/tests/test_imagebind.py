"""ImageBind's published layout in small, against a reference of torch's own layers.

Axes: n samples, L tokens, W width.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from omnialign_audio import Audio, Waveform
from omnialign_pretrained import ENCODERS
from omnialign_pretrained.imagebind_towers import published_name
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchaudio.compliance.kaldi import fbank
from torchaudio.functional import resample
from torchvision import transforms

import omnialign as oa
from omnialign.errors import ModalityError, ModelError
from omnialign.testing import ModalityConformance

DIM, VOCABULARY = 24, 49_408
WIDTHS = {"vision": 32, "text": 32, "audio": 24, "depth": 16, "thermal": 12, "imu": 8}
DEPTHS = {"vision": 3, "text": 2, "audio": 2, "depth": 1, "thermal": 1, "imu": 1}
HEADS = {"vision": 16, "text": 16, "audio": 12}
TOKENS = {"vision": 17, "text": 77, "audio": 229, "depth": 197, "thermal": 197, "imu": 251}

BLOCK = """
attn.in_proj_weight 3W W
attn.in_proj_bias 3W
attn.out_proj.weight W W
attn.out_proj.bias W
mlp.fc1.weight 4W W
mlp.fc1.bias 4W
mlp.fc2.weight W 4W
mlp.fc2.bias W
norm_1.weight W
norm_1.bias W
norm_2.weight W
norm_2.bias W
"""
KEY_OF_ITS_OWN = """
attn.bias_k 1 1 W
attn.bias_v 1 1 W
"""
PUBLISHED = """
modality_preprocessors.vision.cls_token 1 1 W
modality_preprocessors.vision.rgbt_stem.proj.1.weight W 3 2 8 8
modality_preprocessors.vision.pos_embedding_helper.pos_embed 1 L W
modality_preprocessors.text.pos_embed 1 L W
modality_preprocessors.text.mask L L
modality_preprocessors.text.token_embedding.weight V W
modality_preprocessors.audio.cls_token 1 1 W
modality_preprocessors.audio.rgbt_stem.proj.weight W 1 16 16
modality_preprocessors.audio.rgbt_stem.norm_layer.weight W
modality_preprocessors.audio.rgbt_stem.norm_layer.bias W
modality_preprocessors.audio.pos_embedding_helper.pos_embed 1 L W
modality_preprocessors.depth.cls_token 1 1 W
modality_preprocessors.depth.depth_stem.proj.weight W 1 16 16
modality_preprocessors.depth.depth_stem.norm_layer.weight W
modality_preprocessors.depth.depth_stem.norm_layer.bias W
modality_preprocessors.depth.pos_embedding_helper.pos_embed 1 L W
modality_preprocessors.thermal.cls_token 1 1 W
modality_preprocessors.thermal.rgbt_stem.proj.weight W 1 16 16
modality_preprocessors.thermal.rgbt_stem.norm_layer.weight W
modality_preprocessors.thermal.rgbt_stem.norm_layer.bias W
modality_preprocessors.thermal.pos_embedding_helper.pos_embed 1 L W
modality_preprocessors.imu.pos_embed 1 L W
modality_preprocessors.imu.cls_token 1 1 W
modality_preprocessors.imu.imu_stem.proj.weight W 48
modality_preprocessors.imu.imu_stem.norm_layer.weight W
modality_preprocessors.imu.imu_stem.norm_layer.bias W
modality_trunks.vision.pre_transformer_layer.0.weight W
modality_trunks.vision.pre_transformer_layer.0.bias W
modality_heads.vision.0.weight W
modality_heads.vision.0.bias W
modality_heads.vision.2.weight D W
modality_heads.text.proj.0.weight W
modality_heads.text.proj.0.bias W
modality_heads.text.proj.1.weight D W
modality_heads.audio.0.weight W
modality_heads.audio.0.bias W
modality_heads.audio.2.weight D W
modality_heads.depth.0.weight W
modality_heads.depth.0.bias W
modality_heads.depth.2.weight D W
modality_heads.thermal.0.weight W
modality_heads.thermal.0.bias W
modality_heads.thermal.2.weight D W
modality_heads.imu.0.weight W
modality_heads.imu.0.bias W
modality_heads.imu.3.weight D W
modality_postprocessors.text.1.log_logit_scale
modality_postprocessors.audio.1.log_logit_scale
modality_postprocessors.depth.1.log_logit_scale
modality_postprocessors.thermal.1.log_logit_scale
modality_postprocessors.imu.1.log_logit_scale
"""
"""All names of `imagebind_huge.pth`, with `BLOCK` for each block of each trunk: names and axes."""


def published() -> dict[str, tuple[int, ...]]:
    """All names, with small shapes."""
    rows = [line.split() for line in PUBLISHED.split("\n") if line]
    for modality, depth in DEPTHS.items():
        has_key = modality in ("audio", "depth", "thermal", "imu")
        for row in (BLOCK + (KEY_OF_ITS_OWN if has_key else "")).split("\n"):
            for i in range(depth) if row else ():
                name, *axes = row.split()
                rows.append([f"modality_trunks.{modality}.blocks.{i}.{name}", *axes])
    shapes: dict[str, tuple[int, ...]] = {}
    for name, *axes in rows:
        m = name.split(".")[1]
        sizes = {"L": TOKENS[m], "V": VOCABULARY, "D": DIM}
        sizes |= {f"{k or ''}W": (k or 1) * WIDTHS[m] for k in (0, 3, 4)}
        shapes[name] = tuple(int(sizes.get(axis, axis)) for axis in axes)
    return shapes


def write_model(folder: Path) -> Path:
    torch.manual_seed(0)
    state = {name: torch.randn(shape) * 0.2 for name, shape in published().items()}
    state["modality_preprocessors.text.mask"] = torch.full((77, 77), -torch.inf).triu(1)
    state["modality_postprocessors.text.1.log_logit_scale"] = torch.tensor(9.0)
    state["modality_postprocessors.audio.1.log_logit_scale"] = torch.tensor(20.0).log()
    path = folder / "tiny.pth"
    torch.save(state, path)
    save_file(state, path.with_suffix(".safetensors"))
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("imagebind"))


def block(state: dict[str, Tensor], prefix: str, num_heads: int) -> nn.MultiheadAttention:
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    attention = nn.MultiheadAttention(
        own["out_proj.bias"].numel(), num_heads, add_bias_kv="bias_k" in own, batch_first=True
    )
    attention.load_state_dict(own)
    return attention.eval()


def trunk(state: dict[str, Tensor], m: str, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The blocks, of torch's own attention, `(n, L, W)`."""

    def norm(x: Tensor, name: str) -> Tensor:
        return nn.functional.layer_norm(
            x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6
        )

    for i in range(DEPTHS[m]):
        at = f"modality_trunks.{m}.blocks.{i}."
        y = norm(x, f"{at}norm_1")
        attention = block(state, f"{at}attn.", HEADS[m])
        x = x + attention(y, y, y, need_weights=False, attn_mask=mask)[0]
        y = norm(x, f"{at}norm_2") @ state[f"{at}mlp.fc1.weight"].T + state[f"{at}mlp.fc1.bias"]
        y = nn.functional.gelu(y) @ state[f"{at}mlp.fc2.weight"].T + state[f"{at}mlp.fc2.bias"]
        x = x + y
    return x


def head(x: Tensor, state: dict[str, Tensor], norm: str, matrix: str) -> Tensor:
    weight, bias = state[f"{norm}.weight"], state[f"{norm}.bias"]
    x = nn.functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-6) @ state[f"{matrix}.weight"].T
    return nn.functional.normalize(x, dim=-1)


def reference(state: dict[str, Tensor], m: str, batch: Tensor) -> Tensor:
    at = f"modality_preprocessors.{m}."
    if m == "text":
        x = state[f"{at}token_embedding.weight"][batch] + state[f"{at}pos_embed"]
        x = trunk(state, m, x, state[f"{at}mask"])[torch.arange(len(x)), batch.argmax(-1)]
        return head(x, state, "modality_heads.text.proj.0", "modality_heads.text.proj.1")
    if m == "vision":
        stem = state[f"{at}rgbt_stem.proj.1.weight"]
        x = nn.functional.conv3d(batch[:, :, None].repeat(1, 1, 2, 1, 1), stem, stride=(2, 8, 8))
        x = x.flatten(2).transpose(1, 2)
    else:
        x = nn.functional.conv2d(batch, state[f"{at}rgbt_stem.proj.weight"], stride=10)
        stem = f"{at}rgbt_stem.norm_layer."
        x = x.flatten(2).transpose(1, 2)
        x = nn.functional.layer_norm(
            x, x.shape[-1:], state[f"{stem}weight"], state[f"{stem}bias"], 1e-5
        )
    x = torch.cat([state[f"{at}cls_token"].repeat(len(x), 1, 1), x], 1)
    x = x + state[f"{at}pos_embedding_helper.pos_embed"]
    if m == "vision":
        norm = "modality_trunks.vision.pre_transformer_layer.0"
        weight, bias = state[f"{norm}.weight"], state[f"{norm}.bias"]
        x = nn.functional.layer_norm(x, x.shape[-1:], weight, bias, 1e-6)
    return head(trunk(state, m, x)[:, 0], state, f"modality_heads.{m}.0", f"modality_heads.{m}.2")


@torch.no_grad()
def test_embeddings_are_those_of_the_reference(file: Path, tmp_path: Path) -> None:
    state = torch.load(file)
    space = oa.load(f"imagebind:{file}", "cpu")
    assert space.modalities == ["image", "text", "audio"]

    pictures = [torch.randint(0, 256, (3, 40, 60 + i), dtype=torch.uint8) for i in range(2)]
    as_published = transforms.Compose(
        [
            transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(
                (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            ),
        ]
    )
    pixels = [as_published(Image.fromarray(p.permute(1, 2, 0).numpy())) for p in pictures]
    expected = {"image": reference(state, "vision", torch.stack(pixels))}

    from open_clip import tokenize

    texts = ["a dog", "A Red car!", "a " * 100]
    expected["text"] = reference(state, "text", tokenize(texts, 77))

    sounds = [Waveform(torch.randn(2, n) / 9, 22_050) for n in (44_100, 20_000, 300)]
    mels = []
    for sound in sounds:
        values = resample(sound.values, 22_050, 16_000)
        values = nn.functional.pad(values - values.mean(), (0, max(0, 400 - values.shape[1])))
        mel = fbank(
            values,
            htk_compat=True,
            sample_frequency=16_000,
            use_energy=False,
            window_type="hanning",
            num_mel_bins=128,
            dither=0.0,
            frame_length=25,
            frame_shift=10,
        ).T
        mels.append((nn.functional.pad(mel, (0, 204 - mel.shape[1]))[None] + 4.268) / 9.138)
    expected["audio"] = reference(state, "audio", torch.stack(mels))

    given = {"image": pictures, "text": texts, "audio": sounds}
    for modality, items in given.items():
        found = space.embed(items, modality)
        torch.testing.assert_close(found, expected[modality], rtol=0, atol=1e-5)
    assert space.logit_scale("image", "text").item() == pytest.approx(100)
    assert space.logit_scale("image", "audio").item() == pytest.approx(20)
    space.save(tmp_path)
    assert oa.load(tmp_path, "cpu").fingerprint() == space.fingerprint()
    converted = oa.load(f"imagebind:{file.with_suffix('.safetensors')}", "cpu")
    assert converted.embed(texts, "text").equal(space.embed(texts, "text"))
    encoder = oa.build_encoder("audio", "imagebind", {"file": str(file)})
    own = space.tower("audio").encoder.state_dict()
    assert all(tensor.equal(own[name]) for name, tensor in encoder.state_dict().items())


def test_a_long_sound_is_seen_in_windows(file: Path) -> None:
    space = oa.load(f"imagebind:{file}", "cpu", modalities=["audio"])
    sound = Waveform(torch.randn(1, 64_000), 16_000)
    parts = space.embed([sound.stretch(0, 32_000), sound.stretch(32_000, 64_000)], "audio")
    whole = space.embed([sound], "audio")
    torch.testing.assert_close(whole[0], nn.functional.normalize(parts.mean(0), dim=-1))


def test_no_byte_of_other_towers_is_read(file: Path, tmp_path: Path) -> None:
    source = file.with_suffix(".safetensors")
    exact = oa.load(f"imagebind:{source}", "cpu", modalities=["text", "audio"])
    data = bytearray(source.read_bytes())
    header = int.from_bytes(data[:8], "little")
    for name, about in json.loads(data[8 : 8 + header]).items():
        if ".vision." in name and "heads.vision.2." not in name:
            start, end = (8 + header + offset for offset in about["data_offsets"])
            data[start:end] = b"\xff" * (end - start)
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(data)
    part = oa.load(f"imagebind:{copy}", "cpu", modalities=["text", "audio"])
    assert part.embed(["a dog"], "text").equal(exact.embed(["a dog"], "text"))
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    assert oa.load(f"imagebind:{copy}", "cpu").embed([picture], "image").isnan().all()


@pytest.mark.parametrize(
    ("taken", "given", "expected"),
    [
        (
            "modality_trunks.audio.blocks.0.attn.bias_k",
            "modality_trunks.audio.blocks.0.attn.bias_q",
            r"missing \S+audio\S+bias_k; unexpected \S+audio\S+bias_q$",
        ),
        ("modality_heads.vision.2.weight", None, "missing modality_heads.vision.2.weight"),
        (None, "modality_heads.smell.0.weight", r"missing none; unexpected \S+smell\S+$"),
        ("modality_postprocessors.audio.1.log_logit_scale", None, "missing modality_postproc"),
    ],
)
def test_every_name_is_accounted_for(
    file: Path, tmp_path: Path, taken: str | None, given: str | None, expected: str
) -> None:
    state = load_file(file.with_suffix(".safetensors"))
    tensor = torch.zeros(1) if taken is None else state.pop(taken)
    copy = tmp_path / "copy.safetensors"
    save_file(state | ({given: tensor} if given else {}), copy)
    with pytest.raises(ModelError, match=expected):
        oa.load(f"imagebind:{copy}")


def test_every_published_name_of_a_tower_is_a_weight_of_ours(file: Path) -> None:
    space = oa.load(f"imagebind:{file}", "cpu")
    for modality, m in {"image": "vision", "text": "text", "audio": "audio"}.items():
        network = space.tower(modality).encoder.network
        ours = {published_name(m, name) for name in network.state_dict()}
        theirs = {name for name in published() if f".{m}." in name}
        scale = f"modality_postprocessors.{m}.1.log_logit_scale"
        beside = {"modality_preprocessors.text.mask", scale}
        assert theirs - ours <= beside
        assert ours <= theirs


def test_mistakes(file: Path) -> None:
    with pytest.raises(ModalityError, match="no modality 'video'"):
        oa.load(f"imagebind:{file}", modalities=["video"])
    with pytest.raises(ModelError, match=r"no file of weights at 'none\.pth'"):
        oa.load("imagebind:none.pth")
    with pytest.raises(ModelError, match="is a file, which has no revision 'v1'"):
        oa.load(f"imagebind:{file}@v1")


class TestConformance(ModalityConformance):
    modality = Audio()
    exempt: ClassVar = {"test_augmentations_are_seeded_and_keep_the_form": "tested with its plugin"}
    encoders: ClassVar = {"imagebind": ENCODERS["audio"]["imagebind"]}

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any]:
        file = folder / "tiny.pth"
        return {"file": str(file if file.exists() else write_model(folder))}
