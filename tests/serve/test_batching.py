"""Questions that meet are answered together."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from omnialign.serve.batching import Batcher
from omnialign.serve.limits import RefusedError


class Answers:
    """Doubles numbers, once it may; notes the batches."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, questions: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(questions))
        self.may.wait(10)
        if 13 in questions:
            return [ValueError("unlucky") if q == 13 else 2 * q for q in questions]
        if 99 in questions:
            raise RuntimeError("all fail")
        return [2 * q for q in questions]


@asynccontextmanager
async def batcher(answers: Answers, max_batch: int = 8, max_waiting: int = 100):
    sizes: list[int] = []
    with ThreadPoolExecutor(1) as executor:
        found = Batcher(
            answers, executor, max_batch=max_batch, max_waiting=max_waiting, seen=sizes.append
        )
        task = asyncio.create_task(found.run())
        yield found, sizes
        answers.may.set()
        task.cancel()


def test_what_arrives_meanwhile_is_one_batch() -> None:
    async def run() -> None:
        answers = Answers()
        async with batcher(answers) as (found, sizes):
            first = asyncio.create_task(found.ask(0))
            await asyncio.sleep(0.05)
            others = [asyncio.create_task(found.ask(n)) for n in range(1, 12)]
            await asyncio.sleep(0.05)
            others[3].cancel()  # who has left is not answered
            await asyncio.sleep(0)
            answers.may.set()
            assert await first == 0
            ended = await asyncio.gather(*others, return_exceptions=True)
            assert ended[:3] == [2, 4, 6]
            assert ended[4:] == [2 * n for n in range(5, 12)]
            assert answers.batches[0] == [0]
            assert sizes[0] == 1
            assert max(sizes) <= 8
            assert sum(sizes) == 11

    asyncio.run(run())


def test_one_error_is_one_persons() -> None:
    async def run() -> None:
        answers = Answers()
        answers.may.set()
        async with batcher(answers) as (found, _):
            ended = await asyncio.gather(
                *(found.ask(n) for n in (1, 13, 2)), return_exceptions=True
            )
            assert (ended[0], ended[2]) == (2, 4)
            assert isinstance(ended[1], ValueError)
            with pytest.raises(RuntimeError):
                await found.ask(99)
            assert await found.ask(5) == 10

    asyncio.run(run())


def test_beyond_the_bound_one_is_told_to_come_again() -> None:
    async def run() -> None:
        answers = Answers()
        async with batcher(answers, max_waiting=3) as (found, _):
            asked = [asyncio.create_task(found.ask(n)) for n in range(3)]
            await asyncio.sleep(0.05)
            with pytest.raises(RefusedError) as refused:
                await found.ask(3)
            assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
            answers.may.set()
            assert await asyncio.gather(*asked) == [0, 2, 4]

    asyncio.run(run())
