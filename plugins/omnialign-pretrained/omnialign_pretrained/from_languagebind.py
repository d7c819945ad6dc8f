"""LanguageBind (Zhu et al., ICLR 2024): one published model is a tower for texts and one for
pictures, videos or sound.

Axes: n samples, H height, W width, S side of the square, F frames, L tokens of text, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from omnialign import AlignedModel, AlignedTower, ModelError
from omnialign_pretrained.clip_inputs import PROBE, ClipPixels, normalised, vocabulary_hash
from omnialign_pretrained.kaldi_mel import ThreeStretches
from omnialign_pretrained.languagebind_towers import (
    PICTURE_PARTS,
    TEXT_PARTS,
    PictureTower,
    TextTower,
    merge_lora,
    picture_size,
    published_name,
)
from omnialign_pretrained.placed_tower import PlacedModel, PlacedTower
from omnialign_pretrained.places import Place, read_json
from omnialign_pretrained.state_dicts import fill, read_lazily

MODALITIES = {
    "LanguageBindImage": "image",
    "LanguageBindThermal": "image",
    "LanguageBindVideo": "video",
    "LanguageBindAudio": "audio",
    "LanguageBindDepth": None,
}
"""By the type that the configuration states. A thermal picture is read as any other; a depth map,
of 16 bits in millimetres, is no sample of an installed plugin."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TRUNK = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
PICTURE = TRUNK | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "add_time_attn": False,
    "num_frames": 1,
    "clip_type": "vl",
    "lora_r": 2,
    "lora_alpha": 16,
    "num_mel_bins": 0,
    "target_length": 0,
    "audio_sample_rate": 16_000,
    "audio_mean": 0.5,
    "audio_std": 0.5,
}
TEXT = TRUNK | {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49_408,
    "max_position_embeddings": 77,
}
"""What counts where the configuration says nothing, as its published classes have it."""


def read(name: str, *, revision: str | None, modalities: Sequence[str] | None) -> AlignedModel:
    """A model of LanguageBind, from a folder or the hub.

    Embeddings are of length 1: the scale that LanguageBind multiplies them by belongs to its pair.
    Raises `ModelError`.
    """
    found = LanguageBindModel.find(name, revision)
    other = MODALITIES[found.config["model_type"]]
    kinds: tuple[type[PlacedTower], ...] = (
        LanguageBindText,
        LanguageBindImage,
        LanguageBindVideo,
        LanguageBindAudio,
    )
    towers = {
        kind.MODALITY: kind.built(found.config, found.place)
        for kind in kinds
        if kind.MODALITY in ("text", other) and (modalities is None or kind.MODALITY in modalities)
    }
    scale = float(found.load(towers)["logit_scale"].exp())
    options = {"model": name, "revision": found.place.revision}
    return AlignedModel(
        found.config.get("projection_dim", 512),
        {m: AlignedTower(tower, "languagebind", options) for m, tower in towers.items()},
        {(other, "text"): scale} if other else {},
    )


@dataclass(frozen=True)
class LanguageBindModel(PlacedModel):
    """A model of LanguageBind."""

    CONFIG = "config.json"

    @classmethod
    def find(cls, name: str, revision: str | None) -> LanguageBindModel:
        place = Place(name, revision)
        stated = place.file(cls.CONFIG)
        place = place.fixed_by(stated)
        config = read_json(stated)
        kind = config.get("model_type")
        if kind not in MODALITIES:
            raise ModelError(
                f"'{stated}' describes a model of type {kind!r}; wanted {', '.join(MODALITIES)}"
            )
        return cls(place, config, place.file(*WEIGHTS))

    def load(self, towers: Mapping[str, PlacedTower]) -> dict[str, Tensor]:
        """Gives the logarithm of the pair's scale."""
        picture = _stated(self.config, "vision_config")
        state = merge_lora(
            read_lazily(self.weights), picture["lora_alpha"] / max(1, picture["lora_r"])
        )
        networks = [
            (
                tower.network,
                partial(published_name, TEXT_PARTS if modality == "text" else PICTURE_PARTS),
            )
            for modality, tower in towers.items()
        ]
        others = [] if "text" in towers else ["text_model.", "text_projection."]
        if not towers.keys() - {"text"}:
            others += ["vision_model.", "visual_projection."]
        positions = "_model.embeddings.position_ids"  # 0, 1, 2 …, no weights
        return fill(
            self.weights,
            state,
            networks,
            also=["logit_scale"],
            passed_over=(*others, f"vision{positions}", f"text{positions}"),
        )


class _PictureEncoder(PlacedTower):
    KIND = LanguageBindModel

    def build(self, place: Place) -> None:
        del place
        wanted = MODALITIES.get(self.config["model_type"])
        if wanted != self.MODALITY:
            raise ModelError(
                f"a model of type {self.config['model_type']} has no tower for {self.MODALITY}"
            )
        self.stated = _stated(self.config, "vision_config")
        self.width = self.config.get("projection_dim", 512)
        self.network = PictureTower(self.stated, self.width)


class LanguageBindImage(_PictureEncoder):
    """Images, or thermal pictures: uint8 `(3, H, W)` to `(3, S, S)`; features `(n, D)`.

    Args:
        model: A folder or a repository of the hub, as for `languagebind:…`.
        revision: A version on the hub.
    """

    MODALITY = "image"

    def build(self, place: Place) -> None:
        super().build(place)
        self.resolution = picture_size(self.stated)[0]
        self.preprocess = ClipPixels(self.resolution, is_scaled_as_floats=True)


class LanguageBindVideo(_PictureEncoder):
    """Videos: frames from the first to the last, `(3, F, S, S)`; features `(n, D)`.

    LanguageBind mirrors half of all videos at random, also where it evaluates; this does not.

    Args:
        model: A folder or a repository of the hub, as for `languagebind:…`.
        revision: A version on the hub.
    """

    MODALITY = "video"

    def build(self, place: Place) -> None:
        super().build(place)
        self.resolution = picture_size(self.stated)[0]
        self.preprocess = EvenFrames(self.stated["num_frames"], self.resolution)


class LanguageBindAudio(_PictureEncoder):
    """Sound of any length: mel bands of three stretches of its first channel, in the place of
    colours; features `(n, D)`.

    LanguageBind draws the places of the stretches at random, also where it evaluates; here they are
    the earliest that it could draw.

    Args:
        model: A folder or a repository of the hub, as for `languagebind:…`.
        revision: A version on the hub.
    """

    MODALITY = "audio"

    def build(self, place: Place) -> None:
        super().build(place)
        self.preprocess = ThreeStretches(
            self.stated["audio_sample_rate"],
            *picture_size(self.stated),
            self.stated["audio_mean"],
            self.stated["audio_std"],
        )


class LanguageBindText(PlacedTower):
    """Texts, cut at the model's longest sequence, with the model's tokenizer; features `(n, D)`.

    Args:
        model: A folder or a repository of the hub, as for `languagebind:…`.
        revision: A version on the hub.
    """

    KIND = LanguageBindModel
    MODALITY = "text"

    def build(self, place: Place) -> None:
        from transformers import CLIPTokenizer

        stated = _stated(self.config, "text_config")
        self.width = self.config.get("projection_dim", 512)
        self.network = TextTower(stated, self.width)
        try:
            self.tokenizer = CLIPTokenizer.from_pretrained(
                place.name, revision=place.revision or "main"
            )
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(f"the tokenizer of '{place}' does not load: {error}") from None
        vocabulary = vocabulary_hash(self.tokenizer.get_vocab(), self.tokenizer(PROBE)["input_ids"])
        self.preprocess = PaddedTokens(
            self.tokenizer, stated["max_position_embeddings"], vocabulary
        )

    def save_files(self, folder: Path) -> None:
        super().save_files(folder)
        self.tokenizer.save_pretrained(folder)


@dataclass(frozen=True, eq=False)
class PaddedTokens:
    """A text to token ids `(L,)`, padded or cut to L."""

    tokenizer: Any = field(repr=False)
    num_tokens: int
    vocabulary: str
    """A hash that identifies the tokenizer."""

    def __call__(self, text: str) -> Tensor:
        ids = self.tokenizer(
            text, max_length=self.num_tokens, padding="max_length", truncation=True
        )
        return torch.tensor(ids["input_ids"])


@dataclass(frozen=True)
class EvenFrames:
    """A clip to `(3, F, S, S)`: F frames from the first to the last, the shorter side scaled to S,
    bilinear, and the central square taken."""

    num_frames: int
    image_size: int

    def __call__(self, clip: Any) -> Tensor:
        from torchvision.transforms.functional import center_crop

        S = self.image_size
        chosen = np.linspace(0, len(clip.frames) - 1, self.num_frames, dtype=int)
        frames = clip.frames[chosen].float() / 255
        H, W = frames.shape[-2:]
        size = (S, int(W / H * S)) if H <= W else (int(H / W * S), S)
        frames = nn.functional.interpolate(frames, size, mode="bilinear", align_corners=False)
        return normalised(center_crop(frames, [S, S]).transpose(0, 1))


def _stated(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    return (TEXT if part == "text_config" else PICTURE) | (config.get(part) or {})
