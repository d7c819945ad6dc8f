"""Decoding in other processes: a bomb, a hang or a crash costs one of them, which is replaced."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pickle import UnpicklingError
from queue import SimpleQueue
from typing import Any

import torch

from omnialign.contract import Preview
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError
from omnialign.serve.decoder import Decode, Show, decode_forever
from omnialign.serve.limits import Limits, RefusedError, Waiting

START_SECONDS = 600.0
MAX_REPLY_BYTES = 2**30


class DecoderDiedError(Exception):
    """It crashed, or was killed because it took too long; the text says which."""


class Decoder:
    """One process; after `DecoderDiedError` it is of no more use."""

    def __init__(self, pipelines: Mapping[str, Pipeline], limits: Limits) -> None:
        context = get_context("spawn")  # a fork would inherit threads that hold locks
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=decode_forever, args=(theirs, pipelines, limits), daemon=True
        )
        self._process.start()
        theirs.close()
        self._is_ready = False

    def ask(self, task: Decode | Show, seconds: float) -> tuple[dict[str, Any], bytes]:
        try:
            if not self._is_ready:
                self._receive(START_SECONDS)
                self._is_ready = True
            self._connection.send(task)
            return json.loads(self._receive(seconds)), self._receive(seconds)
        except (EOFError, OSError, ValueError):
            self.close()
            raise DecoderDiedError("it broke what decodes it") from None

    def _receive(self, seconds: float) -> bytes:
        if not self._connection.poll(seconds):
            self.close()
            raise DecoderDiedError(f"it takes longer than {seconds:g} s to decode")
        return self._connection.recv_bytes(MAX_REPLY_BYTES)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


class Decoders:
    """Some of them, and those who wait for one."""

    def __init__(self, pipelines: Mapping[str, Pipeline], limits: Limits) -> None:
        self._pipelines, self._limits = pipelines, limits
        self._threads = ThreadPoolExecutor(limits.num_decoders, "decoder")
        self._waiting = Waiting(limits.max_waiting)
        self._idle: SimpleQueue[Decoder] = SimpleQueue()
        for _ in range(limits.num_decoders):
            self._idle.put(Decoder(pipelines, limits))

    async def inputs(self, data: bytes, modality: str | None) -> tuple[str, list[Any]]:
        """The modality of an uploaded file, and the inputs of its encoder, one a segment.

        Raises `OmniAlignError` that says why it cannot be had.
        """
        about, body = await self._ask(Decode(data, modality))
        try:
            inputs = torch.load(io.BytesIO(body), weights_only=True)
        except UnpicklingError:
            raise RefusedError(
                415, f"{about['modality']} cannot be uploaded: its inputs hold more than tensors"
            ) from None
        return about["modality"], inputs

    async def preview(self, task: Show) -> Preview:
        """Raises `OmniAlignError` that says why there is none."""
        about, body = await self._ask(task)
        return Preview(about["mime"], body)

    async def _ask(self, task: Decode | Show) -> tuple[dict[str, Any], bytes]:
        with self._waiting:
            loop = asyncio.get_running_loop()
            about, body = await loop.run_in_executor(self._threads, self._exchange, task)
        if "problem" in about:
            raise OmniAlignError(about["problem"])
        return about, body

    def _exchange(self, task: Decode | Show) -> tuple[dict[str, Any], bytes]:
        decoder = self._idle.get()
        try:
            return decoder.ask(task, self._limits.decode_seconds)
        except DecoderDiedError as error:
            decoder = Decoder(self._pipelines, self._limits)
            raise RefusedError(422, f"this file cannot be used: {error}") from None
        finally:
            self._idle.put(decoder)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        with suppress(Exception):
            while not self._idle.empty():
                self._idle.get_nowait().close()
