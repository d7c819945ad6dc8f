"""What a run keeps of rows that it never learned from: vectors, and which of them belong together.

Axes: n items, P partners, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from omnialign.errors import ModelError
from omnialign.tensor_file import write_tensors

FORMAT = 1


@dataclass(frozen=True)
class HeldOut:
    """A sample from which scores are calibrated.

    Args:
        vectors: by modality, unit vectors `(n, D)`, each item once.
        partners: by pair of modalities, `(P, 2)`: places of items that belong together.
        fingerprints: of the tower of each modality that the vectors came of.
    """

    vectors: dict[str, Tensor]
    partners: dict[tuple[str, str], Tensor]
    fingerprints: dict[str, str]

    def of(self, fingerprints: Mapping[str, str]) -> HeldOut | None:
        """What the towers with these fingerprints gave; None where they gave nothing."""
        kept = {m: found for m, found in self.fingerprints.items() if fingerprints.get(m) == found}
        if not kept:
            return None
        return HeldOut(
            {m: self.vectors[m] for m in kept},
            {pair: places for pair, places in self.partners.items() if kept.keys() >= {*pair}},
            kept,
        )

    def save(self, file: Path) -> None:
        """Writes one safetensors file; the same sample gives the same bytes."""
        tensors = {f"vectors.{m}": found.contiguous() for m, found in self.vectors.items()}
        pairs = list(self.partners)
        tensors |= {f"partners.{i}": self.partners[pair] for i, pair in enumerate(pairs)}
        about = {"format": FORMAT, "pairs": pairs, "towers": self.fingerprints}
        write_tensors(tensors, file, {"held_out": json.dumps(about)})

    @classmethod
    def load(cls, file: Path) -> HeldOut:
        """What `save` wrote; raises `ModelError` that names a damaged file."""
        try:
            with safe_open(file, "pt") as opened:
                about = json.loads(opened.metadata()["held_out"])
                if about["format"] != FORMAT:
                    raise ValueError(f"format {about['format']}, where {FORMAT} is read")
                found = cls(
                    {m: opened.get_tensor(f"vectors.{m}") for m in about["towers"]},
                    {
                        (x, y): opened.get_tensor(f"partners.{i}")
                        for i, (x, y) in enumerate(about["pairs"])
                    },
                    about["towers"],
                )
            found._check()
        except Exception as error:
            raise ModelError(
                f"{file} is damaged ({type(error).__name__}: {error}); copy the model again"
            ) from None
        return found

    def _check(self) -> None:
        """Raises `ValueError` where places lie outside of the vectors, or shapes differ."""
        if len({vectors.shape[1:] for vectors in self.vectors.values()}) != 1:
            raise ValueError("vectors of several sizes")
        if not all(v.ndim == 2 and v.isfinite().all() for v in self.vectors.values()):
            raise ValueError("vectors that are no finite (n, D)")
        for (x, y), places in self.partners.items():
            ends = torch.tensor([len(self.vectors[x]), len(self.vectors[y])])
            if places.ndim != 2 or not ((places >= 0) & (places < ends)).all():
                raise ValueError(f"partners of {x} and {y} that are not there")
