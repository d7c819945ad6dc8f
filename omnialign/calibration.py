"""Scores that compare between modalities, from cosines that do not.

Axes: n items, m matches, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from omnialign.held_out import HeldOut

Array = np.ndarray[Any, Any]

PRIOR = 0.01
"""The share of a library that belongs to a query, as far as a score says how probable that is."""
SAMPLE = 20_000
"""Cosines of items that do not belong together which speak for all of a pair."""
LEAST = 400
"""Cosines that say what two items at random have."""
TRUST = 50
"""Matches, or items, that count as much as what is known of all pairs, or of all modalities."""
LEAST_SLOPE = 0.1
"""Log-odds a deviation; even of a model that has learned nothing, scores rise with the cosine."""
STEPS = 50
UNKNOWN = 0.1
"""The deviation of cosines where there is no sample at all."""
TILT = 1e-6
"""The share of the cosine itself in a score, so that probabilities near 1 keep their order."""


class _Line(NamedTuple):
    """The log-odds of a match, balanced: how much more likely a cosine is between two that match.

    They rise with the cosine, in standard deviations above what two items at random have.
    """

    slope: float
    offset: float

    def of(self, mean: float, deviation: float) -> _Line:
        """The same for cosines whose mean and deviation are those of two items at random."""
        return _Line(self.slope / deviation, self.offset - self.slope * mean / deviation)


_UNKNOWN = _Line(3.0, -4.5)
"""Of a model of which no match is known: a match lies three deviations above chance."""
_PLACES = np.linspace(-3, 6, 37)
"""Deviations above chance at which a known line is held."""


@dataclass(frozen=True)
class FittedScores:
    """What a calibration comes to: a line for each pair of modalities, without the sample."""

    lines: Mapping[tuple[str, str], _Line]
    """By the query's modality and the item's, in alphabetical order."""

    def know(self, modality: str) -> bool:
        """Whether there is a line for items of it."""
        return any(modality in pair for pair in self.lines)

    def scores(self, modality: str, cosines: Array, query_modality: str | None = None) -> Array:
        """As `Calibration.scores`; of a pair that is not known, the mean over those that are."""
        of_it = [pair for pair in self.lines if modality in pair]
        own = [tuple(sorted((query_modality, modality)))] if query_modality else []
        lines = [self.lines[pair] for pair in of_it if pair in own] or [
            self.lines[pair] for pair in of_it or self.lines
        ]
        return _probabilities(_mean(lines) if lines else _UNKNOWN.of(0.0, UNKNOWN), cosines)

    def to_json(self) -> str:
        return json.dumps([[*pair, *line] for pair, line in self.lines.items()])

    @classmethod
    def from_json(cls, text: str) -> FittedScores:
        return cls({(x, y): _Line(slope, offset) for x, y, slope, offset in json.loads(text)})


class _Chance(NamedTuple):
    """The cosines of items that do not belong together."""

    mean: float
    deviation: float
    number: int

    @classmethod
    def of(cls, cosines: Array) -> _Chance:
        return cls(float(cosines.mean()), max(float(cosines.std()), 1e-4), cosines.size)

    def towards(self, other: _Chance) -> _Chance:
        """Of few items: a mean with what another says, which counts as `TRUST` items."""
        share = self.number / (self.number + TRUST)
        mean = share * self.mean + (1 - share) * other.mean
        variance = share * self.deviation**2 + (1 - share) * other.deviation**2
        return _Chance(mean, variance**0.5, self.number)


class Calibration:
    """Turns a cosine into the probability that an item belongs to the query.

    Cosines of one pair of modalities run from -0.1 to 0.3, those of another from 0.4 to 0.9: the
    modality gap (Liang et al. 2022, arXiv:2203.02053). So the best of one lie behind the worst of
    the other. What compares is how much more likely a cosine is between two that match than between
    two at random. That log-likelihood ratio is a line in the cosine, fitted to each pair of
    modalities by logistic regression with both classes weighing the same (Platt 1999; Brümmer and
    du Preez 2006, doi:10.1016/j.csl.2005.08.001). Pairs share what they have in common: the slope
    and offset of all, in deviations above chance, count as `TRUST` matches in the fit of each.

    For a query of a modality without a sample, chance is its own cosines with the sample of the
    items' modality (T-norm: Auckenthaler et al. 2000, doi:10.1006/dspr.1999.0360), which forgets
    that nothing there may fit it.

    Args:
        vectors: by modality, a sample of unit vectors `(n, D)`.
        partners: by pair of modalities, `(m, 2)` places of what belongs together; where none is
            known, a match is taken to lie three deviations above chance.
    """

    def __init__(
        self,
        vectors: Mapping[str, Array],
        partners: Mapping[tuple[str, str], Array] | None = None,
    ) -> None:
        self._vectors = {m: np.asarray(v, np.float32) for m, v in vectors.items() if len(v)}
        self._partners = dict(partners or {})
        self._lines: dict[tuple[str, str], _Line | None] = {}
        known = [self._cosines(*pair) for pair in self._partners]
        self._shared = _fitted([both for both in known if both[1].size >= LEAST], _UNKNOWN)

    @classmethod
    def from_held_out(cls, held_out: HeldOut, dim: int) -> Calibration:
        """Of what a run has kept, for embeddings of `dim` dimensions."""
        whole = {modality: vectors.numpy() for modality, vectors in held_out.vectors.items()}
        cut = {modality: vectors[:, :dim] for modality, vectors in whole.items()}
        return cls(
            {m: v / np.linalg.norm(v, axis=1, keepdims=True) for m, v in cut.items()},
            {pair: places.numpy() for pair, places in held_out.partners.items()},
        )

    @classmethod
    def from_vectors(cls, vectors: Mapping[str, Array]) -> Calibration:
        """Of a model that has kept nothing: of rows of a library, by modality `(n, D)`."""
        return cls(vectors)

    def with_vectors(self, vectors: Mapping[str, Array]) -> Calibration:
        """The same, with samples of modalities that it has none of."""
        return Calibration({**vectors, **self._vectors}, self._partners)

    def scores(
        self, query: Array, modality: str, cosines: Array, query_modality: str | None = None
    ) -> Array:
        """How probable it is that items belong to a query, were one in a hundred to.

        Args:
            query: a unit vector `(D,)`.
            modality: of the items.
            cosines: between the query and the items, `(n,)`.
            query_modality: of the query; None for one of several, as a mean of words and a picture,
                which takes the mean log-odds over all that the sample has.

        Returns:
            float64 `(n,)` from 0 to 1; strictly rising with the cosine.
        """
        line = self._line(np.asarray(query, np.float32), modality, query_modality)
        return _probabilities(line, cosines)

    def fitted(self) -> FittedScores:
        """The lines of all pairs of modalities that the sample has."""
        names = sorted(self._vectors)
        pairs = [(x, y) for x in names for y in names if x <= y]
        lines = {pair: self._of_pair(*pair) for pair in pairs}
        return FittedScores({pair: line for pair, line in lines.items() if line is not None})

    def _line(self, query: Array, modality: str, query_modality: str | None) -> _Line:
        among = self._vectors if query_modality is None else [query_modality]
        known = [self._of_pair(m, modality) for m in among]
        if lines := [line for line in known if line is not None]:
            return _mean(lines)
        chances = {m: _Chance.of(sample @ query) for m, sample in self._vectors.items()}
        if not chances:
            return self._shared.of(0.0, query.size**-0.5)  # of unit vectors in every direction
        everything = _Chance.of(np.concatenate([s @ query for s in self._vectors.values()]))
        chance = chances.get(modality, _Chance(0.0, 1.0, 0)).towards(everything)
        return self._shared.of(chance.mean, chance.deviation)

    def _of_pair(self, x: str, y: str) -> _Line | None:
        """None where the sample does not say what two items at random have."""
        pair = (x, y) if x <= y else (y, x)
        if pair not in self._lines:
            self._lines[pair] = self._fit(*pair) if {x, y} <= self._vectors.keys() else None
        return self._lines[pair]

    def _fit(self, x: str, y: str) -> _Line | None:
        matches, others = self._cosines(x, y)
        if others.size < LEAST:
            return None
        chance = _Chance.of(others)
        own = _fitted([(matches, others)], self._shared)
        return own.of(chance.mean, chance.deviation)

    def _cosines(self, x: str, y: str) -> tuple[Array, Array]:
        """Cosines of the sample, of those that belong together `(m,)` and of others `(n,)`."""
        cosines = self._vectors[x] @ self._vectors[y].T
        together = self._together(x, y)
        distinct = ~np.eye(*cosines.shape, dtype=bool) if x == y else np.ones_like(together)
        others = cosines[distinct & ~together]
        return cosines[distinct & together], others[:: max(1, others.size // SAMPLE)]

    def _together(self, x: str, y: str) -> Array:
        """Which belong together, `(n, n)`: partners, and those that share a partner."""
        found = self._direct(x, y)
        for third in self._vectors.keys() - {x, y}:
            found += self._direct(x, third) @ self._direct(third, y)
        return found > 0

    def _direct(self, x: str, y: str) -> Array:
        found = np.zeros((len(self._vectors[x]), len(self._vectors[y])), np.float32)
        if (x, y) in self._partners:
            found[tuple(self._partners[x, y].T)] = 1
        if (y, x) in self._partners:
            found[tuple(self._partners[y, x].T[::-1])] = 1
        return found


def _mean(lines: Sequence[_Line]) -> _Line:
    slopes, offsets = zip(*lines, strict=True)
    return _Line(float(np.mean(slopes)), float(np.mean(offsets)))


def _probabilities(line: _Line, cosines: Array) -> Array:
    cosines = np.asarray(cosines, np.float64)
    odds = line.slope * cosines + line.offset + np.log(PRIOR / (1 - PRIOR))
    return (1 - TILT) * _sigmoid(odds) + TILT * (1 + cosines) / 2


def _fitted(pairs: Sequence[tuple[Array, Array]], known: _Line) -> _Line:
    """The line that tells matches from others, beside what is known.

    Args:
        pairs: cosines of matches `(m,)` and of others `(n,)`, of each pair of modalities.
        known: a line that counts as `TRUST` matches.
    """
    heights = [_PLACES]
    answers = [_sigmoid(known.slope * _PLACES + known.offset)]
    weights = [np.full_like(_PLACES, 2 * TRUST / _PLACES.size)]
    for matches, others in pairs:
        chance = _Chance.of(others)
        heights += [(cosines - chance.mean) / chance.deviation for cosines in (matches, others)]
        answers += [np.ones(matches.size), np.zeros(others.size)]
        weights += [np.ones(matches.size), np.full(others.size, matches.size / others.size)]
    return _logistic(
        np.concatenate(heights), np.concatenate(answers), np.concatenate(weights), known
    )


def _logistic(heights: Array, answers: Array, weights: Array, start: _Line) -> _Line:
    """Weighted logistic regression `(n,)`, by Newton's steps."""
    design = np.stack([heights, np.ones_like(heights)], 1)
    line = np.array(start)
    for _ in range(STEPS):
        chances = _sigmoid(design @ line)
        curvature = design.T * (weights * chances * (1 - chances)) @ design
        step = np.linalg.solve(curvature, design.T @ (weights * (chances - answers)))
        line -= step / max(1.0, float(np.abs(step).max()))  # a longer one may overshoot
    return _Line(max(float(line[0]), LEAST_SLOPE), float(line[1]))


def _sigmoid(odds: Array) -> Array:
    """Of log-odds of any size."""
    return (1 + np.tanh(odds / 2)) / 2
