"""Files that try to take the service down with them."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError
from omnialign.serve.decoding import Decoders
from omnialign.serve.limits import Limits, RefusedError


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a coroutine function with decoders of the hostile modality."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    hostile = importlib.import_module("hostile_reader")

    @asynccontextmanager
    async def decoders(**limits: Any) -> AsyncIterator[Decoders]:
        pipeline = Pipeline(hostile.Hostile(), hostile.as_it_is, list, 100.0, "windows")
        found = Decoders({"hostile": pipeline}, Limits(num_decoders=1, **limits))
        try:
            yield found
        finally:
            found.close()

    def run(test: Callable[[Decoders], Awaitable[None]], **limits: Any) -> None:
        async def body() -> None:
            async with decoders(**limits) as found:
                await test(found)

        asyncio.run(body())

    return run


async def still_works(decoders: Decoders) -> None:
    modality, inputs = await decoders.inputs(b"ok", "hostile")
    assert (modality, [int(each) for each in inputs]) == ("hostile", [2, 2])


def test_a_crash_a_hang_a_bomb_and_a_failure_cost_one_request_each(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        await still_works(decoders)
        with pytest.raises(RefusedError, match="broke what decodes it") as crash:
            await decoders.inputs(b"crash", "hostile")
        assert crash.value.status == 422
        await still_works(decoders)
        with pytest.raises(RefusedError, match="longer than 2 s"):
            await decoders.inputs(b"hang", "hostile")
        await still_works(decoders)
        with pytest.raises(OmniAlignError, match=r"upload.*(memory|alloc)"):
            await decoders.inputs(b"bomb", "hostile")
        with pytest.raises(OmniAlignError, match="an unforeseen failure"):
            await decoders.inputs(b"fail", "hostile")
        await still_works(decoders)

    decoding(test, decode_seconds=2.0, decode_bytes=2**30)


def test_a_recording_that_lasts_too_long_is_refused(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        with pytest.raises(OmniAlignError, match="longer than 250 s"):
            await decoders.inputs(b"1234", "hostile")
        await still_works(decoders)

    decoding(test, upload_seconds=250.0)


def test_those_who_wait_are_bounded(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        await still_works(decoders)
        asked = [asyncio.create_task(decoders.inputs(b"hang", "hostile")) for _ in range(3)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [error.status for error in ended] == [422, 422, 503]
        assert ended[2].headers == {"Retry-After": "1"}

    decoding(test, decode_seconds=1.0, max_waiting=2)
