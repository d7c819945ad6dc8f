"""Files to encoder inputs: read, cut and preprocessed here, or in worker processes.

A worker is an interpreter of its own, not a fork: this process may hold threads and a device that
no fork survives, and a script without a main guard is not run again. It takes paths from its
standard input and gives pickled inputs of ours through its standard output.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from queue import Empty, Queue, SimpleQueue
from threading import Thread
from typing import IO, Any

import numpy as np
import torch

from omnialign.contract import Segment
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError, ReadError

PATIENCE_SECONDS = 300.0
"""How long a worker may take over one segment."""
START = "from omnialign.index.reading import work; work()"
DIED = (EOFError, OSError, pickle.UnpicklingError)
"""What reading from a process that is no more raises."""


@dataclass(frozen=True)
class File:
    """What is to be read, with the number that its inputs come back with."""

    number: int
    path: Path
    modality: str


@dataclass(frozen=True)
class End:
    """Behind the last input of a file; the problem is one line, None where there was none."""

    problem: str | None = None


Told = Segment[Any] | End
"""A segment whose sample is an encoder input, or the end of its file."""


def read_file(pipeline: Pipeline, path: Path) -> Iterator[Told]:
    """The inputs of a file, one after the other, and its end; raises nothing."""
    try:
        for segment in pipeline.read_segments(path):
            yield replace(segment, sample=pipeline.preprocess(segment.sample))
    except ReadError as error:
        yield End(_one_line(error.reason))
    except OmniAlignError as error:
        yield End(_one_line(str(error)))
    except Exception as error:
        name = pipeline.modality.name
        yield End(_one_line(f"the {name} preprocessing failed: {type(error).__name__}: {error}"))
    else:
        yield End()


def _one_line(reason: str) -> str:
    return " ".join(reason.split())


def read_files(
    pipelines: Mapping[str, Pipeline], files: Iterator[File], num_workers: int, most_waiting: int
) -> Iterator[tuple[int, Told]]:
    """What the files give, by their number: of one file in order, of several mixed.

    `files` is taken from as work goes on, in the thread that asks. With workers, no more than
    `most_waiting` inputs wait to be asked for.

    Raises:
        OmniAlignError: a worker cannot start.
    """
    if num_workers == 0:
        for file in files:
            for told in read_file(pipelines[file.modality], file.path):
                yield file.number, told
        return
    team = _Team(pipelines, num_workers, most_waiting)
    unfinished = 0
    try:
        while True:
            while unfinished < most_waiting + num_workers:
                if (file := next(files, None)) is None:
                    break
                team.give(file)
                unfinished += 1
            if not unfinished:
                return
            number, told = team.next()
            unfinished -= isinstance(told, End)
            yield number, told
    finally:
        team.close()


class _Team:
    """Worker processes, and for each of them a thread that talks with it."""

    def __init__(
        self, pipelines: Mapping[str, Pipeline], num_workers: int, most_waiting: int
    ) -> None:
        self._pipelines = pickled(dict(pipelines))
        self._files: SimpleQueue[File | None] = SimpleQueue()
        self._told: Queue[tuple[int, Told] | OmniAlignError] = Queue(most_waiting)
        self._is_closing = False
        self._workers = [_Worker() for _ in range(num_workers)]
        self._threads = [
            Thread(target=self._talk, args=(place,), daemon=True) for place in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def give(self, file: File) -> None:
        self._files.put(file)

    def next(self) -> tuple[int, Told]:
        """Waits; raises `OmniAlignError` where a worker cannot start or go on."""
        while True:
            for worker in self._workers:
                worker.lose_patience()
            try:
                told = self._told.get(timeout=1.0)
            except Empty:
                continue
            if isinstance(told, OmniAlignError):
                raise told
            return told

    def close(self) -> None:
        """Kills the workers, whatever they do."""
        self._is_closing = True
        for _ in self._threads:
            self._files.put(None)
        while any(thread.is_alive() for thread in self._threads):
            for worker in self._workers:
                worker.kill()
            with suppress(Empty):  # a thread may wait to say what nobody asks for any more
                self._told.get(timeout=0.02)

    def _talk(self, place: int) -> None:
        worker = self._workers[place]
        try:
            worker.start(self._pipelines)
            while (file := self._files.get()) is not None:
                told: Told | None = None
                worker.give(file)
                while not isinstance(told, End):
                    try:
                        told = worker.next()
                    except DIED:
                        told = End(worker.how_it_died())
                    self._told.put((file.number, told))
                if worker.is_dead and not self._is_closing:
                    worker.close()
                    worker = self._workers[place] = _Worker()
                    worker.start(self._pipelines)
        except OmniAlignError as error:
            self._told.put(error)
        except BaseException as error:  # whoever waits for this thread would wait for ever
            reason = f"{type(error).__name__}: {error}"
            self._told.put(OmniAlignError(f"reading files in workers failed: {_one_line(reason)}"))
        finally:
            worker.close()


class _Worker:
    """One process that reads one file after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,  # Ctrl-C in a terminal is ours to answer
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._asked: float | None = None
        self._was_too_slow = False
        self.is_dead = False

    def start(self, pipelines: bytes) -> None:
        """Waits until it is ready; raises `OmniAlignError` where it will never be."""
        self._write(pipelines)
        try:
            pickle.load(self._from)
        except DIED:
            raise OmniAlignError(
                f"a worker that reads files could not start: {self.how_it_died()}; what it printed "
                "says why; with workers=0 files are read in this process"
            ) from None

    def give(self, file: File) -> None:
        self._write(pickled((file.path, file.modality)))

    def next(self) -> Told:
        """Waits for what it says next of the file that it was given."""
        self._asked = time.monotonic()
        try:
            return pickle.load(self._from)
        finally:
            self._asked = None

    def lose_patience(self) -> None:
        asked = self._asked
        if asked is not None and time.monotonic() - asked > PATIENCE_SECONDS:
            self._was_too_slow = True
            self.kill()

    def how_it_died(self) -> str:
        """One line; waits for the end of the process."""
        self.is_dead = True
        self.kill(wait=10.0)
        code = self._process.wait()
        if self._was_too_slow:
            return f"its reader took longer than {PATIENCE_SECONDS:g} s over one segment"
        if code >= 0:
            return f"its reader ended with exit code {code}"
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        return f"its reader was killed by {signal.Signals(-code).name}{hint}"

    def kill(self, wait: float = 0.0) -> None:
        """Where it has not ended by itself within `wait` seconds."""
        try:
            self._process.wait(wait)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._from.close()
        with suppress(OSError):  # what it never read
            self._to.close()

    def _write(self, data: bytes) -> None:
        with suppress(OSError):  # it died, as `next` will find
            self._to.write(data)
            self._to.flush()


class _Pickler(pickle.Pickler):
    """Takes tensors as arrays, which is several times quicker; keeps the order of their axes."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not torch.Tensor or obj.dtype == torch.bfloat16:
            return NotImplemented
        order = sorted(range(obj.ndim), key=lambda axis: -obj.stride(axis))
        return _tensor, (obj.detach().permute(order).numpy(), order)


def _tensor(array: np.ndarray[Any, Any], order: list[int]) -> torch.Tensor:
    """An array whose axes are those of the tensor, in the order in which they lie in memory."""
    return torch.from_numpy(array).permute([order.index(axis) for axis in range(len(order))])


def pickled(found: Any) -> bytes:
    buffer = BytesIO()
    _Pickler(buffer, protocol=5).dump(found)
    return buffer.getvalue()


def work() -> None:
    """A worker's life: pipelines first, then files, until there are no more."""
    to = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a decoder prints is not for us
    given = os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    torch.set_num_threads(1)
    try:
        pipelines: dict[str, Pipeline] = pickle.load(given)
        to.write(pickled(True))
        to.flush()
        while True:
            path, modality = pickle.load(given)
            for told in read_file(pipelines[modality], path):
                to.write(pickled(told))
                to.flush()
    except (EOFError, BrokenPipeError):
        os._exit(0)
