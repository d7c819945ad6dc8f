"""Whole models of `transformers` whose towers share a space: CLIP, SigLIP, CLAP, X-CLIP and alike.

Axes: D dim, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from omnialign import AlignedModel, AlignedTower, ModelError
from omnialign_pretrained.adapter import PretrainedEncoder
from omnialign_pretrained.audio import PretrainedAudio
from omnialign_pretrained.checkpoint import Origin, members, outline, read_config, read_whole
from omnialign_pretrained.families import TOWER_WORDS, Pooling, family_of
from omnialign_pretrained.image import PretrainedImage
from omnialign_pretrained.text import PretrainedText
from omnialign_pretrained.video import PretrainedVideo

KINDS: Mapping[str, type[PretrainedEncoder]] = {
    kind.modality: kind
    for kind in (PretrainedText, PretrainedImage, PretrainedAudio, PretrainedVideo)
}
SCALES = ("logit_scale", "logit_scale_a")
"""Names of the log of the inverse temperature; CLAP has one for each direction, of which this
asks a sound for its words."""
TEMPERATURE = "temperature"
BIAS = "logit_bias"


def read_aligned(
    name: str, *, revision: str | None, modalities: Sequence[str] | None
) -> AlignedModel:
    """A model that has `get_text_features` and the same of another modality.

    Towers, their projections, temperature and bias. A projection that is one matrix becomes the
    space's own; any other stays inside its encoder.
    """
    config, origin = read_config(Origin(name, revision, is_whole=True))
    whole = outline(config, origin)
    found = [m for m in KINDS if callable(getattr(whole, f"get_{m}_features", None))]
    if "text" not in found or len(found) < 2:
        raise ModelError(
            f"'{name}' is a {config.model_type} model, whose towers share no space; take it as an "
            f"encoder: {{ name = 'transformers', model = '{name}' }}"
        )
    wanted = [m for m in found if modalities is None or m in modalities]
    matrices = {m: matrix for m in wanted if (matrix := _matrix(whole, config, m)) is not None}
    numbers = [n for n in members(whole) if n in (*SCALES, TEMPERATURE, BIAS)]
    rest = read_whole(origin, config, [*numbers, *matrices.values()], tops=members(whole))
    towers: dict[str, AlignedTower] = {}
    for m in wanted:
        towers[m] = _tower(m, origin, _pooling(whole, config, m), rest, matrices.get(m))
    pairs = [("text", m) for m in found if m != "text"]
    bias: Tensor | None = getattr(rest, BIAS, None)
    dims = {
        len(t.projection) if t.projection is not None else t.encoder.width for t in towers.values()
    }
    if len(dims) > 1:
        raise ModelError(f"'{name}': its towers give features of different widths: {sorted(dims)}")
    return AlignedModel(
        max(dims, default=1),
        towers,
        dict.fromkeys(pairs, _scale(rest, config)),
        {} if bias is None else dict.fromkeys(pairs, float(bias.detach())),
    )


def _tower(
    modality: str, origin: Origin, pooling: Pooling, rest: Any, matrix: str | None
) -> AlignedTower:
    options = {"model": origin.model, "revision": origin.revision, "pooling": pooling}
    projection: Tensor | None = None
    if matrix is not None:
        projection = rest.get_submodule(matrix).weight.detach()
    return AlignedTower(KINDS[modality](**options), "transformers", options, projection)


def _projection(whole: Any, modality: str) -> str | None:
    """The name of what brings a tower's own pooling into the space; None where it lies in it."""
    names = [f"{word}_projection" for word in TOWER_WORDS[modality]]
    return next((name for name in members(whole) if name in names), None)


def _matrix(whole: Any, config: Any, modality: str) -> str | None:
    """As `_projection`, where it is one matrix `(D, W)` behind what the family pools."""
    name = _projection(whole, modality)
    if name is None or family_of(config).pooling.get(modality) != "model":
        return None
    layer = whole.get_submodule(name)
    is_matrix = isinstance(layer, nn.Linear) and set(layer.state_dict()) == {"weight"}
    return name if is_matrix else None


def _pooling(whole: Any, config: Any, modality: str) -> Pooling:
    in_space = _projection(whole, modality) is None
    is_known = family_of(config).pooling.get(modality) == "model"
    matrix = _matrix(whole, config, modality)
    return "model" if is_known and (in_space or matrix is not None) else "projected"


def _scale(rest: Any, config: Any) -> float:
    """The inverse temperature, as the model clamps it; 1 of a model that has none."""
    numbers = dict(rest.named_parameters(recurse=False))
    for name in SCALES:
        if name in numbers:
            return min(numbers[name].exp().item(), getattr(config, "max_logit_scale", torch.inf))
    return 1 / numbers[TEMPERATURE].item() if TEMPERATURE in numbers else 1.0
