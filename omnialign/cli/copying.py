"""`copy`: a library to another place."""

from __future__ import annotations

from typing import Annotated

import typer

from omnialign.cli.output import Json, note, print_json, progress


def copy(
    library: Annotated[str, typer.Argument(help="Where the library lies.", show_default=False)],
    to: Annotated[
        str,
        typer.Argument(
            help="Where the copy will lie: a folder, s3://…, or milvus://HOST:PORT/NAME.",
            show_default=False,
        ),
    ],
    json: Json = False,
) -> None:
    """Copy a library to a folder, an object storage or Milvus, and compare every row.

    The model and the files stay where they are, and so does the library.

    Example: `omnialign copy library milvus://localhost:19530/library`
    """
    from omnialign.index import Index

    index = Index.open(library)
    with progress("copying") as bar:
        copied = index.copy_to(to, progress=bar)
    if json:
        print_json(vars(copied))
        return
    note(
        f"{copied.rows} rows and {copied.documents} documents are in {copied.target}. Read back "
        "and compared with the library: ids, columns and metadata are the same, vectors bit by bit."
    )
