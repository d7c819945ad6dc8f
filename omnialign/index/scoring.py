"""What a library's scores are fitted to: the sample that its model kept, or rows of its own.

Axes: n rows, D dim.
"""

from __future__ import annotations

import numpy as np

from omnialign.calibration import Calibration, FittedScores
from omnialign.errors import ModalityError
from omnialign.index.rows import key_of, vectors_of
from omnialign.index.store import Array, Rows
from omnialign.space import SharedSpace

SCORES = "scores"
"""The key of the document with the fitted lines."""
_SAMPLE = 500
"""Rows of each modality."""
_WORDS = 64


def of_model(space: SharedSpace) -> FittedScores:
    """What the model has kept says; nothing where it kept nothing."""
    if space.held_out is None:
        return FittedScores({})
    return Calibration.from_held_out(space.held_out, space.dim).fitted()


def of_library(space: SharedSpace, rows: Rows) -> FittedScores:
    """As `of_model`, where modalities without a kept sample have rows in its place.

    Words ask more often than anything else; where the model has kept none, the modality's examples
    stand for them.
    """
    vectors = _sample(rows)
    try:
        words = space.words
    except ModalityError:
        words = None
    if words is not None and words not in vectors:
        examples = space.tower(words).modality.example_samples(_WORDS)
        vectors[words] = space.embed(list(examples), words).numpy()
    if space.held_out is None:
        return Calibration.from_vectors(vectors).fitted()
    kept = Calibration.from_held_out(space.held_out, space.dim)
    return kept.with_vectors(vectors).fitted()


def _sample(rows: Rows) -> dict[str, Array]:
    """Vectors of rows by modality, the same as long as the rows are."""
    chosen: dict[str, list[tuple[int, str]]] = {}
    for batch in rows.read(["id", "modality"]):
        for row in batch.to_pylist():
            own = chosen.setdefault(row["modality"], [])
            own.append((key_of(row["id"]), row["id"]))
            if len(own) > 2 * _SAMPLE:
                own.sort()
                del own[_SAMPLE:]
    return {modality: _vectors(rows, own) for modality, own in chosen.items()}


def _vectors(rows: Rows, chosen: list[tuple[int, str]]) -> Array:
    ids = [row_id for _, row_id in sorted(chosen)[:_SAMPLE]]
    return np.asarray(vectors_of(rows.find("id", ids, ["vector"])))
