"""Libraries in Milvus: `milvus://HOST:PORT/NAME`.

A library is a collection of documents, and one of rows for each table.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any

import psutil
from pymilvus import DataType

from omnialign.errors import OmniAlignError
from omnialign.index.milvus_connection import MAX_BYTES, Address, MilvusConnection, without_token
from omnialign.index.milvus_rows import MilvusRows
from omnialign.index.store import Store

_OWN = "milvus/"
"""Before the keys of documents that only this module reads."""
_WRITER = f"{_OWN}writer"
_WRITER_SECONDS = 600
"""After so long without a sign, a writer on another machine is taken for dead."""
_SIGN_SECONDS = 60


class MilvusStore(Store):
    """A library in a Milvus server, which may be standalone or distributed.

    The search is exact (an index of type FLAT), and reads see what was written before them
    (consistency level Strong). A text, as the metadata of a row, has at most 65,535 bytes. One
    process at a time writes.
    """

    def __init__(self, uri: str) -> None:
        self.uri = without_token(uri)
        self._address = Address.parse(uri)
        self._milvus = MilvusConnection(self._address)
        self._collection = f"{self._address.library}_documents"
        self._is_there = False
        self._signed_at: float | None = None
        self._token = ""
        """Of the record of who writes, while it is ours."""

    def exists(self) -> bool:
        return bool(self.documents())

    def documents(self, prefix: str = "") -> dict[str, str]:
        found = self._found(prefix)
        return {key: text for key, text in found.items() if not key.startswith(_OWN)}

    def _found(self, prefix: str) -> dict[str, str]:
        if not self._has_documents():
            return {}
        condition = f"key >= {json.dumps(prefix, ensure_ascii=False)}"
        if prefix:
            after = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            condition += f" and key < {json.dumps(after, ensure_ascii=False)}"
        batches = self._milvus.read(self._collection, condition, ["key", "body"], 1000)
        return {row["key"]: row["body"] for batch in batches for row in batch}

    def _has_documents(self) -> bool:
        if not self._is_there:
            self._is_there = self._milvus.open(self._collection)
        return self._is_there

    def write_documents(self, documents: Mapping[str, str]) -> None:
        for key, text in documents.items():
            if (size := len(text.encode())) > MAX_BYTES:
                raise OmniAlignError(
                    f"the document '{key}' has {size} bytes; Milvus keeps at most {MAX_BYTES}"
                )
        if not self._has_documents():
            text = {"datatype": DataType.VARCHAR, "max_length": MAX_BYTES}
            fields = [{"field_name": name, **text} for name in ("hash", "key", "body")]
            fields[0]["is_primary"] = True
            self._milvus.create(self._collection, fields, dim=2)
        if documents:
            rows = [
                {"hash": _hash(key), "key": key, "body": text, "vector": [0.0, 1.0]}
                for key, text in documents.items()
            ]
            self._milvus("upsert", self._collection, rows)

    def remove_documents(self, keys: Sequence[str]) -> None:
        if keys:
            self._milvus("delete", self._collection, ids=[_hash(key) for key in keys])

    def read_note(self, key: str) -> Any:
        """What `write_note` has written, or None."""
        if not self._has_documents():
            return None
        ids = [_hash(_OWN + key)]
        found = self._milvus("get", self._collection, ids=ids, output_fields=["body"])
        return json.loads(found[0]["body"]) if found else None

    def write_note(self, key: str, value: Any) -> None:
        """Keeps something of this module's own; a sign that the writer is alive goes with it."""
        notes = {_OWN + key: json.dumps(value)}
        if self._signed_at is not None and time.monotonic() - self._signed_at > _SIGN_SECONDS:
            notes |= self._sign()
        self.write_documents(notes)

    def rows(self, name: str, dim: int) -> MilvusRows:
        return MilvusRows(self._milvus, self, f"{self._address.library}_{name}", dim)

    def drop(self, name: str) -> None:
        collection = f"{self._address.library}_{name}"
        if self._milvus("has_collection", collection):
            self._milvus("drop_collection", collection)
        self.remove_documents(list(self._found(f"{_OWN}{collection}/")))

    @contextmanager
    def lock(self) -> Generator[None]:
        other = json.loads(self._found(_WRITER).get(_WRITER, "null"))
        if other is not None and _is_alive(other):
            raise OmniAlignError(
                f"process {other['process']} on {other['host']} is writing to '{self.uri}'; wait "
                "until it has finished"
            )
        self._token = uuid.uuid4().hex
        self.write_documents(self._sign())
        try:
            yield
        finally:
            self._signed_at = None
            now = json.loads(self._found(_WRITER).get(_WRITER, "null"))
            if now is not None and now.get("token") == self._token:
                self.remove_documents([_WRITER])

    def _sign(self) -> dict[str, str]:
        self._signed_at = time.monotonic()
        writer = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "started": psutil.Process().create_time(),
            "at": time.time(),
            "token": self._token,
        }
        return {_WRITER: json.dumps(writer)}


def _hash(key: str) -> str:
    """The primary key of a document: pymilvus pages by primary keys, and quotes none."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def _is_alive(writer: Mapping[str, Any]) -> bool:
    """A process that began at another time has only the number of one that is dead."""
    if writer["host"] == socket.gethostname():
        try:
            started = psutil.Process(writer["process"]).create_time()
        except psutil.NoSuchProcess:
            return False
        if "started" in writer:
            return abs(started - writer["started"]) < 1.0
    return time.time() - writer["at"] < _WRITER_SECONDS
