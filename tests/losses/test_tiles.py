"""Tiles cover the matrix once, and memory does not grow with it.

Axes: N pairs, D dim.
"""

import subprocess
import sys

import pytest
import torch

from omnialign.losses import tiles


@pytest.mark.parametrize(
    ("n", "partners", "columns"), [(1, 1, 1), (7, 9, 13), (4, 3, 3), (0, 2, 2)]
)
def test_every_entry_is_in_one_tile(
    n: int, partners: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "ROWS", 3)
    monkeypatch.setattr(tiles, "COLUMNS", 2)
    seen = torch.zeros(n, columns, dtype=torch.int64)
    for rows, some in tiles.tiles(n, partners, columns):
        seen[rows, some] += 1
        assert some.stop <= partners or some.start >= partners
    assert torch.equal(seen, torch.ones_like(seen))


MEMORY = """
import torch
from omnialign.losses import info_nce, sigmoid

def peak():
    return int(next(x for x in open("/proc/self/status") if x.startswith("VmHWM")).split()[1])

def step(n):
    x = torch.nn.functional.normalize(torch.randn(n, 16), dim=-1).requires_grad_()
    info_nce(x, x.detach(), 20.0).backward()
    sigmoid(x, x.detach(), 10.0, -10.0).backward()

step(64)
before = peak()
step(16384)
print((peak() - before) / 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
def test_memory_is_linear_in_the_batch() -> None:
    """The whole matrix of 16,384 pairs would be 1,024 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 100
