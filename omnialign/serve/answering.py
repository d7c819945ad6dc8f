"""Answers questions, many at once: one forward of the model, one pass over the vectors.

Axes: q parts of queries, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from omnialign.errors import OmniAlignError
from omnialign.index import Hit, Index
from omnialign.index.rows import file_of, vectors_of
from omnialign.index.where import Where
from omnialign.segments import evaluating
from omnialign.serve.limits import RefusedError
from omnialign.tower import prefix

Array = np.ndarray[Any, Any]
HIDDEN = frozenset({"id", "path", "content"})
"""Columns that say where files lie, or what is in them: nobody can filter by these."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """An uploaded file as the inputs of an encoder, one a segment."""

    modality: str
    inputs: Sequence[Any]


@dataclass(frozen=True)
class Stored:
    """A row of the library."""

    id: str


Part = str | Decoded | Stored
"""Of a query: words, a file, or an item that is there."""


@dataclass(frozen=True)
class Query:
    """The mean of what is wanted, less the mean of what is not."""

    plus: tuple[Part, ...]
    minus: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Filters:
    """What hits may be."""

    modalities: tuple[str, ...] | None = None
    where: str | None = None
    segments: bool = False


@dataclass(frozen=True)
class Search:
    """Answered by hits `offset` to `offset + k`, and whether more follow."""

    query: Query
    k: int = 10
    offset: int = 0
    filters: Filters = field(default_factory=Filters)

    @property
    def own_files(self) -> frozenset[str]:
        """Of the items that are asked with: they are not among the hits."""
        return frozenset(file_of(p.id) for p in self.query.plus if isinstance(p, Stored))


@dataclass(frozen=True)
class Found:
    """A page of hits."""

    hits: Sequence[Hit]
    more: bool


@dataclass(frozen=True)
class Embed:
    """Answered by the query's vector."""

    query: Query


@dataclass(frozen=True)
class Classify:
    """Answered by the probability of each label, best first."""

    item: Part
    labels: tuple[str, ...]


Question = Search | Embed | Classify


def columns_of(index: Index) -> dict[str, str]:
    """What strangers may filter by, and its type."""
    return {name: kind for name, kind in index.columns.items() if name not in HIDDEN}


class Answerer:
    """Answers from one library; used by one thread at a time."""

    def __init__(self, index: Index) -> None:
        self._index, self._space = index, index.space

    def answer(self, questions: Sequence[Question]) -> list[Any]:
        """An answer for each question, or the exception that it ends with."""
        try:
            parts = {part for question in questions for part in _parts(question)}
            vectors = _Vectors(self._index, self._space, parts)
        except Exception as error:
            if len(questions) == 1:
                return [error]
            return [self.answer([question])[0] for question in questions]
        answers: list[Any] = [None] * len(questions)
        searches: dict[Filters, list[tuple[int, Search, Array]]] = {}
        for place, question in enumerate(questions):
            try:
                if isinstance(question, Search):
                    asked = (place, question, vectors.of(question.query))
                    searches.setdefault(question.filters, []).append(asked)
                elif isinstance(question, Embed):
                    answers[place] = vectors.of(question.query)
                else:
                    answers[place] = self._classified(question, vectors)
            except Exception as error:
                answers[place] = error
        for filters, asked in searches.items():
            for (place, _, _), found in zip(
                asked, self._searched(filters, asked, vectors), strict=True
            ):
                answers[place] = found
        return answers

    def _searched(
        self, filters: Filters, asked: Sequence[tuple[int, Search, Array]], vectors: _Vectors
    ) -> Sequence[Found | Exception]:
        k = max(search.offset + search.k + 1 + len(search.own_files) for _, search, _ in asked)
        try:
            if filters.where is not None:
                Where.parse(filters.where, columns_of(self._index))
            found = self._index.search_vectors(
                np.stack([vector for _, _, vector in asked]),
                k,
                modality=filters.modalities,
                where=filters.where,
                segments=filters.segments,
                query_modalities=[vectors.modality_of(search.query) for _, search, _ in asked],
            )
        except Exception as error:
            return [error] * len(asked)
        return [_page(search, hits) for (_, search, _), hits in zip(asked, found, strict=True)]

    def _classified(self, question: Classify, vectors: _Vectors) -> dict[str, float]:
        modality = vectors.modality(question.item)
        prompts = torch.from_numpy(np.stack([vectors.of(Query((w,))) for w in question.labels]))
        scale = self._space.logit_scale(modality, self._space.words).detach().cpu()
        chances = (
            scale * (prompts @ torch.from_numpy(vectors.of(Query((question.item,)))))
        ).softmax(0)
        by_label = dict(zip(question.labels, chances.tolist(), strict=True))
        return dict(sorted(by_label.items(), key=lambda entry: -entry[1]))


def _parts(question: Question) -> Sequence[Part]:
    if isinstance(question, Classify):
        return [question.item, *question.labels]
    return [*question.query.plus, *question.query.minus]


def _page(search: Search, hits: Sequence[Hit]) -> Found:
    others = [hit for hit in hits if file_of(hit.id) not in search.own_files]
    end = search.offset + search.k
    return Found(others[search.offset : end], len(others) > end)


class _Vectors:
    """The vectors of all parts of a batch of questions, each computed once."""

    def __init__(self, index: Index, space: Any, parts: set[Part]) -> None:
        self._space = space
        self._found: dict[Part, Array] = {}
        self._modalities: dict[Part, str] = {}
        words = sorted(part for part in parts if isinstance(part, str))
        if words:
            self._found.update(zip(words, space.embed(words, space.words).numpy(), strict=True))
            self._modalities.update(dict.fromkeys(words, space.words))
        stored = {part.id: part for part in parts if isinstance(part, Stored)}
        if stored:
            rows = index.rows.find("id", list(stored), ["id", "modality", "vector"])
            for row_id, name, vector in zip(
                rows.column("id").to_pylist(),
                rows.column("modality").to_pylist(),
                vectors_of(rows),
                strict=True,
            ):
                self._found[stored[row_id]] = vector
                self._modalities[stored[row_id]] = name
        self._embed_decoded([part for part in parts if isinstance(part, Decoded)])

    def _embed_decoded(self, files: Sequence[Decoded]) -> None:
        by_modality: dict[str, list[Decoded]] = {}
        for file in files:
            by_modality.setdefault(file.modality, []).append(file)
        for name, own in by_modality.items():
            tower = self._space.tower(name)
            inputs = [each for file in own for each in file.inputs]
            with evaluating(self._space):
                vectors = torch.cat(
                    [
                        tower(tower.pipeline.collate(inputs[start : start + 64])).float().cpu()
                        for start in range(0, len(inputs), 64)
                    ]
                )
            vectors = prefix(vectors, self._space.dim).numpy()
            ends = np.cumsum([len(file.inputs) for file in own])
            for file, rows in zip(own, np.split(vectors, ends[:-1]), strict=True):
                self._found[file] = _unit(rows.mean(0))
                self._modalities[file] = name

    def modality(self, part: Part) -> str:
        return self._modalities[self._known(part)]

    def modality_of(self, query: Query) -> str | None:
        """Of all that is asked with; None where there are several."""
        found = {self.modality(part) for part in query.plus}
        return found.pop() if len(found) == 1 else None

    def of(self, query: Query) -> Array:
        """A unit vector `(D,)`."""
        vector = np.mean([self._found[self._known(part)] for part in query.plus], axis=0)
        if query.minus:
            taken = [self._found[self._known(part)] for part in query.minus]
            vector = vector - np.mean(taken, axis=0)
        return _unit(vector)

    def _known(self, part: Part) -> Part:
        if part not in self._found:
            assert isinstance(part, Stored)
            raise RefusedError(404, f"the library has no item '{part.id}'")
        return part


def _unit(vector: Array) -> Array:
    norm = float(np.linalg.norm(vector))
    if norm < 1e-6:
        raise OmniAlignError("nothing is left of the query once the rest is taken away")
    return (vector / norm).astype(np.float32)
