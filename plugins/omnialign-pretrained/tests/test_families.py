"""Every family beside the original model, called directly behind its own processor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omnialign_audio import Waveform
from omnialign_pretrained.adapter import PretrainedEncoder
from omnialign_pretrained.aligned import KINDS
from omnialign_pretrained.protein import PretrainedProtein
from omnialign_video import Clip
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    AutoVideoProcessor,
)

Reference = Callable[[Any, str, Any], Tensor]
"""The features `(1, W)` of a sample, by the original model from a folder."""

TEXTS = ["red", "three small circles, left of a BLUE square", "a dog " * 60]
PROTEINS = ["M", "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQ", "ACDEFGHIKLMNPQRSTVWY" * 9]


def images() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes = ((40, 64), (64, 48), (32, 32))
    return [torch.randint(0, 256, (3, *s), generator=random, dtype=torch.uint8) for s in sizes]


def sounds(rate: int, seconds: float) -> list[Waveform]:
    random = torch.Generator().manual_seed(0)
    lengths = [int(share * seconds * rate) for share in (0.4, 1.0, 0.7)]
    return [Waveform(0.3 * torch.randn(1, n, generator=random), rate) for n in lengths]


def clips() -> list[Clip]:
    random = torch.Generator().manual_seed(0)
    shapes = ((4, 3, 36, 48), (9, 3, 48, 36), (2, 3, 40, 40))
    frames = [torch.randint(0, 256, s, generator=random, dtype=torch.uint8) for s in shapes]
    return [Clip(x, torch.arange(len(x)) / 8) for x in frames]


FRAMES = {4: [0, 1, 2, 3], 9: [0, 2, 5, 8], 2: [0, 0, 0, 1]}
"""Which of so many frames stand at four instants from the first to the last."""


def of_text(pooled: Callable[[Any, Tensor], Tensor], **padding: Any) -> Reference:
    def reference(model: Any, folder: str, text: str) -> Tensor:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        inputs = tokenizer([text], return_tensors="pt", truncation=True, **padding)
        kept = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask")}
        return pooled(model, kept)

    return reference


def of_image(pooled: Callable[[Any, Any], Tensor]) -> Reference:
    def reference(model: Any, folder: str, sample: Tensor) -> Tensor:
        picture = Image.fromarray(sample.permute(1, 2, 0).numpy())
        return pooled(
            model, AutoImageProcessor.from_pretrained(folder)(picture, return_tensors="pt")
        )

    return reference


def of_audio(pooled: Callable[[Any, Any], Tensor]) -> Reference:
    def reference(model: Any, folder: str, sample: Waveform) -> Tensor:
        extractor = AutoFeatureExtractor.from_pretrained(folder)
        rate = sample.sample_rate_hz
        inputs = extractor(sample.values[0].numpy(), sampling_rate=rate, return_tensors="pt")
        if "is_longer" in inputs:
            inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
        return pooled(model, inputs)

    return reference


def of_video(kind: Any, pooled: Callable[[Any, Any], Tensor]) -> Reference:
    def reference(model: Any, folder: str, sample: Clip) -> Tensor:
        frames = sample.frames[FRAMES[len(sample)]].permute(0, 2, 3, 1).numpy()
        return pooled(model, kind.from_pretrained(folder)(list(frames), return_tensors="pt"))

    return reference


def of_protein(pooled: Callable[[Tensor], Tensor]) -> Reference:
    def reference(model: Any, folder: str, sample: str) -> Tensor:
        inputs = AutoTokenizer.from_pretrained(folder)([sample], return_tensors="pt")
        return pooled(model(**inputs).last_hidden_state)

    return reference


def mean(model: Any, inputs: Any) -> Tensor:
    return model(**inputs).last_hidden_state.mean(1)


def first(model: Any, inputs: Any) -> Tensor:
    return model(**inputs).last_hidden_state[:, 0]


def own(model: Any, inputs: Any) -> Tensor:
    return model(**inputs).pooler_output


def patches(num_marks: int) -> Callable[[Any, Any], Tensor]:
    return lambda model, inputs: model(**inputs).last_hidden_state[:, num_marks:].mean(1)


def features(modality: str) -> Callable[[Any, Any], Tensor]:
    return lambda model, given: getattr(model, f"get_{modality}_features")(**given).pooler_output


def naflex(model: Any, inputs: Any) -> Tensor:
    held = inputs["pixel_attention_mask"][0].bool()
    return model.vision_model(**inputs).last_hidden_state[:, held].mean(1)


TO_64 = {"padding": "max_length", "max_length": 64}
TEXT = {
    ("bert", None): of_text(mean),
    ("bert", "cls"): of_text(first),
    ("bert", "model"): of_text(own),
    ("bert", "max"): of_text(lambda m, x: m(**x).last_hidden_state.amax(1)),
    ("bert", "attention"): of_text(mean),  # of a query that has not learned yet
    ("bert-masked", None): of_text(mean),
    ("roberta", None): of_text(mean),
    ("distilbert", None): of_text(mean),
    ("modernbert", None): of_text(mean),
    ("llama", "last"): of_text(lambda m, x: m(**x).last_hidden_state[:, -1]),
    ("t5", None): of_text(lambda m, x: mean(m.encoder, x)),
    ("clip", None): of_text(lambda m, x: own(m.text_model, x)),
    ("clip", "projected"): of_text(features("text")),
    ("metaclip2", "projected"): of_text(features("text")),
    ("siglip", None): of_text(features("text"), **TO_64),
    ("siglip2", None): of_text(features("text"), **TO_64),
    ("siglip2-naflex", None): of_text(features("text"), **TO_64),
    ("tipsv2", None): of_text(features("text"), **TO_64),
    ("clap", "projected"): of_text(features("text")),
    ("xclip", "projected"): of_text(features("text")),
    ("pe-audio", None): of_text(lambda m, x: m.text_model(**x).last_hidden_state[:, 0]),
}
IMAGE = {
    ("clip", None): of_image(lambda m, x: own(m.vision_model, x)),
    ("clip", "mean"): of_image(lambda m, x: patches(1)(m.vision_model, x)),
    ("clip", "projected"): of_image(features("image")),
    ("metaclip2", "projected"): of_image(features("image")),
    ("siglip", None): of_image(features("image")),
    ("siglip2", None): of_image(features("image")),
    ("siglip2-naflex", None): of_image(features("image")),
    ("siglip2-naflex", "mean"): of_image(naflex),
    ("tipsv2", None): of_image(features("image")),
    ("dinov2", None): of_image(first),
    ("dinov2", "mean"): of_image(patches(1)),
    ("dinov2-registers", "mean"): of_image(patches(5)),
    ("dinov3", None): of_image(first),
    ("dinov3-convnext", "model"): of_image(own),
    ("vit", None): of_image(first),
    ("vit", "model"): of_image(own),
}
AUDIO = {
    ("clap", None): of_audio(lambda m, x: own(m.audio_model, x)),
    ("clap", "projected"): of_audio(features("audio")),
    ("clap-fused", "projected"): of_audio(features("audio")),
    ("ast", None): of_audio(first),
    ("ast", "model"): of_audio(own),
    ("whisper", None): of_audio(lambda m, x: mean(m.encoder, x)),
    ("wav2vec2", None): of_audio(mean),
    ("wav2vec2-large", None): of_audio(mean),
    ("hubert", None): of_audio(mean),
    ("pe-audio", None): of_audio(lambda m, x: own(m.audio_encoder, x)),
    ("pe-audio-video", None): of_audio(lambda m, x: own(m.audio_model.audio_encoder, x)),
}
VIDEO = {
    ("videomae", None): of_video(AutoImageProcessor, mean),
    ("vivit", None): of_video(AutoImageProcessor, first),
    ("vjepa2", None): of_video(AutoVideoProcessor, lambda m, x: mean(m.encoder, x)),
    ("xclip", None): of_video(AutoImageProcessor, features("video")),
    ("pe-video", None): of_video(
        AutoVideoProcessor, lambda m, x: own(m.video_encoder, {PIXELS: x[PIXELS]})
    ),
    ("pe-audio-video", None): of_video(
        AutoVideoProcessor, lambda m, x: own(m.video_model.video_encoder, {PIXELS: x[PIXELS]})
    ),
}
PIXELS = "pixel_values_videos"
PROTEIN = {
    ("esm2", None): of_protein(lambda x: x[:, 1:-1].mean(1)),
    ("esm2", "cls"): of_protein(lambda x: x[:, 0]),
    ("esmc", "last"): of_protein(lambda x: x[:, -2]),
}
CASES = [
    pytest.param(modality, name, pooling, reference, id=f"{modality}-{name}-{pooling}")
    for modality, cases in (
        ("text", TEXT),
        ("image", IMAGE),
        ("audio", AUDIO),
        ("video", VIDEO),
        ("protein", PROTEIN),
    )
    for (name, pooling), reference in cases.items()
]
OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("video", "pe-video"): {"num_frames": 4},
    ("video", "pe-audio-video"): {"num_frames": 4},
    ("protein", "esm2"): {"max_residues": 200},
}


def original(folder: str) -> Any:
    config = AutoConfig.from_pretrained(folder)
    if config.model_type != "pe_audio_video":
        return AutoModel.from_pretrained(folder).eval()
    model = AutoModel.from_config(config).eval()  # its from_pretrained fails on a tied buffer
    model.load_state_dict(load_file(f"{folder}/model.safetensors"), strict=False)
    return model


def built(modality: str, folder: str, **options: Any) -> PretrainedEncoder:
    kind: Any = {**KINDS, "protein": PretrainedProtein}[modality]
    return kind(folder, **options).eval()


def samples_of(encoder: PretrainedEncoder) -> list[Any]:
    if encoder.modality == "audio":
        assert encoder.window is not None
        return sounds(encoder.processor.sampling_rate, min(encoder.window, 2.0))
    made = {"text": TEXTS, "image": images(), "video": clips(), "protein": PROTEINS}
    return list(made[encoder.modality])


def encoded(encoder: PretrainedEncoder, samples: list[Any]) -> Tensor:
    return encoder(encoder.collate([encoder.preprocess(sample) for sample in samples]))


@pytest.mark.parametrize(("modality", "name", "pooling", "reference"), CASES)
@torch.no_grad()
def test_features_are_those_of_the_original(
    checkpoint: Callable[[str], str],
    tmp_path: Path,
    modality: str,
    name: str,
    pooling: str | None,
    reference: Reference,
) -> None:
    folder = checkpoint(name)
    options = {"pooling": pooling, **OPTIONS.get((modality, name), {})}
    encoder = built(modality, folder, **options)
    samples = samples_of(encoder)
    model = original(folder)
    wanted = torch.cat([reference(model, folder, sample) for sample in samples])
    assert wanted.std(0).max() > 1e-4, "the reference cannot tell samples apart"
    alone = torch.cat([encoded(encoder, [sample]) for sample in samples])
    torch.testing.assert_close(alone, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoded(encoder, samples), wanted, rtol=0, atol=1e-5)
    encoder.save_files(tmp_path)
    copy = type(encoder).from_files(tmp_path, **{"model": "gone", **options}).eval()
    assert repr(copy.preprocess) == repr(encoder.preprocess)
    copy.load_state_dict(encoder.state_dict())
    assert torch.equal(encoded(copy, samples), encoded(encoder, samples))


def test_numpy_is_not_asked_for_randomness(checkpoint: Callable[[str], str]) -> None:
    """CLAP's extractor cuts a long recording at random; ours takes the window's start."""
    encoder = built("audio", checkpoint("clap"))
    long = sounds(8000, 9.0)[1]
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first_time, second = encoder.preprocess(long), encoder.preprocess(long)
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002
    start = encoder.preprocess(long.stretch(0, 16_000))
    for key in start:
        assert first_time[key].equal(second[key])
        assert first_time[key].equal(start[key])
