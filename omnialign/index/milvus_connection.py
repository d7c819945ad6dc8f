"""A Milvus server: where it is, and what is asked of it."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from pymilvus import DataType, MilvusClient, MilvusException

from omnialign.errors import OmniAlignError

TOKEN = "OMNIALIGN_MILVUS_TOKEN"
_CONNECT_SECONDS = 30
_ATTEMPTS = 2
_TIMEOUT_SECONDS = 120
logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # errors are raised, and said once
MAX_BYTES = 65_535
"""Of a text in Milvus."""


@dataclass(frozen=True)
class Address:
    """Where a library lies in Milvus."""

    server: str
    library: str
    token: str = ""
    database: str = ""

    @classmethod
    def parse(cls, uri: str) -> Address:
        """`milvus://[TOKEN@]HOST[:PORT]/[DATABASE/]NAME`; `milvus+tls://` is encrypted.

        A token is `user:password` or a key; without one, that of the environment's
        `OMNIALIGN_MILVUS_TOKEN`.
        """
        parts = urlsplit(uri)
        *database, library = parts.path.strip("/").split("/")
        name = re.compile(r"[A-Za-z_]\w{0,200}", re.ASCII)
        if not parts.hostname or len(database) > 1 or not name.fullmatch(library):
            raise OmniAlignError(
                f"'{without_token(uri)}' is no library in Milvus; wanted milvus://HOST:PORT/NAME, "
                "or milvus+tls://…, with a name of letters, digits and _"
            )
        scheme = "https" if parts.scheme == "milvus+tls" else "http"
        server = f"{scheme}://{parts.hostname}:{parts.port or 19530}"
        userinfo, _, _ = parts.netloc.rpartition("@")
        token = unquote(userinfo) or os.environ.get(TOKEN, "")
        return cls(server, library, token, "".join(database))


def _one_line(error: MilvusException) -> str:
    return " ".join(str(error.message).split())


def without_token(uri: str) -> str:
    return re.sub(r"//[^/]*@", "//", uri)


class MilvusConnection:
    """Calls of one server; what it refuses is an `OmniAlignError`."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: MilvusClient | None = None

    def __call__(self, method: str, *args: Any, **options: Any) -> Any:
        """A method of `MilvusClient`."""
        if self._client is None:
            self._client = self._connected()
        try:
            return getattr(self._client, method)(*args, timeout=_TIMEOUT_SECONDS, **options)
        except MilvusException as error:
            raise OmniAlignError(
                f"Milvus at {self.address.server} cannot do what was asked ({method}): "
                f"{_one_line(error)}"
            ) from error

    def _connected(self) -> MilvusClient:
        """A client; a busy server may turn the first attempt away."""
        for attempt in range(_ATTEMPTS):
            try:
                return MilvusClient(
                    uri=self.address.server,
                    token=self.address.token,
                    db_name=self.address.database,
                    timeout=_CONNECT_SECONDS / _ATTEMPTS,
                )
            except MilvusException as error:
                if attempt + 1 == _ATTEMPTS:
                    raise OmniAlignError(
                        f"no Milvus answers at {self.address.server}; start it, or mend the "
                        f"address or the token, which {TOKEN} gives ({_one_line(error)})"
                    ) from error
        raise AssertionError

    def create(
        self,
        collection: str,
        fields: Sequence[Mapping[str, Any]],
        dim: int,
        lookups: Sequence[str] = (),
    ) -> None:
        """An empty collection of these fields and a vector; its search is exact.

        Rows are found quickly by the fields `lookups`.
        """
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        for field in fields:
            schema.add_field(**field)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        indexes = MilvusClient.prepare_index_params()
        indexes.add_index("vector", index_type="FLAT", metric_type="IP")
        for name in lookups:
            indexes.add_index(name, index_type="INVERTED")
        self(
            "create_collection",
            collection,
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
        )

    def open(self, collection: str) -> bool:
        """Whether there is a collection of that name; if so, it can be read from now on."""
        if not self("has_collection", collection):
            return False
        self("load_collection", collection)
        return True

    def read(self, collection: str, condition: str, fields: Sequence[str], n: int) -> Iterator[Any]:
        """All rows that fit, in lists of at most `n`."""
        rows = self(
            "query_iterator",
            collection,
            filter=condition,
            output_fields=list(fields),
            batch_size=n,
        )
        try:
            while batch := rows.next():
                yield batch
        except MilvusException as error:
            raise OmniAlignError(
                f"Milvus at {self.address.server} stopped while it was read: {_one_line(error)}"
            ) from error
        finally:
            rows.close()
