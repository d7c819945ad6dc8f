"""`index` and `duplicates`: libraries that last."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from omnialign.cli.output import Json, linked, note, percent, print_json, progress, table

if TYPE_CHECKING:
    from omnialign.index import Index
    from omnialign.index.adding import AddReport

Library = Annotated[str, typer.Argument(help="A folder, s3://… or milvus://host:port/NAME.")]


def index(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Files, folders, or quoted patterns.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", help="The library: a folder, s3://… or milvus://host:port/NAME.")
    ] = "library",
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Of a new library: a run, a saved model, hub:USER/NAME."
        ),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(help="Of a new library: a size that the model was trained for.")
    ] = None,
    bf16: Annotated[
        bool, typer.Option("--bf16", help="Of a new library: embed in 16 bits, which is faster.")
    ] = False,
    modality: Annotated[str | None, typer.Option(help="Of all files.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read files.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Encoder inputs in one forward.")] = 64,
    prune: Annotated[
        bool, typer.Option("--prune", help="Files that are gone leave the library.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: over a cluster.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="Of the cluster; without it, RAY_ADDRESS or this machine.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Embed all files of the library again with --model.")
    ] = False,
    approximate: Annotated[
        bool,
        typer.Option("--approximate", help="Build a graph for a library too large to be scanned."),
    ] = False,
    json: Json = False,
) -> None:
    """Make a library of files, or bring one up to date: only what is new or changed is embedded.

    Example: `omnialign index photos/ "sounds/*.flac" --model runs/any-to-text --to library`
    """
    import omnialign as oa

    if rebuild:
        if model is None or paths:
            raise oa.OmniAlignError("--rebuild wants --model, and no paths: it takes those it has")
        library = oa.Index.open(to)
        with progress("embedding again") as bar:
            report = library.rebuild(
                model,
                dim=dim,
                bf16=bf16,
                workers=workers,
                batch_size=batch_size,
                prune=prune,
                progress=bar,
            )
    elif paths or not approximate:
        if not paths:
            raise oa.OmniAlignError("index wants PATH…: files, folders or quoted patterns")
        library = _opened(to, model, dim, bf16)
        with progress("embedding") as bar:
            report = library.add(
                paths,
                modality=modality,
                workers=workers,
                batch_size=batch_size,
                prune=prune,
                progress=bar,
                engine=engine,
                ray_address=ray_address,
            )
    else:
        library, report = oa.Index.open(to, model=model), None
    recall = None
    if approximate:
        with progress("building the graph") as bar:
            recall = library.build_graph(progress=bar)
    if json:
        found = asdict(report) if report else {}
        graph = {} if recall is None else {"graph_recall_at_10": recall}
        print_json({"library": library.uri, "num_rows": len(library), **found, **graph})
        return
    if report is not None:
        _tell(library, report)
    if recall is not None:
        note(
            f"the graph finds {percent(recall)} of the 10 nearest neighbours of the library's rows"
        )


def _opened(to: str, model: str | None, dim: int | None, bf16: bool) -> Index:
    import omnialign as oa

    if oa.Index.exists(to):
        library = oa.Index.open(to, model=model)
        if dim not in (None, library.dim):
            raise oa.OmniAlignError(f"the library '{to}' has vectors of {library.dim}, not {dim}")
        if bf16 and not library.model.record.bf16:
            raise oa.OmniAlignError(f"the library '{to}' is in float32; --rebuild can change that")
        return library
    if model is None:
        raise oa.OmniAlignError(f"there is no library at '{to}' yet; a new one wants --model")
    return oa.Index.create(to, model, dim=dim, bf16=bf16)


def _tell(library: Index, report: AddReport) -> None:
    table(
        f"{library.uri}: {len(library)} rows",
        ["added", "changed", "moved", "unchanged", "gone", "set aside", "passed over"],
        [
            [
                str(number)
                for number in (
                    report.added,
                    report.changed,
                    report.moved,
                    report.unchanged,
                    len(report.gone),
                    len(report.set_aside),
                    len(report.passed_over),
                )
            ]
        ],
    )
    for path, reason in list(report.set_aside.items())[:5]:
        note(f"set aside: {path}: {reason}")
    if len(report.set_aside) > 5:
        note(f"{len(report.set_aside)} files are set aside; --json lists them with their reasons")
    for path in report.gone[:5]:
        note(f"gone: {path}")
    if report.passed_over:
        first = next(iter(report.passed_over.values()))
        note(f"{len(report.passed_over)} files were passed over, the first because: {first}")


def duplicates(
    library: Library,
    threshold: Annotated[
        float, typer.Option(help="Least cosine between files that are nearly the same.")
    ] = 0.98,
    json: Json = False,
) -> None:
    """List files of a library that are the same, or nearly so to its model.

    Example: `omnialign duplicates library --threshold 0.99`
    """
    import omnialign as oa

    groups = oa.Index.open(library).duplicates(threshold)
    if json:
        print_json({"groups": [asdict(group) for group in groups]})
        return
    rows = [
        [group.kind, group.modality, f"{group.cosine:.3f}", "\n".join(map(linked, group.paths))]
        for group in groups
    ]
    table(f"{len(groups)} groups", ["kind", "modality", "cosine", "files"], rows, markup=True)
