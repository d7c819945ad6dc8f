"""Random draws that are the same on every machine and in every release.

Only streams whose bits are guaranteed are used: `random.Random.random` with an integer seed, and
raw PCG64 words. Distributions, whose algorithms may change, are made from these by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")


class Draws:
    """A stream that is a function of its key alone."""

    def __init__(self, *key: str | int) -> None:
        digest = blake2b(repr(key).encode(), digest_size=16).digest()
        self._seed = int.from_bytes(digest, "big")
        self._random = Random(self._seed).random
        self._words: np.random.PCG64 | None = None

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def choice(self, values: Sequence[Value]) -> Value:
        return values[int(self._random() * len(values))]

    def chance(self, share: float) -> bool:
        return self._random() < share

    def noise(self, *shape: int) -> NDArray[np.float64]:
        """Independent numbers from -1 to 1."""
        return self._raw(*shape) * 2.0**-52 - 1.0

    def indices(self, size: int, below: int) -> NDArray[np.int64]:
        """`(size,)` independent whole numbers from 0 to `below` - 1."""
        return (self._raw(size) * (2.0**-53 * below)).astype(np.int64)

    def _raw(self, *shape: int) -> NDArray[np.float64]:
        if self._words is None:
            self._words = np.random.PCG64(self._seed)
        words = self._words.random_raw(int(np.prod(shape)))
        return (np.asarray(words) >> np.uint64(11)).astype(np.float64).reshape(shape)
