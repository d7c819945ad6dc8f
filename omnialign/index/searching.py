"""From the nearest rows of each modality to one list of hits.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from omnialign.calibration import FittedScores
from omnialign.index.rows import file_of
from omnialign.index.store import Array, Neighbours, Rows
from omnialign.index.where import Where

_CANDIDATES = 4
"""Rows that are looked at for each hit, because several may be of one file. A modality is settled
once its last row that was looked at is no better than the last hit."""


@dataclass(frozen=True)
class Hit:
    """What was found: a file, or the stretch of it that fits best."""

    id: str
    path: str
    modality: str
    score: float
    """Between 0 and 1, compares between modalities: `omnialign.calibration.Calibration.scores`."""
    cosine: float
    start_seconds: float | None = None
    end_seconds: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "path": self.path,
            "modality": self.modality,
            "score": self.score,
            "cosine": self.cosine,
            "start_seconds": self.start_seconds,
            "end_seconds": self.end_seconds,
            "metadata": dict(self.metadata),
        }


def hit_of(row: Mapping[str, Any], score: float, cosine: float) -> Hit:
    return Hit(
        id=row["id"],
        path=row["path"],
        modality=row["modality"],
        score=score,
        cosine=cosine,
        start_seconds=row["start_seconds"],
        end_seconds=row["end_seconds"],
        metadata=json.loads(row["metadata"]),
    )


def nearest_files(
    rows: Rows,
    vectors: Array,
    k: int,
    modalities: Sequence[str],
    most: int,
    where: Where | None,
    *,
    scores: FittedScores,
    query_modalities: Sequence[str | None],
    segments: bool,
) -> list[list[Hit]]:
    """For each of `vectors` `(q, D)` the `k` best hits.

    Args:
        rows: the table.
        vectors: unit vectors.
        k: how many hits.
        modalities: that are searched.
        most: how many rows the largest of them has.
        where: a filter.
        scores: what makes cosines of several modalities compare.
        query_modalities: of each query; None for one of several modalities.
        segments: every segment by itself, also several of one file.
    """
    most = min(most, rows.limit)
    num = min(k if segments else k * _CANDIDATES, most)
    while True:
        found = rows.nearest(vectors, num, modalities, where)
        hits: list[list[Hit]] = []
        is_settled = True
        for own, of_query in zip(found, query_modalities, strict=True):
            scored = {
                name: scores.scores(name, each.cosines, of_query) for name, each in own.items()
            }
            best = merge(own, scored, k, segments=segments)
            hits.append(best)
            least = best[-1].score if len(best) == k else -1.0
            is_settled &= all(len(each) < num or each[-1] <= least for each in scored.values())
        if is_settled or num >= most:
            return hits
        num = min(num * _CANDIDATES, most)


def merge(
    neighbours: Mapping[str, Neighbours], scores: Mapping[str, Array], k: int, *, segments: bool
) -> list[Hit]:
    """The `k` best of all modalities by score; of a file its best segment, or all `segments`."""
    ranked = sorted(
        (
            (float(scores[name][n]), name, n)
            for name, found in neighbours.items()
            for n in range(found.rows.num_rows)
        ),
        key=lambda entry: -entry[0],
    )
    hits: list[Hit] = []
    files: set[str] = set()
    for score, name, n in ranked:
        found = neighbours[name]
        row_id = found.rows.column("id")[n].as_py()
        if not segments and file_of(row_id) in files:
            continue
        files.add(file_of(row_id))
        row = found.rows.slice(n, 1).to_pylist()[0]
        hits.append(hit_of(row, score, float(found.cosines[n])))
        if len(hits) == k:
            break
    return hits
