"""`push` and `card`: a model and its card for the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnialign.cli.output import Json, note, out, print_json

Run = Annotated[Path, typer.Argument(help="A finished run folder, or a saved model.")]


def push(
    run: Run,
    name: Annotated[str, typer.Argument(help="On the hub: USER/NAME.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new model private.")] = False,
    json: Json = False,
) -> None:
    """Push a model and its card to the Hugging Face hub.

    The card is RUN/README.md, or else what `omnialign card` writes.

    Example: `omnialign push runs/image-text ada/image-text`
    """
    import omnialign as oa

    space = oa.load(run, "cpu")
    pushed = space.push_to_hub(name, private=private, run=_known(run, "README.md", "recipe.toml"))
    if json:
        print_json({"model": pushed})
    else:
        note(f'Pushed. Next: omnialign.load("{pushed}")')


def card(
    run: Run,
    name: Annotated[
        str | None, typer.Option(help="USER/NAME on the hub, for the lines on how to load it.")
    ] = None,
) -> None:
    """Print the card of a model: data, recipe, results, limits, licences.

    To change it before it is pushed: `omnialign card RUN > RUN/README.md`.

    Example: `omnialign card runs/image-text --name ada/image-text`
    """
    import omnialign as oa
    from omnialign.model_card import model_card

    source = f"hub:{name}" if name else str(run)
    out.file.write(model_card(oa.load(run, "cpu"), source, _known(run, "recipe.toml")))


def _known(folder: Path, *files: str) -> Path | None:
    """The folder, where it holds one of the files that say more than the model does."""
    return folder if any((folder / file).is_file() for file in files) else None
