"""Vectors in eight bits, and how far their cosines can be off.

A vector is turned by a fixed random rotation, which spreads it evenly over its coordinates whatever
it was made by, and rounded to int8 with one step for all. With x̂ and q̂ for what codes stand for,
|x·q − x̂·q̂| ≤ ‖x − x̂‖ ‖q̂‖ + ‖x‖ ‖q − q̂‖, and each of these lengths is known.

Axes: n rows, D dim, q queries, P largest power of two in D.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]

LEVELS = 127
SPREAD = 6.0
"""Standard deviations of a rotated coordinate that the codes reach; one in a billion is beyond."""
SLACK = 1e-5
"""Rounding of float32 in the rotation and in products, well above what it can be."""


@dataclass(frozen=True)
class CodedQueries:
    """Queries in eight bits, each with a step of its own.

    codes: (q, D) int8. units: (q,) what a product of codes of one stands for, as a cosine.
    margins: (q,) the most by which a cosine from codes can be off.
    """

    codes: Codes
    units: Floats
    margins: Floats


@lru_cache(maxsize=4)
def rotation(dim: int) -> Floats:
    """(D, D) orthogonal and always the same: two Hadamard matrices with random signs before them.

    The first mixes the first P coordinates, the second the last P, which are all of them if D = P.
    """
    size = 1 << (dim.bit_length() - 1)
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    hadamard /= np.sqrt(size)
    signs = 1.0 - 2.0 * (np.random.PCG64(0).random_raw((2, dim)) >> np.uint64(63))
    first, second = np.eye(dim), np.eye(dim)
    first[:size, :size] = hadamard
    second[dim - size :, dim - size :] = hadamard
    return ((second * signs[1]) @ (first * signs[0])).astype(np.float32)


def step(dim: int) -> float:
    """What one level of a row's code stands for."""
    return min(SPREAD / np.sqrt(1 << (dim.bit_length() - 1)), 1.0) / LEVELS


def code(vectors: Floats) -> tuple[Codes, Floats]:
    """Codes (n, D) of unit vectors (n, D), and the length of what each of them lost (n,)."""
    dim = vectors.shape[1]
    rotated = vectors @ rotation(dim).T
    rotated /= step(dim)
    levels = np.clip(np.rint(rotated), -LEVELS, LEVELS)
    errors = np.linalg.norm(rotated - levels, axis=1) * step(dim)
    return levels.astype(np.int8), errors.astype(np.float32)


def code_queries(queries: Floats, worst: float) -> CodedQueries:
    """Queries (q, D) for rows that lost at most `worst` each."""
    dim = queries.shape[1]
    rotated = queries @ rotation(dim).T
    steps = np.abs(rotated).max(1, keepdims=True) / LEVELS
    steps[steps == 0] = 1.0
    levels = np.rint(rotated / steps)
    lost = np.linalg.norm(rotated - steps * levels, axis=1)
    kept = np.linalg.norm(steps * levels, axis=1)
    return CodedQueries(
        levels.astype(np.int8),
        (steps[:, 0] * step(dim)).astype(np.float32),
        (worst * kept + lost + SLACK).astype(np.float32),
    )
