"""What a library's scores are fitted to: the sample that its model kept, or rows of its own.

Axes: n rows, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Fitted:
    """Scores, and of how many rows of the library they came, where the model had kept none."""

    scores: FittedScores
    sampled: Mapping[str, int]
    """By modality."""

    def is_outgrown(self, held: Mapping[str, int]) -> bool:
        """Whether rows of some modality, `held` by number, would say more by now."""
        return any(
            not self.scores.know(name)
            or (name in self.sampled and min(count, _SAMPLE) >= 2 * self.sampled[name])
            for name, count in held.items()
        )

    def to_json(self) -> str:
        return json.dumps({"lines": self.scores.to_json(), "sampled": dict(self.sampled)})

    @classmethod
    def from_json(cls, text: str) -> Fitted:
        found = json.loads(text)
        return cls(FittedScores.from_json(found["lines"]), found["sampled"])


def of_model(space: SharedSpace) -> Fitted:
    """What the model has kept says; nothing where it kept nothing."""
    if space.held_out is None:
        return Fitted(FittedScores({}), {})
    return Fitted(Calibration.from_held_out(space.held_out, space.dim).fitted(), {})


def of_library(space: SharedSpace, rows: Rows) -> Fitted:
    """As `of_model`, where modalities without a kept sample have rows in its place.

    Words ask more often than anything else; where the model has kept none, the modality's examples
    stand for them.
    """
    vectors = _sample(rows)
    kept = {} if space.held_out is None else space.held_out.vectors
    sampled = {name: len(own) for name, own in vectors.items() if name not in kept}
    try:
        words = space.words
    except ModalityError:
        words = None
    if words is not None and words not in vectors:
        examples = space.tower(words).modality.example_samples(_WORDS)
        vectors[words] = space.embed(list(examples), words).numpy()
    if space.held_out is None:
        return Fitted(Calibration.from_vectors(vectors).fitted(), sampled)
    calibration = Calibration.from_held_out(space.held_out, space.dim).with_vectors(vectors)
    return Fitted(calibration.fitted(), sampled)


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
