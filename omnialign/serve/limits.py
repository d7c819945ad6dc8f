"""What a stranger may cost, and how a request is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from omnialign.errors import OmniAlignError

MIB = 2**20


@dataclass(frozen=True)
class Limits:
    """Bounds of one service. Pixels and points of an upload are bounded by what reads it."""

    upload_bytes: int = 64 * MIB
    """Of the body of a request, whatever it holds."""
    upload_seconds: float = 600.0
    """How long a recording may last."""
    uploads_bytes: int = 512 * MIB
    """Of the bodies of all requests that are being answered; a further one is to come again."""
    receive_seconds: float = 60.0
    """For the body of a request to arrive."""
    decode_seconds: float = 60.0
    decode_bytes: int = 2048 * MIB
    """Memory that decoding may take, on top of what an idle decoder has; kept on Linux."""
    decoded_bytes: int = 64 * MIB
    """Of the encoder inputs of an upload, and of a preview."""
    max_segments: int = 2000
    """Of an upload."""
    answer_seconds: float = 60.0
    """How long one waits for the model, or for a decoder on top of `decode_seconds`."""
    num_decoders: int = 2
    """Processes."""
    max_waiting: int = 256
    """Requests that wait for a decoder, or for the model; a further one is told to come again."""
    max_batch: int = 64
    """Questions that are answered together."""
    max_hits: int = 1000
    """How far one may page."""
    max_parts: int = 16
    """Words, files and items in one question."""
    max_labels: int = 1000
    max_letters: int = 2000
    """Of words."""
    max_label_letters: int = 20_000
    """Of all labels of one question."""
    max_map_points: int = 100_000
    preview_cache_bytes: int = 64 * MIB


class RefusedError(OmniAlignError):
    """A request that is not answered: its status and what is said of it."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Waiting:
    """Counts those who wait for one thing; inside `with`, one more does.

    Raises `RefusedError` (503) where there are too many.
    """

    max_waiting: int
    num_waiting: int = field(default=0, init=False)

    def __enter__(self) -> None:
        if self.num_waiting >= self.max_waiting:
            raise RefusedError(
                503,
                f"{self.num_waiting} requests wait already; come again in a second",
                Retry_After="1",
            )
        self.num_waiting += 1

    def __exit__(self, *_: object) -> None:
        self.num_waiting -= 1


@asynccontextmanager
async def deadline(seconds: float) -> AsyncGenerator[None]:
    """What goes on inside is given up after some seconds, with `RefusedError` (503)."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RefusedError(
            503, f"there was no answer within {seconds:g} s; come again later", Retry_After="10"
        ) from None


@dataclass
class Budget:
    """Bytes that several share."""

    num_bytes: int

    @contextmanager
    def taken(self, num_bytes: int) -> Generator[None]:
        """Inside, so many fewer are left; raises `RefusedError` (503) where there are too few."""
        if num_bytes > self.num_bytes:
            raise RefusedError(
                503,
                "too much is being uploaded already; come again later",
                Retry_After="5",
                Connection="close",
            )
        self.num_bytes -= num_bytes
        try:
            yield
        finally:
            self.num_bytes += num_bytes
