"""Towers: an encoder and its projection onto the unit sphere.

Axes: n items, w width of features, D dim.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn

from omnialign.contract import LongInput, Modality
from omnialign.data.buckets import Padding, length_buckets
from omnialign.data.pipeline import Pipeline
from omnialign.encoder import Encoder
from omnialign.errors import PluginError, RecipeError


class Tower(nn.Module):
    """An encoder and its projection, with what it takes to rebuild them."""

    def __init__(
        self,
        modality: Modality[Any],
        encoder: Encoder,
        *,
        name: str,
        options: Mapping[str, Any],
        dim: int,
        projection: str,
        long_input: LongInput,
    ) -> None:
        super().__init__()
        if long_input == "native" and encoder.window is not None:
            raise RecipeError(
                f"towers.{modality.name}.long_input = 'native' wants an encoder that takes any "
                f"length; '{name}' sees {encoder.window:g} at once: choose 'windows' or 'truncate'"
            )
        self.modality = modality
        self.encoder = encoder
        self.projection = build_projection(projection, encoder.width, dim, modality.name)
        self.padding = Padding()
        self.in_buckets = True
        self.config: dict[str, Any] = {
            "encoder": {"name": name, **options},
            "projection": projection,
            "long_input": long_input,
        }

    @property
    def pipeline(self) -> Pipeline:
        """What stands before the encoder, with no augmentation."""
        return Pipeline(
            modality=self.modality,
            preprocess=self.encoder.preprocess,
            collate=self.encoder.collate,
            window=self.encoder.window,
            long_input=self.config["long_input"],
        )

    def stated_preprocess(self) -> str:
        """What turns a sample into an input, in words that are the same in every process."""
        preprocess: Any = self.encoder.preprocess
        if inspect.isfunction(preprocess):
            return f"{preprocess.__module__}.{preprocess.__qualname__}"
        stated = repr(preprocess)
        if " at 0x" in stated:
            raise PluginError(
                f"{type(self.encoder).__qualname__}.preprocess is {stated}, which says nothing of "
                "its settings; make it a plain function or a frozen dataclass"
            )
        return stated

    def fingerprint(self) -> str:
        """A hash of all that an embedding follows from besides the item."""
        about = [self.stated_preprocess(), self.encoder.window, self.config]
        return digest_of_weights(self, json.dumps(about, sort_keys=True))

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def forward(self, batch: Any) -> Tensor:
        """A collated batch to unit vectors `(n, D)`."""
        return self.project(self.features(batch))

    def features(self, batch: Any) -> Tensor:
        """A collated batch, best on the CPU, to features `(n, w)` on the device of the tower.

        A padded batch goes through the encoder in length buckets, counted in `padding`.
        """
        device = next(self.parameters()).device
        if not self.in_buckets:
            return self.encoder(send_to_device(batch, device))
        parts = length_buckets(batch, device.type, self.padding)
        found = [self.encoder(send_to_device(part, device)) for _, part in parts]
        if len(found) == 1:
            return found[0]
        back = torch.cat([rows for rows, _ in parts]).argsort()
        return torch.cat(found).index_select(0, back.to(device))

    def project(self, features: Tensor) -> Tensor:
        """Features `(n, w)` to unit vectors `(n, D)`, in float32 at least."""
        vectors = self.projection(features)
        if vectors.dtype in (torch.float16, torch.bfloat16):
            vectors = vectors.float()
        with torch.autocast(vectors.device.type, enabled=False):
            return nn.functional.normalize(vectors, dim=-1)


def digest_of_weights(module: nn.Module, about: str) -> str:
    """A hash of the weights of a module, and of what is said about it."""
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def prefix(vectors: Tensor, dim: int) -> Tensor:
    """The first `dim` numbers of unit vectors `(…, D)` as unit vectors `(…, dim)`."""
    if vectors.shape[-1] == dim:
        return vectors
    return nn.functional.normalize(vectors[..., :dim], dim=-1)


def build_projection(kind: str, width: int, dim: int, modality: str) -> nn.Module:
    """`linear` is one matrix, `mlp` a hidden layer, `identity` nothing."""
    if kind == "identity":
        if width != dim:
            raise RecipeError(
                f"towers.{modality}.projection = 'identity' wants features as wide as the space; "
                f"the encoder gives {width} and space.dim is {dim}"
            )
        return nn.Identity()
    if kind == "mlp":
        return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim, bias=False))
    return nn.Linear(width, dim, bias=False)
