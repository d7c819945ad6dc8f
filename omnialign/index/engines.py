"""Adds files to a table on this machine, or over a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omnialign.errors import OmniAlignError
from omnialign.index.adding import Adder, Progress, counted
from omnialign.index.collect import collect
from omnialign.index.model import LibraryModel
from omnialign.index.rows import File
from omnialign.index.store import Rows, Store

if TYPE_CHECKING:
    from omnialign.index.ray_engine import Cluster


def add_files(
    store: Store,
    rows: Rows,
    model: LibraryModel,
    paths: Sequence[str | Path],
    *,
    modality: str | None,
    engine: str,
    ray_address: str | None,
    workers: int,
    batch_size: int,
    progress: Progress | None,
) -> Adder:
    """Brings a table up to date with files; the arguments are those of `Index.add`.

    Raises:
        OmniAlignError: there is no such engine, or it lacks something.
    """
    cluster = _cluster(engine, rows, model, ray_address)
    adder = Adder(store, rows, model.record.dim, cluster and cluster.replace, roots=paths)
    files = collected(store, model, paths, modality, adder.report.passed_over)
    if cluster is not None:
        cluster.add(adder, files, workers=workers, batch_size=batch_size, progress=progress)
        return adder
    if progress is not None:
        total = sum(1 for _ in collected(store, model, paths, modality, {}))
        files = counted(files, total, progress)
    bf16 = model.record.bf16
    adder.add(files, model.space, workers=workers, batch_size=batch_size, bf16=bf16)
    return adder


def collected(
    store: Store,
    model: LibraryModel,
    paths: Sequence[str | Path],
    modality: str | None,
    passed_over: dict[str, str],
) -> Iterator[File]:
    """The files of paths that are of the model's modalities; none of the library's own."""
    return collect(
        paths, model.modalities, only=modality, passed_over=passed_over, except_below=store.uri
    )


def _cluster(engine: str, rows: Rows, model: LibraryModel, address: str | None) -> Cluster | None:
    if engine == "local":
        return None
    if engine != "ray":
        raise OmniAlignError(f"engine is '{engine}'; it is 'local' or 'ray'")
    from omnialign.index.ray_session import import_ray

    import_ray()
    from omnialign.index.ray_engine import Cluster

    return Cluster(rows, model, address)
