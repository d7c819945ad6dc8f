"""What differs between the models of `transformers`, by model type.

A model that is not in the table works by the rules that stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Pooling = Literal["cls", "mean", "max", "last", "attention", "model", "projected"]
"""From the features of tokens to those of a sample: the first token; the mean, the maximum or a
learned attention over tokens; the last token; what the model's own pooler gives; the same behind
the projection of an aligned model."""
OWN = ("model", "projected")
"""The poolings that the model does itself."""

TOWERS = {
    "text": "text_model",
    "image": "vision_model",
    "audio": "audio_model",
    "video": "video_model",
}
"""Where a model with several towers keeps them."""
TOWER_WORDS = {
    "text": ("text",),
    "image": ("vision", "visual", "image"),
    "audio": ("audio",),
    "video": ("video", "vision", "visual", "mit"),
}
"""How the names begin of all that a tower of an aligned model consists of."""
INPUTS = {
    "text": ("input_ids",),
    "protein": ("input_ids",),
    "image": ("pixel_values",),
    "audio": ("input_values", "input_features"),
    "video": ("pixel_values_videos", "pixel_values"),
}
"""What a model of each modality calls its input."""
MOVING = {"videomae", "vivit", "timesformer", "xclip"}
"""Models of video that call their input as those of images do."""

CLASS_TOKENS = {"cls_token", "class_token", "class_embedding"}
"""What the parameter of a class token is called."""
HEADS = {"pooler", "contact_head"}
"""Members that are left out where they are not used."""
STILL = {"mask_token", "masked_spec_embed"}
"""Parameters of pretraining alone."""
SETTINGS: Mapping[str, Any] = {"use_cache": False, "apply_spec_augment": False, "layerdrop": 0.0}
"""What is set in every configuration that has it: nothing is cached, and nothing is masked or left
out at random but by dropout."""


@dataclass(frozen=True)
class Family:
    """How a type of model differs from the rules."""

    parts: Mapping[str, str] = field(default_factory=dict[str, str])
    """By modality, where its encoder lies."""
    pooling: Mapping[str, Pooling] = field(default_factory=dict[str, Pooling])
    """By modality, unless the user chooses."""
    widths: Mapping[str, str] = field(default_factory=dict[str, str])
    """By modality, the setting that says how wide the own pooling is, where not `hidden_size`."""
    pooler: tuple[str, ...] = ()
    """What stays unused of an encoder whose own pooling is not taken."""
    fixed: tuple[str, ...] = ()
    """What takes no part, or is never trained by the model itself."""
    has_class_token: bool | None = None
    """Among its tokens, where parameters do not tell."""
    padded_text: int | None = None
    """The number of tokens that every text is padded to, where features depend on it."""


ALIGNED: Mapping[str, Pooling] = {"text": "model", "image": "model", "audio": "model"}
PERCEPTION: Mapping[str, Pooling] = {"text": "cls", "audio": "model", "video": "model"}
SIGMOID = Family(
    pooling=ALIGNED, widths={"text": "projection_size"}, pooler=("head",), padded_text=64
)
FAMILIES: Mapping[str, Family] = {
    "clap": Family(pooling=ALIGNED, fixed=("fusion_model", "mel_conv2d")),
    "clip": Family(pooling=ALIGNED, pooler=("post_layernorm",)),
    "metaclip_2": Family(pooling=ALIGNED, pooler=("post_layernorm",)),
    "pe_audio": Family(
        {"audio": "audio_encoder"},
        PERCEPTION,
        fixed=("dac_encoder", "bottleneck"),
        has_class_token=False,
    ),
    "pe_audio_video": Family(
        {"audio": "audio_model.audio_encoder", "video": "video_model.video_encoder"},
        PERCEPTION,
        fixed=("dac_encoder", "bottleneck"),
        has_class_token=False,
    ),
    "pe_video": Family({"video": "video_encoder"}, PERCEPTION, has_class_token=False),
    "siglip": SIGMOID,
    "siglip2": SIGMOID,
    "tipsv2": Family(pooling=ALIGNED, padded_text=64),
    "vjepa2": Family({"video": "encoder"}),
    "xclip": Family(pooling={"text": "model", "video": "projected"}),
}


def family_of(config: Any) -> Family:
    """That of a model, or of the model that a tower was taken out of."""
    kind = config.model_type
    for ending in ("_text_model", "_vision_model", "_audio_model", "_encoder"):
        if kind not in FAMILIES:
            kind = kind.removesuffix(ending)
    return FAMILIES.get(kind, Family())
