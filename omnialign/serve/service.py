"""A library that answers many at once: what the routes ask for."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from omnialign.contract import Modality, Preview
from omnialign.index import Index
from omnialign.index.rows import WITHOUT_VECTORS
from omnialign.registry import registry
from omnialign.serve.answering import Answerer, Decoded, Question, columns_of
from omnialign.serve.batching import Batcher
from omnialign.serve.decoder import Show
from omnialign.serve.decoding import Decoders
from omnialign.serve.files import POLICY, IndexedFiles, file_response, mime_of
from omnialign.serve.limits import Limits, RefusedError, deadline
from omnialign.serve.mapping import MapMaker
from omnialign.serve.metrics import Metrics


class Service:
    """Use between `start` and `stop`, on one event loop."""

    def __init__(self, index: Index, limits: Limits) -> None:
        self.index, self.limits, self.metrics = index, limits, Metrics()
        self._map = MapMaker(index, limits.max_map_points)
        self._space = index.space
        self._files = IndexedFiles()
        self._previews: OrderedDict[tuple[str, bool], Preview] = OrderedDict()
        self._model_thread = ThreadPoolExecutor(1, "model")
        self._batcher: Batcher[Question] = Batcher(
            Answerer(index).answer,
            self._model_thread,
            max_batch=limits.max_batch,
            max_waiting=limits.max_waiting,
            seen=self.metrics.batch_size.observe,
        )

    async def start(self) -> None:
        pipelines = {name: self._space.tower(name).pipeline for name in self._space.modalities}
        self._decoders = Decoders(pipelines, self.limits)
        self._answering = asyncio.create_task(self._batcher.run())

    async def stop(self) -> None:
        self._answering.cancel()
        with suppress(asyncio.CancelledError):
            await self._answering
        self._decoders.close()
        self._model_thread.shutdown(cancel_futures=True)
        await self._map.close()

    @property
    def num_modalities(self) -> int:
        """Of the model."""
        return len(self._space.modalities)

    async def ask(self, question: Question) -> Any:
        """The answer that `Answerer` gives, together with those of others."""
        async with deadline(self.limits.answer_seconds):
            return await self._batcher.ask(question)

    async def decoded(self, data: bytes, modality: str | None) -> Decoded:
        """An uploaded file; raises `OmniAlignError` that says why it cannot be read."""
        if modality is not None:
            self._space.tower(modality)
        return Decoded(*await self._decoders.inputs(data, modality))

    async def row(self, row_id: str) -> dict[str, Any]:
        """Raises `RefusedError` (404) where there is none."""
        found = await asyncio.to_thread(self.index.rows.find, "id", [row_id], WITHOUT_VECTORS)
        if not found.num_rows:
            raise RefusedError(404, f"the library has no item '{row_id[:80]}'")
        return found.to_pylist()[0]

    async def item(self, row_id: str) -> dict[str, Any]:
        row = await self.row(row_id)
        return about_item(row | {"metadata": json.loads(row["metadata"])})

    async def file(self, row_id: str, headers: Headers) -> Response:
        row = await self.row(row_id)
        file = await asyncio.to_thread(self._files.open, row)
        return file_response(file, row, headers)

    async def preview(self, row_id: str, interactive: bool, headers: Headers) -> Response:
        """What shows an item; made once, and asked again only whether it is still the same."""
        row = await self.row(row_id)
        about = {
            "cache-control": "private, no-cache",
            "content-security-policy": POLICY,
            "etag": f'"{row_id}-{interactive}"',
        }
        await asyncio.to_thread(self._files.check, row)
        if headers.get("if-none-match") == about["etag"]:
            return Response(status_code=304, headers=about)
        key = (row_id, interactive)
        preview = self._previews.get(key)
        if preview is None:
            task = Show(row["path"], row["modality"], row["start_seconds"], interactive)
            preview = await self._decoders.preview(task)
            await asyncio.to_thread(self._files.check, row)
            self._previews[key] = preview
            self._trim()
        else:
            self._previews.move_to_end(key)
        return Response(preview.data, headers=about, media_type=preview.mime)

    async def check_table(self) -> None:
        """Raises `RefusedError` (503) where the library cannot be read."""
        try:
            await asyncio.to_thread(len, self.index)
        except Exception:
            raise RefusedError(503, "the table of the library cannot be read") from None

    async def metrics_text(self) -> bytes:
        """The number of rows is not a number where the library cannot be read."""
        try:
            self.metrics.rows.set(await asyncio.to_thread(len, self.index))
        except Exception:
            self.metrics.rows.set(float("nan"))
        return self.metrics.text()

    async def about(self) -> dict[str, Any]:
        """What the page needs to know before anything is asked."""
        held = await asyncio.to_thread(lambda: self.index.modalities)
        columns = await asyncio.to_thread(columns_of, self.index)
        known = {name: registry().modality(name) for name in self._space.modalities}
        return {
            "name": Path(self.index.uri).name,
            "rows": sum(held.values()),
            "modalities": {
                name: {"rows": held.get(name, 0), "suffixes": sorted(modality.suffixes)}
                for name, modality in known.items()
            },
            "columns": columns,
            "max_upload_bytes": self.limits.upload_bytes,
        }

    async def map(self) -> Response:
        found = await self._map.map()
        if found is None:
            return Response(status_code=202, headers={"retry-after": "2"})
        about = {"content-encoding": "gzip", "cache-control": "private, no-cache"}
        return Response(found, headers=about, media_type="application/json")

    def _trim(self) -> None:
        size = sum(len(preview.data) for preview in self._previews.values())
        while size > self.limits.preview_cache_bytes and len(self._previews) > 1:
            size -= len(self._previews.popitem(last=False)[1].data)


def about_item(row: dict[str, Any]) -> dict[str, Any]:
    """What is said of a row or of a hit: never where its file lies, but for its name."""
    modality = registry().modality(row["modality"])
    return {
        "id": row["id"],
        "name": row["path"].rpartition("/")[2],
        "modality": row["modality"],
        "start_seconds": row["start_seconds"],
        "end_seconds": row["end_seconds"],
        "metadata": dict(row["metadata"]),
        "mime": mime_of(row["path"]),
        "interactive": is_interactive(modality),
    }


def is_interactive(modality: Modality[Any]) -> bool:
    return type(modality).interactive_preview is not Modality.interactive_preview
