"""Pictures and texts as CLIP takes them, for models that came after it.

Axes: H height, W width, S side of the square, L tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from omnialign import ModelError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
PROBE = "  Déjà-vu: 3 RED circles, don't (two\nlines) … 赤い円 🙂"
"""Case, accents, spaces, marks and scripts: where tokenizers differ."""


def normalised(pixels: Tensor) -> Tensor:
    """Values in 0..1, `(3, …)`, with CLIP's mean and deviation."""
    shape = (3, *[1] * (pixels.ndim - 1))
    return (pixels - torch.tensor(CLIP_MEAN).view(shape)) / torch.tensor(CLIP_DEVIATION).view(shape)


@dataclass(frozen=True)
class ClipPixels:
    """uint8 `(3, H, W)` to float32 `(3, S, S)`: the shorter side is scaled to S, bicubic, and the
    central square is taken.

    With `is_scaled_as_floats` the picture is scaled as a tensor of floats, else by Pillow as bytes.
    """

    image_size: int
    is_scaled_as_floats: bool = False

    def __call__(self, sample: Tensor) -> Tensor:
        from torchvision.transforms import (
            CenterCrop,
            Compose,
            InterpolationMode,
            Resize,
            functional,
        )

        S = self.image_size
        to_square = Compose([Resize(S, InterpolationMode.BICUBIC), CenterCrop(S)])
        if self.is_scaled_as_floats:
            return normalised(to_square(sample / 255))
        return normalised(functional.to_tensor(to_square(functional.to_pil_image(sample))))


@dataclass(frozen=True, eq=False)
class ClipTokens:
    """A text to token ids `(L,)` by a tokenizer of the open_clip library, padded or cut to L."""

    tokenizer: Any = field(repr=False)
    num_tokens: int
    vocabulary: str
    """A hash that identifies the tokenizer."""

    def __call__(self, text: str) -> Tensor:
        return self.tokenizer([text], self.num_tokens)[0]


def vocabulary_hash(vocabulary: Mapping[str, int], probed: Sequence[int]) -> str:
    """Identifies a tokenizer by what it does: its vocabulary, and its ids for `PROBE`."""
    does = json.dumps([vocabulary, probed], sort_keys=True)
    return hashlib.sha256(does.encode()).hexdigest()[:16]


@cache
def clip_tokens(num_tokens: int) -> ClipTokens:
    """With CLIP's vocabulary, which the open_clip library brings; `ModelError` without it."""
    try:
        from open_clip import SimpleTokenizer
    except ImportError as error:
        raise ModelError(
            f"this text tower wants CLIP's vocabulary, which the open_clip library brings ({error})"
            "; install it: pip install 'omnialign-pretrained[open-clip]'"
        ) from None
    tokenizer = SimpleTokenizer()
    probed = tokenizer([PROBE], num_tokens)[0].tolist()
    return ClipTokens(tokenizer, num_tokens, vocabulary_hash(tokenizer.encoder, probed))
