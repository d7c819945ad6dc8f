"""Where a library lies: small documents, and tables of rows that are searched.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from omnialign.errors import OmniAlignError

if TYPE_CHECKING:
    from omnialign.index.where import Where

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Neighbours:
    """The rows nearest to a query, best first."""

    rows: pa.Table
    """Without their vectors."""
    cosines: Array
    """float32 `(n,)`."""


class Rows(ABC):
    """A table of rows, as `omnialign.index.rows.schema` describes them."""

    limit: int = 2**31
    """Of the neighbours that `nearest` gives."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Another one after every change."""

    @abstractmethod
    def count(self) -> int: ...

    @abstractmethod
    def replace(self, paths: Sequence[str], rows: pa.Table) -> None:
        """From now on the rows of these paths are `rows`.

        A reader sees the rows of a file as they were or as they are, and so does who comes after
        a crash.
        """

    @abstractmethod
    def remove(self, ids: Sequence[str]) -> None: ...

    @abstractmethod
    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows, in batches; no more than one is held."""

    @abstractmethod
    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        """Rows whose `column`, one of id, path and content, is one of `values`."""

    @abstractmethod
    def nearest(
        self, queries: Array, k: int, modalities: Sequence[str], where: Where | None = None
    ) -> list[dict[str, Neighbours]]:
        """For each of `queries` `(q, D)`, by modality: the `k` rows of the greatest cosine."""

    @abstractmethod
    def matching(self, where: Where) -> list[str]:
        """The ids of the rows that a filter fits."""

    @abstractmethod
    def metadata_columns(self) -> dict[str, str]:
        """What the metadata of rows holds: the type of each column, as `Where` takes it."""

    @abstractmethod
    def modalities(self) -> dict[str, int]:
        """How many rows each modality has."""

    def build_graph(self, k: int, progress: Callable[[int], None] | None = None) -> float:
        """Builds or extends an approximate index, which searches use from then on.

        Gives the share of the `k` nearest neighbours of some of the rows that it finds. Raises
        `OmniAlignError` where the table is kept by a server with indices of its own.
        """
        raise OmniAlignError("this library is searched by a server; build its index there")

    def settle(self) -> None:  # noqa: B027
        """After many changes: brings the table into the form that is quickest to read."""


class Store(ABC):
    """One library: documents by key, and tables by name."""

    uri: str

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def documents(self, prefix: str = "") -> dict[str, str]:
        """Small texts by key, those whose key starts so."""

    @abstractmethod
    def write_documents(self, documents: Mapping[str, str]) -> None:
        """All of them at once; a key that is there gets the new text."""

    @abstractmethod
    def remove_documents(self, keys: Sequence[str]) -> None: ...

    @abstractmethod
    def rows(self, name: str, dim: int) -> Rows:
        """The table of that name; an empty one where there is none."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Removes a table."""

    @abstractmethod
    def lock(self) -> Any:
        """A context in which nobody else writes; raises `OmniAlignError` if somebody does."""


def is_library(uri: str) -> bool:
    """Whether a folder is a library; any other URI can be nothing else. Imports little."""
    return "://" in uri or (Path(uri) / "documents.lance").is_dir()


def open_store(uri: str) -> Store:
    """The store of a library: a folder, the URI of an object storage, or `milvus://…`.

    Raises `OmniAlignError` where what it needs is not installed.
    """
    if uri.startswith(("milvus://", "milvus+tls://")):
        try:
            return import_module("omnialign.index.milvus").MilvusStore(uri)
        except ModuleNotFoundError as error:
            raise missing(error, "milvus") from None
    try:
        from omnialign.index.lance import LanceStore
    except ModuleNotFoundError as error:
        raise missing(error, "index") from None
    return LanceStore(uri)


def missing(error: ModuleNotFoundError, extra: str) -> OmniAlignError:
    """What to say of a package that an extra would install."""
    return OmniAlignError(
        f"a library wants {error.name}, which is not installed: pip install 'omnialign[{extra}]'"
    )
