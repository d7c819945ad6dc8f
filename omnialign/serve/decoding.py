"""Decoding in other processes: a bomb, a hang or a crash costs one of them, which is replaced."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import Pipe
from queue import SimpleQueue
from typing import Any

from omnialign.contract import Preview
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError
from omnialign.serve.decoder import Decode, Show
from omnialign.serve.limits import MIB, Limits, RefusedError, Waiting, deadline
from omnialign.serve.packing import unpacked

START_SECONDS = 600.0
START = "import sys, omnialign.serve.decoder as d; d.decode_forever(int(sys.argv[1]))"


class DecoderDiedError(Exception):
    """It crashed, or was killed because it took too long; the text says which."""


class Decoder:
    """One process; after `DecoderDiedError` it is of no more use."""

    def __init__(self, pipelines: Mapping[str, Pipeline], limits: Limits) -> None:
        self._connection, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
                start_new_session=True,  # Ctrl-C in a terminal is ours to answer
            )
        with suppress(OSError):  # it died, as `ask` will find
            self._connection.send_bytes(pickle.dumps((dict(pipelines), limits)))
        self._max_bytes = limits.decoded_bytes + MIB
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
        return self._connection.recv_bytes(self._max_bytes)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
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
        return about["modality"], await asyncio.to_thread(unpacked, about["inputs"], body)

    async def preview(self, task: Show) -> Preview:
        """Raises `RefusedError` (422) that says why there is none."""
        try:
            about, body = await self._ask(task)
        except RefusedError:
            raise
        except OmniAlignError as error:
            raise RefusedError(422, str(error)) from None
        return Preview(about["mime"], body)

    async def _ask(self, task: Decode | Show) -> tuple[dict[str, Any], bytes]:
        with self._waiting:
            loop = asyncio.get_running_loop()
            async with deadline(self._limits.answer_seconds + self._limits.decode_seconds):
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
