"""What is freed inside stays with the process, and is given back after."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import pytest
import torch

from omnialign.engine.memory import freed_memory_kept

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator alone is told")
BLOCK_BYTES = 2**26


def pages_of_new_blocks(num_bytes: int = BLOCK_BYTES) -> int:
    """Pages that the system had to map for a block that is taken and freed ten times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(num_bytes, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_a_block_is_mapped_once_and_given_back_at_the_end() -> None:
    mapped_each_time = pages_of_new_blocks()
    with freed_memory_kept():
        pages_of_new_blocks()  # until the heap has a hole that the block fits in
        assert pages_of_new_blocks() < mapped_each_time / 5
        held = resident_bytes()
    assert resident_bytes() < held - BLOCK_BYTES / 2
    too_large_for_holes = 4 * BLOCK_BYTES
    assert pages_of_new_blocks(too_large_for_holes) > 4 * mapped_each_time / 2
