"""Questions that arrive while others are being answered are answered together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Generic, TypeVar

from omnialign.serve.limits import Waiting

Question = TypeVar("Question")


class Batcher(Generic[Question]):
    """Hands questions to `answer`, as many as wait, up to `max_batch` at a time.

    Args:
        answer: an answer or an exception for each question; runs in `executor`.
        executor: of one thread, which alone uses the model.
        max_batch: questions at a time.
        max_waiting: beyond so many, `ask` raises `RefusedError` (503).
        seen: told the size of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], Sequence[Any]],
        executor: Executor,
        *,
        max_batch: int,
        max_waiting: int,
        seen: Callable[[int], None],
    ) -> None:
        self._answer, self._executor, self._seen = answer, executor, seen
        self._max_batch = max_batch
        self._waiting = Waiting(max_waiting)
        self._asked: asyncio.Queue[tuple[Question, asyncio.Future[Any]]] = asyncio.Queue()

    async def ask(self, question: Question) -> Any:
        with self._waiting:
            answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._asked.put_nowait((question, answer))
            return await answer

    async def run(self) -> None:
        """Answers until it is cancelled."""
        while True:
            batch = [await self._asked.get()]
            with suppress(asyncio.QueueEmpty):
                while len(batch) < self._max_batch:
                    batch.append(self._asked.get_nowait())
            batch = [(question, answer) for question, answer in batch if not answer.done()]
            if batch:
                await self._answer_all(batch)

    async def _answer_all(self, batch: Sequence[tuple[Question, asyncio.Future[Any]]]) -> None:
        self._seen(len(batch))
        loop = asyncio.get_running_loop()
        questions = [question for question, _ in batch]
        try:
            found = await loop.run_in_executor(self._executor, self._answer, questions)
        except Exception as error:
            found = [error] * len(batch)
        for (_, answer), each in zip(batch, found, strict=True):
            if answer.done():  # who asked has left
                continue
            if isinstance(each, Exception):
                answer.set_exception(each)
            else:
                answer.set_result(each)
