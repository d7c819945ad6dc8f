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
@pytest.mark.slow
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
@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--tune", "--sides", "ours"]], ids=["compare", "tune"])
def test_the_benchmark_runs(more: list[str]) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "gpu_losses.py"
    done = subprocess.run(
        [sys.executable, str(file), "--smoke", *more],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Block(rows=128" in done.stdout if more else "N = 80" in done.stdout


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from omnialign.losses import triton_kernels
from omnialign.losses.triton_tiles import BLOCKS

NUMBERS = {"scale": "fp32", "bias": "fp32", "diagonal": "i32", "n": "i32", "m": "i32"}
for dtype, size in (("bf16", 2), ("fp32", 4)):
    block = BLOCKS[size]
    given = {"D": 512, "MASK": True, "PRECISION": "ieee", "ROWS": block.rows}
    given |= {"COLUMNS": block.columns, "STEP": block.step, "GROUP": block.group}
    described = {"x": [block.rows, block.step], "keys": [block.columns, block.step]}
    described["out"] = [block.rows, block.columns]
    for name in ("log_sums", "info_nce_derivatives", "sigmoid_derivatives"):
        kernel = getattr(triton_kernels, name)
        types = {
            key: NUMBERS.get(key)
            or ("constexpr" if key in given else "")
            or (f"tensordesc<{dtype}{described[key]}>".replace(" ", "") if key in described else "")
            or ("*i64" if key.startswith(("first", "second")) else "*fp32")
            for key in kernel.arg_names
        }
        options = {"num_warps": block.num_warps, "num_stages": block.num_stages}
        made = compile(
            ASTSource(fn=kernel, signature=types, constexprs=given),
            target=GPUTarget("cuda", 90, 32),
            options=options | {"maxnreg": block.max_registers},
        )
        assert ("wgmma" in made.asm["ptx"]) == (dtype == "bf16"), name
        assert made.metadata.shared < 227 * 1024 // (2 if dtype == "bf16" else 1), name
"""


@needs_triton
@pytest.mark.slow
def test_they_compile_for_an_h100() -> None:
    """With tensor cores for 16 bits, and shared memory for two programs on a multiprocessor."""
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


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
