"""Who writes to a library in Milvus: one process, and none that is dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import uuid

import pytest

from omnialign.errors import OmniAlignError

pytest.importorskip("pymilvus", reason="pymilvus is not installed")

from omnialign.index.milvus import MilvusStore


@pytest.fixture
def uri(milvus: str) -> str:
    return f"milvus://{milvus}/library_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(uri: str) -> MilvusStore:
    return MilvusStore(uri)


def test_one_process_writes(store: MilvusStore, uri: str) -> None:
    message = r"process \d+ on .* is writing to 'milvus://"
    with store.lock(), pytest.raises(OmniAlignError, match=message), MilvusStore(uri).lock():
        pass
    with MilvusStore(uri).lock():
        pass


def test_who_is_dead_does_not_write(store: MilvusStore, uri: str) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    writer = {
        "process": ended.pid,
        "at": time.time(),
        "host": socket.gethostname(),
    }
    store.write_documents({"milvus/writer": json.dumps(writer)})
    with store.lock():
        pass
    store.write_documents({"milvus/writer": json.dumps({**writer, "host": "elsewhere"})})
    with pytest.raises(OmniAlignError, match="on elsewhere is writing"), store.lock():
        pass
    late = {**writer, "host": "elsewhere", "at": time.time() - 601}
    store.write_documents({"milvus/writer": json.dumps(late)})
    with store.lock():
        pass


def test_a_number_that_another_process_has_now(store: MilvusStore, uri: str) -> None:
    former = {"process": os.getpid(), "started": 1.0, "at": time.time(), "token": "former"}
    former["host"] = socket.gethostname()
    store.write_documents({"milvus/writer": json.dumps(former)})
    with store.lock():
        store.write_documents({"milvus/writer": json.dumps({**former, "host": "elsewhere"})})
    with pytest.raises(OmniAlignError, match="on elsewhere"), MilvusStore(uri).lock():
        pass
