"""`cache`: where the disk space went, and how to have it back."""

from __future__ import annotations

from typing import Annotated

import typer

from omnialign.cli.output import Json, note, print_json, table


def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Delete them all.")] = False,
    json: Json = False,
) -> None:
    """List the features of frozen towers that are kept on disk, or delete them.

    They are in the folder that OMNIALIGN_CACHE names, by default ~/.cache/omnialign. Nothing is
    lost by deleting them: the next run computes its own again.

    Example: `omnialign cache --clear`
    """
    from omnialign.data.features import cache_folder, clear_features, kept_features

    kept = [] if clear else kept_features()
    cleared = clear_features() if clear else 0
    if json:
        print_json(
            {
                "folder": str(cache_folder()),
                "cleared_bytes": cleared,
                "kept": [{**vars(entry), "folder": str(entry.folder)} for entry in kept],
            }
        )
    elif clear:
        note(f"{_mib(cleared)} deleted in {cache_folder()}")
    elif kept:
        rows = [[k.modality, k.encoder, _mib(k.num_bytes), k.folder.name] for k in kept]
        table(f"Features in {cache_folder()}", ["modality", "encoder", "size", "folder"], rows)
    else:
        note(f"no features in {cache_folder()}")


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB"
