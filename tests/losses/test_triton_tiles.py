"""Which losses go to Triton's kernels, and the kernels themselves in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from omnialign.losses import triton_tiles

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton comes with torch's CUDA builds for Linux alone"
)


@needs_triton
def test_the_kernels_are_exact() -> None:
    """In a process of its own: Triton asks for the interpreter when it is imported."""
    file = Path(__file__).with_name("interpreted_triton.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(file), "-x", "-p", "no:cacheprovider"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_triton
def test_a_cpu_has_the_tiles_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(2, 2)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert not triton_tiles.usable(x)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_tiles.usable(x)
    assert triton_tiles.usable(x.bfloat16())
    assert not triton_tiles.usable(x.double())


def test_without_triton_they_serve_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(triton_tiles, "find_spec", lambda _: None)
    assert not triton_tiles.usable(torch.zeros(2, 2))
