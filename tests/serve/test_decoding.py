"""Files that try to take the service down with them."""

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError
from omnialign.serve.decoder import Show
from omnialign.serve.decoding import Decoders
from omnialign.serve.limits import Limits, RefusedError
from omnialign.serve.packing import packed, unpacked


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
        with pytest.raises(OmniAlignError, match="prepared for its encoder: ValueError: seven"):
            await decoders.inputs(b"1234567", "hostile")
        await still_works(decoders)

    decoding(test, decode_seconds=2.0, decode_bytes=2**30)


def test_a_recording_that_lasts_too_long_is_refused(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        with pytest.raises(OmniAlignError, match="longer than 250 s"):
            await decoders.inputs(b"1234", "hostile")
        await still_works(decoders)

    decoding(test, upload_seconds=250.0)


def test_a_preview_that_fails_does_not_say_where_the_file_lies(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        with pytest.raises(RefusedError) as refused:
            await decoders.preview(Show("/private/folder/a.x", "hostile", None, False))
        assert refused.value.status == 422
        assert str(refused.value).endswith("RuntimeError: no such thing in a.x")

    decoding(test)


def test_inputs_are_bounded(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        with pytest.raises(OmniAlignError, match="more than 3 segments"):
            await decoders.inputs(b"1234", "hostile")
        await still_works(decoders)

    decoding(test, max_segments=3)


def test_what_is_sent_comes_back() -> None:
    rows = torch.arange(6.0).reshape(2, 3)
    inputs = [{"a": rows.T, "b": (rows, rows[0]), "c": ["words", 1, 0.5, None, True]}, "words"]
    again = unpacked(*packed(inputs))
    assert torch.equal(again[0].pop("a"), rows.T)
    assert [each.tolist() for each in again[0].pop("b")] == [rows.tolist(), rows[0].tolist()]
    assert again == [{"c": ["words", 1, 0.5, None, True]}, "words"]
    with pytest.raises(OmniAlignError, match="hold a set"):
        packed([{1, 2}])


def test_those_who_wait_are_bounded(decoding) -> None:
    async def test(decoders: Decoders) -> None:
        await still_works(decoders)
        asked = [asyncio.create_task(decoders.inputs(b"hang", "hostile")) for _ in range(3)]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert [error.status for error in ended] == [422, 422, 503]
        assert ended[2].headers == {"Retry-After": "1"}

    decoding(test, decode_seconds=1.0, max_waiting=2)
