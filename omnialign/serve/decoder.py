"""The process that decodes: what it is sent may be hostile, so it can do and hold little.

It is given tasks by its parent, and answers with two messages: JSON, and bytes. The parent
unpickles nothing of it.
"""

from __future__ import annotations

import io
import json
import signal
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
from omnialign.serve.limits import Limits

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


def decode_forever(
    connection: Connection, pipelines: Mapping[str, Pipeline], limits: Limits
) -> None:
    """Answers until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it ends
    torch.set_num_threads(1)
    _bound_memory(limits.decode_bytes)
    connection.send_bytes(b"ready")
    while True:
        try:
            task: Decode | Show = connection.recv()
        except EOFError:
            return
        try:
            if isinstance(task, Decode):
                about, data = _decoded(task, pipelines, limits)
            else:
                about, data = _shown(task, pipelines[task.modality])
        except (OmniAlignError, MemoryError) as error:
            about, data = {"problem": str(error) or "it takes too much memory"}, b""
        connection.send_bytes(json.dumps(about).encode())
        connection.send_bytes(data)


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
        inputs.append(pipeline.preprocess(segment.sample))
    file = io.BytesIO()
    torch.save(inputs, file)
    return {"modality": modality}, file.getvalue()


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
