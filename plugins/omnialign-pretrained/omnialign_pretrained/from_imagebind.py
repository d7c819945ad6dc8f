"""ImageBind (Girdhar et al., CVPR 2023) from its published file: images, text and sound.

The file has three towers more. Depth and thermal pictures are modalities of no plugin; how IMU
signals are scaled was not published with it. They are passed over.

Axes: n samples, H height, W width, S side of the square, C channels, T samples in time, M mel
bands, F frames, L tokens of text, D dim.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from omnialign import AlignedModel, AlignedTower, Encoder, ModelError
from omnialign_pretrained.clip_inputs import ClipPixels, clip_tokens
from omnialign_pretrained.imagebind_towers import (
    PARTS,
    AudioTower,
    ImageTower,
    Sizes,
    TextTower,
    published_name,
)
from omnialign_pretrained.kaldi_mel import KaldiMel
from omnialign_pretrained.places import read_json
from omnialign_pretrained.state_dicts import LazyState, fill, read_lazily

PUBLISHED_MODALITIES = ("vision", "text", "audio", "depth", "thermal", "imu")
SCALE = "modality_postprocessors.{}.1.log_logit_scale"
MAX_SCALE = 100.0
CLIP_SECONDS = 2.0
SIZES = "sizes.json"


def read(name: str, *, revision: str | None, modalities: Sequence[str] | None) -> AlignedModel:
    """The towers of ImageBind's published file, or of a safetensors of the same names.

    Embeddings are of length 1: the scales that ImageBind multiplies them by belong to its pairs.
    Raises `ModelError`.
    """
    path = Path(name)
    if revision is not None:
        raise ModelError(
            f"imagebind:{name} is a file, which has no revision '{revision}'; "
            f"leave out '@{revision}'"
        )
    state = read_lazily(path)
    kinds: dict[str, type[_ImageBindTower]] = {
        "image": ImageBindImage,
        "text": ImageBindText,
        "audio": ImageBindAudio,
    }
    encoders = {
        modality: kind._built(_sizes(path, state, kind.published))
        for modality, kind in kinds.items()
        if modalities is None or modality in modalities
    }
    scales = _load(path, state, list(encoders.values()))
    return AlignedModel(
        next((encoder.width for encoder in encoders.values()), 1),
        {m: AlignedTower(e, "imagebind", {"file": name}) for m, e in encoders.items()},
        {("image", m): min(float(scale.exp()), MAX_SCALE) for m, scale in scales.items()},
    )


class _ImageBindTower(Encoder):
    """One tower; what all have in common."""

    published: str
    """What the file calls the modality."""
    network: Any

    def __init__(self, file: str) -> None:
        super().__init__()
        path = Path(file)
        state = read_lazily(path)
        self._build(_sizes(path, state, self.published))
        _load(path, state, [self])

    @abstractmethod
    def _build(self, sizes: Sizes) -> None:
        """Makes the network and the preprocessing, with fresh weights."""

    @classmethod
    def _built(cls, sizes: Sizes) -> Self:
        """With fresh weights."""
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder._build(sizes)
        return encoder

    def forward(self, batch: Tensor) -> Tensor:
        return self.network(batch)

    def save_files(self, folder: Path) -> None:
        """The sizes of the network, which the published file says by its shapes."""
        (folder / SIZES).write_text(json.dumps(asdict(self.network.sizes)), "utf-8")

    @classmethod
    def from_files(cls, folder: Path, **origin: Any) -> Self:
        """Rebuilds it from `save_files`; where it came from is not used."""
        del origin
        return cls._built(Sizes(**read_json(folder / SIZES)))


class ImageBindImage(_ImageBindTower):
    """Images: uint8 `(3, H, W)` to `(3, S, S)` as ImageBind does; features `(n, D)`.

    Args:
        file: `imagebind_huge.pth`, or a safetensors of the same names.
    """

    published = "vision"

    def _build(self, sizes: Sizes) -> None:
        self.network = ImageTower(sizes)
        self.width = sizes.dim
        self.resolution = self.network.image_size
        self.preprocess = ClipPixels(self.network.image_size)


class ImageBindText(_ImageBindTower):
    """Texts, cut at the model's longest sequence, with CLIP's vocabulary, which the open_clip
    library brings; features `(n, D)`.

    Args:
        file: `imagebind_huge.pth`, or a safetensors of the same names.
    """

    published = "text"

    def _build(self, sizes: Sizes) -> None:
        self.network = TextTower(sizes)
        self.width = sizes.dim
        self.preprocess = clip_tokens(sizes.num_tokens)


class ImageBindAudio(_ImageBindTower):
    """Sound in windows of two seconds: `(1, M, F)` mel bands of its first channel at 16 kHz, as
    ImageBind does; features `(n, D)`.

    ImageBind embeds three such windows, spread over a recording; here, where a recording is longer,
    all of them count.

    Args:
        file: `imagebind_huge.pth`, or a safetensors of the same names.
    """

    published = "audio"
    window = CLIP_SECONDS

    def _build(self, sizes: Sizes) -> None:
        self.network = AudioTower(sizes)
        self.width = sizes.dim
        self.preprocess = KaldiMel(
            num_mels=128, num_frames=204, seconds=CLIP_SECONDS, mean=-4.268, deviation=9.138
        )


def _sizes(path: Path, state: LazyState, published: str) -> Sizes:
    """The sizes of a tower, from the shapes of its weights."""

    def shape(own: str) -> tuple[int, ...]:
        name = published_name(published, own)
        if name not in state:
            raise ModelError(f"'{path}' does not hold the weights of ImageBind: missing {name}")
        return tuple(state[name]().shape)

    trunk = re.compile(rf"modality_trunks\.{published}\.blocks\.(\d+)\.")
    blocks = [int(found[1]) for found in map(trunk.match, state) if found]
    _, num_tokens, width = shape("pos_embed")
    return Sizes(
        width=width,
        depth=max(blocks, default=-1) + 1,
        hidden=shape("blocks.0.mlp.fc1.weight")[0],
        num_tokens=num_tokens,
        dim=shape("head.1.weight")[0],
        patch_size=0 if published == "text" else shape("stem.weight")[-1],
        vocabulary_size=shape("token_embedding.weight")[0] if published == "text" else 0,
    )


def _load(path: Path, state: LazyState, encoders: Sequence[_ImageBindTower]) -> dict[str, Tensor]:
    """Fills towers; gives the logarithm of the scale of text and audio."""
    wanted = {encoder.published for encoder in encoders}
    others = [m for m in PUBLISHED_MODALITIES if m not in wanted]
    given = fill(
        path,
        state,
        [(e.network, partial(published_name, e.published)) for e in encoders],
        also=[SCALE.format("text"), SCALE.format("audio")],
        # the mask is no weight: a token of a text never sees those after it
        passed_over=(
            *(f"modality_{part}.{m}." for part in PARTS for m in others),
            "modality_preprocessors.text.mask",
        ),
    )
    return {m: given[SCALE.format(m)] for m in ("text", "audio")}
