"""The addresses of the service, and what each takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request, Response, UploadFile
from pydantic import BaseModel

from omnialign.serve.answering import Classify, Embed, Filters, Found, Part, Search, Stored
from omnialign.serve.answering import Query as Asked
from omnialign.serve.limits import RefusedError
from omnialign.serve.service import Service, about_item

router = APIRouter()


def service_of(request: Request) -> Service:
    return request.app.state.service


Serving = Annotated[Service, Depends(service_of)]
K = Annotated[int, Query(ge=1, le=200, description="How many hits.")]
Offset = Annotated[int, Query(ge=0, description="How many hits to pass over, for paging.")]
Modalities = Annotated[list[str] | None, Query(description="Only hits of these modalities.")]
Where = Annotated[
    str | None, Query(description="A filter over metadata: label = 'pets' and year >= 2020")
]
Segments = Annotated[bool, Query(description="Several hits of one file, if they fit.")]


class Item(BaseModel):
    """A file of the library, or a stretch of one."""

    id: str
    name: str
    modality: str
    start_seconds: float | None
    end_seconds: float | None
    metadata: dict[str, Any]
    mime: str
    """Of the file itself, which `/items/{id}/file` gives."""
    interactive: bool
    """Whether `/items/{id}/preview?interactive=true` gives something to turn."""


class FoundItem(Item):
    """An item that was found."""

    score: float
    """Calibrated: it compares between modalities."""
    cosine: float


class Hits(BaseModel):
    """A page of hits, best first."""

    hits: list[FoundItem]
    offset: int
    more: bool


class Vector(BaseModel):
    """A unit vector in the space of the library."""

    embedding: list[float]


class Labels(BaseModel):
    """The probability of each label, best first."""

    labels: dict[str, float]


def filters_of(
    modality: Modalities = None, where: Where = None, segments: Segments = False
) -> Filters:
    return Filters(tuple(dict.fromkeys(modality or ())) or None, where or None, segments)


@router.get("/search")
async def search_words(
    serving: Serving,
    filters: Annotated[Filters, Depends(filters_of)],
    words: Annotated[list[str], Query(description="What is wanted; of several, the mean.")],
    minus: Annotated[list[str], Query(description="Words that are taken away.")] = [],  # noqa: B006
    k: K = 24,
    offset: Offset = 0,
) -> Hits:
    """Files that fit words."""
    query = _query(serving, words, minus)
    return await _hits(serving, Search(query, k, offset, filters))


@router.post("/search")
async def search_anything(
    serving: Serving,
    words: Annotated[list[str], Form(description="Words that are wanted.")] = [],  # noqa: B006
    minus: Annotated[list[str], Form(description="Words that are taken away.")] = [],  # noqa: B006
    file: Annotated[list[UploadFile], Form(description="Files that are wanted.")] = [],  # noqa: B006
    like: Annotated[list[str], Form(description="Ids of items that are wanted.")] = [],  # noqa: B006
    query_modality: Annotated[
        str | None, Form(description="Of the files; by default they tell it themselves.")
    ] = None,
    modality: Annotated[list[str] | None, Form(description="Only hits of these.")] = None,
    where: Annotated[str | None, Form(description="A filter over metadata.")] = None,
    segments: Annotated[bool, Form(description="Several hits of one file, if they fit.")] = False,
    k: Annotated[int, Form(ge=1, le=200)] = 24,
    offset: Annotated[int, Form(ge=0)] = 0,
) -> Hits:
    """Files that fit words, files and items together: the mean of all, less `minus`."""
    stored = [Stored(each) for each in like]
    files = await _decoded(serving, file, query_modality)
    query = _query(serving, [*words, *stored, *files], minus)
    filters = filters_of(modality, where, segments)
    return await _hits(serving, Search(query, k, offset, filters))


@router.get("/similar/{item_id}")
async def similar(
    serving: Serving,
    filters: Annotated[Filters, Depends(filters_of)],
    item_id: str,
    k: K = 24,
    offset: Offset = 0,
) -> Hits:
    """Files like one of the library, which is not among them."""
    return await _hits(serving, Search(Asked((Stored(item_id),)), k, offset, filters))


@router.post("/embed")
async def embed(
    serving: Serving,
    words: Annotated[str | None, Form()] = None,
    file: Annotated[UploadFile | None, Form()] = None,
    query_modality: Annotated[str | None, Form()] = None,
) -> Vector:
    """The vector of words, or of a file."""
    part = await _one(serving, words, file, query_modality)
    vector = await serving.ask(Embed(Asked((part,))))
    return Vector(embedding=vector.tolist())


@router.post("/classify")
async def classify(
    serving: Serving,
    label: Annotated[list[str], Form(description="Two or more descriptions.")],
    words: Annotated[str | None, Form()] = None,
    file: Annotated[UploadFile | None, Form()] = None,
    like: Annotated[str | None, Form(description="The id of an item.")] = None,
    query_modality: Annotated[str | None, Form()] = None,
) -> Labels:
    """Which of several descriptions fits words, a file or an item."""
    if len(set(label)) < 2:
        raise RefusedError(400, "classify wants two or more different labels")
    labels = [_words(serving, each) for each in label]
    if len(labels) > serving.limits.max_labels:
        raise RefusedError(400, f"at most {serving.limits.max_labels} labels are taken at once")
    if sum(map(len, labels)) > serving.limits.max_label_letters:
        most = serving.limits.max_label_letters
        raise RefusedError(400, f"all labels together have at most {most} letters")
    part = Stored(like) if like else await _one(serving, words, file, query_modality)
    return Labels(labels=await serving.ask(Classify(part, tuple(labels))))


@router.get("/items/{item_id}")
async def item(serving: Serving, item_id: str) -> Item:
    """What is known of an item."""
    return Item(**await serving.item(item_id))


@router.get("/items/{item_id}/file", response_class=Response)
async def file(serving: Serving, item_id: str, request: Request) -> Response:
    """The file itself, or a range of its bytes; 410 where it is no longer what was indexed."""
    return await serving.file(item_id, request.headers)


@router.get("/items/{item_id}/preview", response_class=Response)
async def preview(
    serving: Serving, item_id: str, request: Request, interactive: bool = False
) -> Response:
    """A picture, a player or words; with `interactive`, something to turn."""
    return await serving.preview(item_id, interactive, request.headers)


@router.get("/library")
async def library(serving: Serving) -> dict[str, Any]:
    """What there is to be searched: modalities, and columns for `where`."""
    return await serving.about()


@router.get("/map")
async def collection_map(serving: Serving) -> Response:
    """Where each file lies in two dimensions; 202 while that is being computed."""
    return await serving.map()


@router.get("/health")
async def health(serving: Serving) -> dict[str, str]:
    """Whether requests are answered; 503 where the library cannot be read."""
    await serving.check_table()
    return {"status": "ok"}


@router.get("/metrics", response_class=Response)
async def metrics(serving: Serving) -> Response:
    """Requests, latencies, batches and errors, as Prometheus reads them."""
    return Response(
        await serving.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8"
    )


def _query(serving: Service, plus: Sequence[Part], minus: Sequence[str]) -> Asked:
    """Raises `RefusedError` for none, too many, or too long ones."""
    given = [_words(serving, p) if isinstance(p, str) else p for p in plus if p != ""]
    taken = [_words(serving, words) for words in minus if words.strip()]
    if not given:
        raise RefusedError(400, "nothing is asked: give words, a file, or the id of an item")
    if len(given) + len(taken) > serving.limits.max_parts:
        raise RefusedError(400, f"a question has at most {serving.limits.max_parts} parts")
    return Asked(tuple(given), tuple(taken))


def _words(serving: Service, words: str) -> str:
    if not words.strip():
        raise RefusedError(400, "the words are empty")
    if len(words) > serving.limits.max_letters:
        raise RefusedError(400, f"words have at most {serving.limits.max_letters} letters")
    return words


async def _decoded(
    serving: Service, files: Sequence[UploadFile], modality: str | None
) -> list[Part]:
    if len(files) > serving.limits.max_parts:
        raise RefusedError(400, f"a question has at most {serving.limits.max_parts} parts")
    return [await serving.decoded(await each.read(), modality) for each in files]


async def _one(
    serving: Service, words: str | None, file: UploadFile | None, modality: str | None
) -> Part:
    if (words is None) == (file is None):
        raise RefusedError(400, "wants either words or a file")
    if file is None:
        return _words(serving, words or "")
    return (await _decoded(serving, [file], modality))[0]


async def _hits(serving: Service, search: Search) -> Hits:
    if len(search.filters.modalities or ()) > serving.num_modalities:
        raise RefusedError(400, f"there are no more than {serving.num_modalities} modalities")
    if search.offset + search.k > serving.limits.max_hits:
        raise RefusedError(400, f"one can page to hit {serving.limits.max_hits} and no further")
    found: Found = await serving.ask(search)
    hits = [
        FoundItem(**about_item(hit.as_dict()), score=hit.score, cosine=hit.cosine)
        for hit in found.hits
    ]
    return Hits(hits=hits, offset=search.offset, more=found.more)
