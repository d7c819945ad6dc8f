"""The toys of `omnialign.testing.toy`, installed for one test."""

import os
from collections.abc import Iterator

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared bit by bit, so all on the CPU

from omnialign.registry import Registry
from omnialign.testing import toy


@pytest.fixture
def toys() -> Iterator[Registry]:
    with toy.installed() as plugins:
        yield plugins


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds features of another, or of the user."""
    monkeypatch.setenv("OMNIALIGN_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True)))
