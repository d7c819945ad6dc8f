"""The base class of encoders.

Axes: n samples, w width of the features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate


def pad_and_stack(inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pads sequences of different lengths with zeros at the end.

    Each input is `(length, …)`; gives `values` `(n, longest, …)` and `mask` `(n, longest)`, true
    where there is data.
    """
    lengths = torch.tensor([len(x) for x in inputs])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    return {"values": nn.utils.rnn.pad_sequence(list(inputs), batch_first=True), "mask": mask}


class Encoder(nn.Module, ABC):
    """Turns samples of one modality into features.

    Options are explicit, annotated keywords with defaults, of TOML's types. In evaluation mode
    features are a function of the one sample: neither its batch-mates nor padding change them.
    """

    width: int
    """Of the features."""
    window: float | None = None
    """The longest stretch that one forward sees, in the unit of `Modality.segments`; None where
    the encoder takes any length."""
    resolution: float | None = None
    """The finest sample that it makes use of, in the modality's own unit (where there are pixels,
    those of the shorter side); None where it does not say."""
    preprocess: Callable[[Any], Any]
    """Canonical sample to one input: deterministic, and picklable because loader workers run it;
    so a plain function or a small frozen dataclass, not a method of the module. Its `repr` is part
    of the model's fingerprint."""
    collate: Callable[[Sequence[Any]], Any] = staticmethod(
        cast("Callable[[Sequence[Any]], Any]", default_collate)
    )
    """A list of inputs to a batch of tensors (a tensor, or a dict of them); picklable too.

    In a dict with a `mask` or `attention_mask` `(n, L)`, not zero where there is data, every tensor
    of two or more axes begins with the sizes `(n, L)`. Such a batch may come to `forward` in parts,
    some of the rows at a time, cut to fewer places."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """A batch of `collate` to features `(n, w)`."""

    def list_blocks(self) -> Sequence[nn.Module]:
        """The layers that a sample passes one after the other, from the input on.

        `layer_decay` gives each a learning rate of its own. The default finds the list or sequence
        of modules that holds most parameters.
        """
        lists = [m for m in self.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
        children = [[c for c in m if any(True for _ in c.parameters())] for m in lists]
        return max(children, key=_num_parameters_and_length, default=[])

    def save_files(self, folder: Path) -> None:
        """Writes what the encoder needs besides its options and weights (a tokenizer, a config).

        `folder` exists and is empty. Most encoders need nothing.
        """

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        """Rebuilds the encoder without its weights and with no download.

        `options` are those it was first built with, and `folder` holds what `save_files` wrote.
        """
        del folder
        return cls(**options)


def _num_parameters_and_length(modules: Sequence[nn.Module]) -> tuple[int, int]:
    return sum(p.numel() for m in modules for p in m.parameters()), len(modules)
