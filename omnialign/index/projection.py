"""A library in two dimensions, so that neighbours in the space are neighbours on a map.

Axes: n files, m of them in one modality, D dim, P principal components.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from omnialign.data.features import cache_folder
from omnialign.index.rows import file_of, vectors_of

if TYPE_CHECKING:
    from omnialign.index.index import Index

NUM_COMPONENTS = 50
"""P; what distances of neighbours come from."""
_FEW = 10
"""With no more files than that there are no neighbourhoods."""
_ID_VALUES = 2.0**64
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Projection:
    """Files and where they lie."""

    ids: list[str]
    """Of the first row of each file."""
    modalities: list[str]
    places: Array
    """float32 `(n, 2)`, from 0 to 1."""

    def save(self, file: Path) -> None:
        x, y = self.places.T
        table = pa.table({"id": self.ids, "modality": self.modalities, "x": x, "y": y})
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}")
        with pa.OSFile(str(partial), "wb") as opened, pa.ipc.new_file(opened, table.schema) as all_:
            all_.write_table(table)
        os.replace(partial, file)

    @classmethod
    def load(cls, file: Path) -> Projection:
        """What `save` wrote."""
        with pa.OSFile(str(file)) as opened:
            table = pa.ipc.open_file(opened).read_all()
        places = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1)
        return cls(table["id"].to_pylist(), table["modality"].to_pylist(), places)


def projection_file(index: Index, max_files: int) -> Path:
    """Where the projection of the library as it is now is kept: in its folder, if it has one."""
    of = hashlib.blake2b(f"{index.version} {max_files}".encode(), digest_size=8).hexdigest()
    if Path(index.uri).is_dir():
        return Path(index.uri) / "projection" / f"{of}.arrow"
    name = hashlib.blake2b(index.uri.encode(), digest_size=8).hexdigest()
    return cache_folder() / "projections" / name / f"{of}.arrow"


def project(index: Index, max_files: int = 100_000) -> Projection:
    """Computes it, or takes what was computed for the same version of the library.

    Of more than `max_files`, about so many. A file is the mean of its rows. What all files of a
    modality have in common is taken away first, so that modalities mix and meaning decides.

    The method is PaCMAP (Wang et al., "Understanding How Dimension Reduction Tools Work", JMLR
    2021); on one machine, the same library gives the same map.
    """
    file = projection_file(index, max_files)
    if file.is_file():
        return Projection.load(file)
    ids, modalities, vectors = _files(index, max_files)
    places = embed_in_plane(centred(vectors, modalities))
    found = Projection(ids, modalities, places)
    for old in file.parent.glob("*.arrow"):
        old.unlink(missing_ok=True)
    found.save(file)
    return found


def _files(index: Index, max_files: int) -> tuple[list[str], list[str], Array]:
    num_files = sum(
        int(np.count_nonzero(batch.column("segment").to_numpy() == 0))
        for batch in index.rows.read(["segment"])
    )
    share = min(1.0, max_files / max(num_files, 1))
    ids: dict[str, str] = {}
    modalities: dict[str, str] = {}
    sums: dict[str, Array] = {}
    for batch in index.rows.read(["id", "modality", "segment", "vector"]):
        columns = (batch.column(name).to_pylist() for name in ("id", "modality", "segment"))
        vectors = vectors_of(batch)
        for row_id, modality, segment, vector in zip(*columns, vectors, strict=True):
            name = file_of(row_id)
            if int(name, 16) / _ID_VALUES > share:
                continue
            sums[name] = sums[name] + vector if name in sums else vector.copy()
            modalities[name] = modality
            if segment == 0:
                ids[name] = row_id
    names = sorted(ids)
    vectors = np.stack([sums[name] for name in names]) if names else np.empty((0, index.dim))
    return [ids[name] for name in names], [modalities[name] for name in names], vectors


def centred(vectors: Array, modalities: list[str]) -> Array:
    """Unit vectors `(n, D)` from which the mean of their modality was taken."""
    names = np.array(modalities)
    found = _unit(vectors.astype(np.float32))
    for name in np.unique(names):
        own = names == name
        if own.sum() > 1:
            found[own] -= found[own].mean(0)
    return _unit(found)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def embed_in_plane(vectors: Array) -> Array:
    """Places `(n, 2)` from 0 to 1."""
    if len(vectors) <= _FEW:
        return _in_unit_square(_principal(vectors, 2))
    from pacmap import PaCMAP

    logging.getLogger("pacmap").setLevel(logging.ERROR)  # it tells of each choice that it makes
    reduced = _principal(vectors, NUM_COMPONENTS).astype(np.float32)
    return _in_unit_square(
        np.asarray(PaCMAP(random_state=0, apply_pca=False).fit_transform(reduced))
    )


def _principal(vectors: Array, num: int) -> Array:
    """The first principal components `(n, P)`."""
    if not len(vectors):
        return np.empty((0, num))
    spread = vectors - vectors.mean(0)
    values, directions = np.linalg.eigh(spread.T @ spread)
    directions = directions[:, np.argsort(-values)[:num]]
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(directions.shape[1])])
    found = spread @ (directions * signs)
    return np.pad(found, ((0, 0), (0, num - found.shape[1])))


def _in_unit_square(places: Array) -> Array:
    if not len(places):
        return places.astype(np.float32)
    low, high = places.min(0), places.max(0)
    return ((places - low) / np.maximum(high - low, 1e-9)).astype(np.float32)
