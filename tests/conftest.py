"""The toys of `omnialign.testing.toy`, installed for one test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared bit by bit, so all on the CPU

from omnialign.registry import Registry
from omnialign.testing import toy


@pytest.fixture
def toys() -> Iterator[Registry]:
    with toy.installed() as plugins:
        yield plugins


@pytest.fixture
def real_data() -> Path:
    """The folder of openly licensed sets that lies beside the checkout."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not here")
    return folder
