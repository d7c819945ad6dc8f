"""`pack`: files and their manifest into shards."""

from __future__ import annotations

from enum import StrEnum
from json import dumps
from pathlib import Path
from typing import Annotated

import typer

from omnialign.cli.output import Json, note, print_json, progress


class ShardFormat(StrEnum):
    tar = "tar"
    parquet = "parquet"


def pack(
    manifest: Annotated[
        str, typer.Argument(help="A manifest file, or a folder with one.", show_default=False)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="A folder that does not exist.")],
    format: Annotated[
        ShardFormat, typer.Option("--format", help="WebDataset's tar, or Parquet with bytes.")
    ] = ShardFormat.tar,
    shard_mib: Annotated[int, typer.Option(min=1, help="Files in a shard, at most.")] = 256,
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out rows whose files are missing.")
    ] = False,
    json: Json = False,
) -> None:
    """Pack the rows of a manifest and the files that they name into shards.

    Example: `omnialign pack photos/metadata.jsonl --output shards`
    """
    from omnialign.data.manifest import Manifest
    from omnialign.data.packing import pack as run

    with progress("packing") as bar:
        packed = run(
            Manifest(manifest),
            output,
            format=format.value,
            shard_mib=shard_mib,
            skip_unreadable=skip_unreadable,
            progress=bar,
        )
    if json:
        print_json({**vars(packed), "shards": [str(shard) for shard in packed.shards]})
        return
    for name, reason in packed.left_out.items():
        note(f"left out: {name}: {reason}")
    source = {"tar": "webdataset", "parquet": "manifest"}[format.value]
    note(
        f"{packed.num_rows} rows with {packed.num_bytes / 2**20:.1f} MiB of files are in "
        f"{len(packed.shards)} shards. In a recipe: "
        f'source = {{ name = "{source}", path = {dumps(str(output.resolve()))} }}'
    )
