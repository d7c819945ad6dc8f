"""`search`: a library, or a folder together with a model, asked in words or by a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omnialign.cli.output import Dim, Json, linked, note, out, print_json, progress, table

if TYPE_CHECKING:
    from omnialign.index import Hit, Index

THUMBNAIL_CELLS = 24
"""Width of a thumbnail in the terminal."""


def search(
    gallery: Annotated[str, typer.Argument(help="A library, or a folder of files.")],
    query: Annotated[str | None, typer.Argument(help="What is looked for, in words.")] = None,
    like: Annotated[
        list[Path] | None, typer.Option("--like", help="A file to go by; also beside words.")
    ] = None,
    minus: Annotated[
        list[str] | None, typer.Option("--minus", help="Words or a file to keep away from.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Of a folder; of a library whose model has moved."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many hits.")] = 5,
    modality: Annotated[str | None, typer.Option(help="Only hits of this modality.")] = None,
    where: Annotated[
        str | None, typer.Option(help="Of a library: a filter such as \"label = 'pets'\".")
    ] = None,
    segments: Annotated[
        bool, typer.Option("--segments", help="Of a library: also several segments of a file.")
    ] = False,
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Find files by words, or by a file of any modality.

    A folder is read each time and wants `--model`; a library is made by `omnialign index`.

    Example: `omnialign search library "three red circles" -k 3`
    """
    import omnialign as oa
    from omnialign.index.store import is_library

    asked: list[Any] = [*([query] if query is not None else []), *(like or [])]
    if not asked:
        raise oa.OmniAlignError('search wants words, or --like FILE: search library "a dog"')
    if not is_library(gallery):
        for option, given in {"--where": where, "--segments": segments, "--minus": minus}.items():
            if given:
                raise oa.OmniAlignError(
                    f"{option} is for libraries, and '{gallery}' is none; make one: omnialign "
                    f"index {gallery} --model RUN --to LIBRARY"
                )
        _search_folder(Path(gallery), asked, model, k, modality, dim, json)
        return
    library = oa.Index.open(gallery, model=model)
    if dim not in (None, library.dim):
        raise oa.OmniAlignError(
            f"the vectors of this library have {library.dim} numbers, not {dim}"
        )
    is_words = query is not None and not like and not minus
    hits = library.search(
        asked,
        k,
        modality=modality,
        where=where,
        minus=minus,
        query_modality=library.model.words if is_words else None,
        segments=segments,
    )
    if json:
        found = [hit.as_dict() for hit in hits]
        print_json({"query": query, "hits": found, "num_rows": sum(library.modalities.values())})
    else:
        _tell(query, hits, library)


def _search_folder(
    folder: Path,
    asked: list[Any],
    model: str | None,
    k: int,
    modality: str | None,
    dim: int | None,
    json: bool,
) -> None:
    import omnialign as oa
    from omnialign.gallery import Gallery

    if model is None:
        raise oa.OmniAlignError(f"'{folder}' is no library; to search a folder say --model RUN")
    if len(asked) > 1:
        raise oa.OmniAlignError("of a folder either words or one --like; a library takes both")
    space = oa.load(model, dim=dim)
    if modality is not None:
        space.tower(modality)
    found = Gallery.gather(folder, space.modalities, modality)
    if not found.items:
        raise oa.OmniAlignError(
            f"'{folder}' holds no file that this model can search; it has: "
            f"{', '.join(space.modalities)}; passed over: {len(found.skipped)}"
        )
    (query,) = asked
    with progress("reading the gallery") as bar:
        of_words = space.words if isinstance(query, str) else None
        hits, searched = space.search(query, found, modality=of_words, progress=bar)
    if not hits:
        first = next(iter(searched.skipped.values()))
        raise oa.OmniAlignError(f"no file of '{folder}' can be read; the first: {first}")
    if json:
        print_json(
            {
                "query": str(query),
                "hits": [
                    {"path": str(h.item), "modality": h.modality, "score": h.score}
                    for h in hits[:k]
                ],
                "num_searched": len(searched.items),
                "skipped": searched.skipped,
            }
        )
        return
    rows = [[f"{h.score:.3f}", h.modality, str(h.item)] for h in hits[:k]]
    table(f"{query} ({len(searched.items)} files)", ["score", "modality", "file"], rows)
    if searched.skipped:
        first = next(iter(searched.skipped.values()))
        note(f"{len(searched.skipped)} files were passed over, the first because: {first}")


def _tell(query: str | None, hits: list[Hit], library: Index) -> None:
    if not hits:
        note("nothing was found: the library has no row that the filters let through")
        return
    rows = [
        [
            *([_thumbnail(library, hit)] if _shows_pictures() else []),
            f"{hit.score:.3f}",
            f"{hit.cosine:.3f}",
            hit.modality,
            _seconds(hit),
            linked(hit.path),
        ]
        for hit in hits
    ]
    columns = ["score", "cosine", "modality", "seconds", "file"]
    if _shows_pictures():
        columns.insert(0, "")
    table(
        f"{query or 'like the file'} ({sum(library.modalities.values())} rows)",
        columns,
        rows,
        markup=True,
    )


def _seconds(hit: Hit) -> str:
    if hit.start_seconds is None or hit.end_seconds is None:
        return ""
    return f"{hit.start_seconds:.1f} to {hit.end_seconds:.1f}"


def _shows_pictures() -> bool:
    """Whether the terminal has a protocol for pictures, and the package for it is installed."""
    if not out.is_terminal:
        return False
    try:
        from textual_image.renderable import HalfcellImage, Image, UnicodeImage
    except ImportError:
        return False
    return Image not in (HalfcellImage, UnicodeImage)


def _thumbnail(library: Index, hit: Hit) -> Any:
    """What the modality shows of a file, where that is a picture."""
    from io import BytesIO

    from PIL import Image as Pillow
    from textual_image.renderable import Image

    from omnialign.errors import ReadError

    try:
        preview = library.preview(hit.id)
        return Image(Pillow.open(BytesIO(preview.data)), width=THUMBNAIL_CELLS)
    except (ReadError, OSError):
        return ""
