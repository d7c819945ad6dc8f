"""The toys of `omnialign.testing.toy`, installed for one test."""

from collections.abc import Iterator

import pytest

from omnialign.registry import Registry
from omnialign.testing import toy


@pytest.fixture
def toys() -> Iterator[Registry]:
    with toy.installed() as plugins:
        yield plugins
