"""The process that decodes: what it is sent may be hostile, so it can do and hold little.

It is an interpreter of its own. Its parent gives it what to decode with and then tasks, and it
answers with two messages: JSON, and bytes. The parent unpickles nothing of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from omnialign.contract import Blob, Preview
from omnialign.data.pipeline import Pipeline
from omnialign.errors import OmniAlignError, ReadError
from omnialign.registry import Registry
from omnialign.serve.limits import MIB, Limits
from omnialign.serve.packing import packed

UPLOAD = "upload"
"""What an uploaded file is called; the name that it came with is never used."""


@dataclass(frozen=True)
class Decode:
    """An uploaded file to the inputs of its encoder."""

    data: bytes
    modality: str | None


@dataclass(frozen=True)
class Show:
    """An indexed file, from a second on, to something that people see or hear."""

    path: str
    modality: str
    start_seconds: float | None
    interactive: bool


def decode_forever(descriptor: int) -> None:
    """Answers at an end of a pipe until the parent hangs up."""
    connection = Connection(descriptor)
    pipelines: Mapping[str, Pipeline]
    limits: Limits
    pipelines, limits = connection.recv()
    torch.set_num_threads(1)
    _bound_memory(limits.decode_bytes)
    connection.send_bytes(b"ready")
    while True:
        try:
            task: Decode | Show = connection.recv()
        except EOFError:
            return
        about, data = _answer(task, pipelines, limits)
        connection.send_bytes(json.dumps(about).encode())
        connection.send_bytes(data)


def _answer(
    task: Decode | Show, pipelines: Mapping[str, Pipeline], limits: Limits
) -> tuple[dict[str, Any], bytes]:
    """What is said, or the problem in one sentence that does not tell where a file lies."""
    try:
        if isinstance(task, Decode):
            about, data = _decoded(task, pipelines, limits)
        else:
            about, data = _shown(task, pipelines[task.modality])
        if len(data) <= limits.decoded_bytes:
            return about, data
        problem = f"it takes more than {limits.decoded_bytes // MIB} MB once it is decoded"
    except MemoryError:
        problem = "it takes too much memory"
    except ReadError as error:
        problem = str(error) if isinstance(task, Decode) else error.reason
    except OmniAlignError as error:
        problem = str(error)
    except Exception as error:
        problem = f"it cannot be prepared for its encoder: {type(error).__name__}: {error}"
    if isinstance(task, Show):
        problem = problem.replace(task.path, Path(task.path).name)
    return {"problem": " ".join(problem.split())}, b""


def _bound_memory(more: int) -> None:
    """From here on no more than `more` bytes can be taken."""
    if sys.platform == "linux":
        from resource import RLIMIT_AS, RLIMIT_CORE, setrlimit

        import psutil

        most = psutil.Process().memory_info().vms + more
        setrlimit(RLIMIT_AS, (most, most))
        setrlimit(RLIMIT_CORE, (0, 0))


def _decoded(
    task: Decode, pipelines: Mapping[str, Pipeline], limits: Limits
) -> tuple[dict[str, Any], bytes]:
    modality = task.modality
    if modality is None:
        among = Registry()
        among.modalities = {name: each.modality for name, each in pipelines.items()}
        modality, _ = among.decide(task.data)
    pipeline = pipelines[modality]
    inputs: list[Any] = []
    for segment in pipeline.read_segments(Blob(UPLOAD, partial(bytes, task.data))):
        if (segment.end_seconds or 0) > limits.upload_seconds:
            raise ReadError(
                UPLOAD, f"it lasts longer than {limits.upload_seconds:g} s; send a part of it"
            )
        if len(inputs) == limits.max_segments:
            raise ReadError(
                UPLOAD, f"it has more than {limits.max_segments} segments; send a part of it"
            )
        inputs.append(pipeline.preprocess(segment.sample))
    structure, data = packed(inputs)
    return {"modality": modality, "inputs": structure}, data


def _shown(task: Show, pipeline: Pipeline) -> tuple[dict[str, Any], bytes]:
    for segment in pipeline.read_segments(Path(task.path)):
        if segment.start_seconds in (task.start_seconds, None):
            preview = _preview(segment.sample, pipeline, task.interactive)
            return {"mime": preview.mime}, preview.data
    raise OmniAlignError(f"nothing begins at {task.start_seconds} s any more; index it again")


def _preview(sample: Any, pipeline: Pipeline, interactive: bool) -> Preview:
    try:
        if not interactive:
            return pipeline.modality.preview(sample)
        preview = pipeline.modality.interactive_preview(sample)
    except OmniAlignError:
        raise
    except Exception as error:
        raise OmniAlignError(
            f"the preview of {pipeline.modality.name} failed: {type(error).__name__}: {error}"
        ) from error
    if preview is None:
        raise OmniAlignError(f"{pipeline.modality.name} has no preview that can be handled")
    return preview
