"""A modality whose reader does what the file says: imported by the process that decodes."""

import os
import time
from pathlib import Path

import torch

from omnialign import Modality, Preview, Segment


def as_it_is(sample: torch.Tensor) -> torch.Tensor:
    if int(sample) == 7:
        raise ValueError("seven")
    return sample


class Hostile(Modality[torch.Tensor]):
    name = "hostile"
    encoders = {"none": "none"}  # noqa: RUF012
    default_encoder = "none"

    def read(self, source):
        if isinstance(source, Path):
            raise RuntimeError(f"no such thing in {source}")
        if source == b"crash":
            os.abort()
        if source == b"hang":
            time.sleep(1000)
        if source == b"bomb":
            return torch.ones(2**33)
        if source == b"fail":
            raise RuntimeError("an unforeseen failure")
        return torch.tensor([len(source)])

    def segments(self, sample, window):
        return [Segment(sample, 100.0 * i, 100.0 * (i + 1)) for i in range(int(sample))]

    def preview(self, sample):
        return Preview("text/plain", b"")

    def example_samples(self, n):
        return [torch.ones(k) for k in range(n)]
