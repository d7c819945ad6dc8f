"""Length buckets: a padded batch goes through its encoder in parts of rows of similar length.

Axes: n rows of a batch, L places of a padded row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

MASKS = ("mask", "attention_mask")
FORWARD_PLACES = {"cpu": 40}
"""What a further part has to save at least, in places, by the type of the device, because each
forward costs something besides. BERTs of two and six layers cost about 57 places on a CPU; 40 keep
batches of 32 within 1.25 places a real one."""
ELSEWHERE = 1024
"""The same on an accelerator, which waits for launches when it gets few places: an estimate."""
LEAST_SAVED = 1 / 32
"""Of the real places, which a further part has to save too: it keeps large batches in few parts."""
SIZE_DIGITS, LENGTH_DIGITS = 2, 3
"""Binary digits of a part's rows and places, so that the same shapes come again: a CPU in 16 bits
compiles each product for every new shape, and keeps a thousand of them."""


@dataclass
class Padding:
    """How many places of padded batches held data, and how many were computed."""

    real: int = 0
    processed: int = 0

    @property
    def ratio(self) -> float:
        """Processed to real; 1 where nothing was padded."""
        return self.processed / self.real if self.real else 1.0


def mask_of(batch: Any) -> Tensor | None:
    """The mask `(n, L)` of a padded batch, of which all tensors begin with the sizes `(n, L)`."""
    if not isinstance(batch, Mapping):
        return None
    mask = next((batch[name] for name in MASKS if name in batch), None)
    if mask is None or mask.ndim != 2:
        return None
    padded = all(tensor.shape[:2] == mask.shape[: tensor.ndim] for tensor in batch.values())
    return mask if padded else None


def length_buckets(batch: Any, device: str, padding: Padding) -> list[tuple[Tensor, Any]]:
    """Cuts a batch into the parts that cost the least on a device of this type.

    A part is the numbers `(m,)` of its rows, and these rows cut to little more than the longest of
    them. A batch without a mask is one part, whose rows are not numbered. `padding` counts what the
    parts hold.
    """
    mask = mask_of(batch)
    if mask is None or mask.numel() == 0:
        return [(torch.empty(0, dtype=torch.int64), batch)]
    held = mask.cpu() != 0
    num_rows, width = held.shape
    real = int(held.sum())
    lengths = (held * torch.arange(1, width + 1)).amax(1).clamp(min=1)
    order = lengths.argsort(descending=True, stable=True)
    cut_to = rounded_up(lengths[order].numpy(), LENGTH_DIGITS).clip(max=width)
    part_cost = max(FORWARD_PLACES.get(device, ELSEWHERE), LEAST_SAVED * real)
    sizes = cheapest_cut(cut_to, part_cost)
    parts: list[tuple[Tensor, Any]] = []
    first = 0
    for rows in order.split(sizes) if len(sizes) > 1 else [torch.arange(num_rows)]:
        longest = int(cut_to[first])
        parts.append(
            (rows, {k: t[rows, :longest] if t.ndim > 1 else t[rows] for k, t in batch.items()})
        )
        padding.processed += len(rows) * longest
        first += len(rows)
    padding.real += real
    return parts


def cheapest_cut(lengths: np.ndarray[Any, Any], part_cost: float) -> list[int]:
    """Sizes of consecutive parts of lengths in descending order that cost the least in sum.

    A part costs its rows times its longest, and `part_cost` more. It has all rows, or a number of
    them of few digits. Found by dynamic programming.
    """
    num_rows = len(lengths)
    allowed = np.unique(rounded_up(np.arange(1, num_rows + 1), SIZE_DIGITS))
    least = np.zeros(num_rows + 1)
    last = np.zeros(num_rows + 1, dtype=int)
    for end in range(1, num_rows + 1):
        sizes = allowed[: np.searchsorted(allowed, end, "right")]
        costs = least[end - sizes] + sizes * lengths[end - sizes]
        cheapest = costs.argmin()
        least[end], last[end] = costs[cheapest] + part_cost, sizes[cheapest]
    if num_rows * lengths[0] + part_cost <= least[num_rows]:
        return [num_rows]
    found: list[int] = []
    while num_rows:
        found.append(int(last[num_rows]))
        num_rows -= found[-1]
    return found[::-1]


def rounded_up(numbers: np.ndarray[Any, Any], digits: int) -> np.ndarray[Any, Any]:
    """Each positive integer, or the next with no more than so many significant binary digits."""
    steps = 2 ** np.maximum(0, np.ceil(np.log2(numbers)).astype(int) - digits)
    return -(-numbers // steps) * steps
