"""The networks of LanguageBind (Zhu et al., ICLR 2024): CLIP's, and for videos attention over time.

Axes: n samples, S side of the square, F frames, T tokens of text, L tokens, W width, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from omnialign_pretrained.attention_blocks import Block, attend
from omnialign_pretrained.state_dicts import LazyState


class Attention(nn.Module):
    """Self-attention over `(n, L, W)`, a matrix each for queries, keys and values."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.out_proj(attend(q, k, v, self.num_heads, is_causal))


@dataclass(frozen=True)
class Trunk:
    """The sizes that the towers for texts and for what is seen or heard share."""

    width: int
    hidden: int
    num_heads: int
    depth: int
    activation: str
    eps: float

    @classmethod
    def of(cls, stated: Mapping[str, Any]) -> Trunk:
        return cls(
            stated["hidden_size"],
            stated["intermediate_size"],
            stated["num_attention_heads"],
            stated["num_hidden_layers"],
            stated["hidden_act"],
            stated["layer_norm_eps"],
        )

    def blocks(self, num_frames: int | None = None) -> nn.ModuleList:
        """For videos of `num_frames`, with attention over time."""
        from transformers.activations import ACT2FN

        kind = Block if num_frames is None else partial(SpaceTimeBlock, num_frames)
        return nn.ModuleList(
            kind(
                self.width,
                self.hidden,
                Attention(self.width, self.num_heads),
                ACT2FN[self.activation],
                self.eps,
            )
            for _ in range(self.depth)
        )


class SpaceTimeBlock(Block):
    """Attention over time at each place, then a block over the places of each frame."""

    def __init__(
        self,
        num_frames: int,
        width: int,
        hidden: int,
        attention: Attention,
        activation: Any,
        eps: float,
    ) -> None:
        super().__init__(width, hidden, attention, activation, eps)
        self.temporal_embedding = nn.Parameter(torch.randn(1, num_frames, width) * width**-0.5)
        self.temporal_norm = nn.LayerNorm(width, eps)
        self.temporal_attn = Attention(width, attention.num_heads)

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        """`(n F, L, W)`."""
        F = self.temporal_embedding.shape[1]
        over_time = x.unflatten(0, (-1, F)).transpose(1, 2)  # (n, L, F, W)
        n, L = over_time.shape[:2]
        t = over_time.flatten(0, 1)
        if F > 1:
            t = t + self.temporal_embedding
        t = t + self.temporal_attn(self.temporal_norm(t))
        return super().forward(t.unflatten(0, (n, L)).transpose(1, 2).flatten(0, 1), is_causal)


class PictureTower(nn.Module):
    """Pictures `(n, 3, S, S)`, mel bands in their place, or frames `(n, 3, F, S, S)`, to `(n, D)`.

    The class tokens of the frames of a video are averaged. Videos of version 1.5 (`vl_new`) have a
    class token for each frame.
    """

    def __init__(self, stated: Mapping[str, Any], dim: int) -> None:
        super().__init__()
        trunk, patch = Trunk.of(stated), stated["patch_size"]
        height, width = picture_size(stated)
        num_tokens = 1 + (height // patch) * (width // patch)
        size = (patch, patch)
        self.stem: nn.Module = nn.Conv2d(3, trunk.width, size, size, bias=False)
        cls_token = torch.randn(trunk.width) * trunk.width**-0.5
        if stated["clip_type"] == "vl_new":
            self.stem = nn.Conv3d(3, trunk.width, (1, *size), (1, *size), bias=False)
            cls_token = cls_token.repeat(stated["num_frames"], 1)
        self.cls_token = nn.Parameter(cls_token)
        self.position = nn.Embedding(num_tokens, trunk.width)
        self.norm_first = nn.LayerNorm(trunk.width, trunk.eps)
        self.blocks = trunk.blocks(stated["num_frames"] if stated["add_time_attn"] else None)
        self.norm_last = nn.LayerNorm(trunk.width, trunk.eps)
        self.projection = nn.Linear(trunk.width, dim, bias=False)

    def forward(self, batch: Tensor) -> Tensor:
        n = len(batch)
        frames = batch.transpose(1, 2).flatten(0, 1) if batch.ndim == 5 else batch
        if isinstance(self.stem, nn.Conv3d):
            frames = frames[:, :, None]
        patches = self.stem(frames).flatten(2).mT
        first = self.cls_token.view(-1, 1, patches.shape[-1])  # one for all frames, or one for each
        tokens = torch.cat([first.repeat(len(frames) // len(first), 1, 1), patches], 1)
        tokens = self.norm_first(tokens + self.position.weight)
        for block in self.blocks:
            tokens = block(tokens)
        return self.projection(self.norm_last(tokens[:, 0]).unflatten(0, (n, -1)).mean(1))


class TextTower(nn.Module):
    """Token ids `(n, T)` to `(n, D)`: a token sees those before it, and the last is projected."""

    def __init__(self, stated: Mapping[str, Any], dim: int) -> None:
        super().__init__()
        trunk = Trunk.of(stated)
        self.token_embedding = nn.Embedding(stated["vocab_size"], trunk.width)
        self.position = nn.Embedding(stated["max_position_embeddings"], trunk.width)
        self.blocks = trunk.blocks()
        self.norm_last = nn.LayerNorm(trunk.width, trunk.eps)
        self.projection = nn.Linear(trunk.width, dim, bias=False)

    def forward(self, batch: Tensor) -> Tensor:
        tokens = self.token_embedding(batch) + self.position.weight
        for block in self.blocks:
            tokens = block(tokens, is_causal=True)
        ends = batch.argmax(-1)  # the first end token, the last word of the vocabulary
        last = tokens[torch.arange(len(tokens), device=tokens.device), ends]
        return self.projection(self.norm_last(last))


def picture_size(stated: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width; of sound, mel bands and frames."""
    if stated["num_mel_bins"] and stated["target_length"]:
        return int(stated["num_mel_bins"]), int(stated["target_length"])
    size = stated["image_size"]
    return (size, size) if isinstance(size, int) else (size[0], size[1])


PICTURE_PARTS = {
    "stem": "vision_model.embeddings.patch_embedding",
    "cls_token": "vision_model.embeddings.class_embedding",
    "position": "vision_model.embeddings.position_embedding",
    "norm_first": "vision_model.pre_layrnorm",
    "norm_last": "vision_model.post_layernorm",
    "blocks": "vision_model.encoder.layers",
    "projection": "visual_projection",
}
TEXT_PARTS = {
    "token_embedding": "text_model.embeddings.token_embedding",
    "position": "text_model.embeddings.position_embedding",
    "norm_last": "text_model.final_layer_norm",
    "blocks": "text_model.encoder.layers",
    "projection": "text_projection",
}
BLOCK_PARTS = {
    "norm_1": "layer_norm1",
    "norm_2": "layer_norm2",
    "attn": "self_attn",
    "temporal_norm": "temporal_layer_norm1",
}
"""Parts of a tower, and of its blocks, by their names in the published file; the rest has the
same name there."""


def published_name(parts: Mapping[str, str], own: str) -> str:
    """The name that the file has for a weight of a tower."""
    part, _, rest = own.partition(".")
    if part == "blocks":
        index, inner, *last = rest.split(".")
        rest = ".".join([index, BLOCK_PARTS.get(inner, inner), *last])
    return f"{parts[part]}.{rest}" if rest else parts[part]


def merge_lora(state: LazyState, scale: float) -> LazyState:
    """The weights with their low-rank updates added, under the names that they have without.

    Files of the towers that were tuned so keep `lora_A` and `lora_B` beside the weight, and `peft`
    puts `base_model.model` (and, from version 0.6 on, `base_layer`) into names.
    """
    plain = {
        name.replace(".base_model.model.", ".").replace(".base_layer.", "."): read
        for name, read in state.items()
    }
    for name in [n for n in plain if n.endswith(".lora_A.default.weight")]:
        layer = name.removesuffix(".lora_A.default.weight")
        weight, other = f"{layer}.weight", f"{layer}.lora_B.default.weight"
        if weight in plain and other in plain:
            parts = plain[weight], plain.pop(other), plain.pop(name)
            plain[weight] = partial(_sum, *parts, scale)
    return plain


def _sum(weight: Any, up: Any, down: Any, scale: float) -> Tensor:
    return weight() + scale * (up() @ down())
