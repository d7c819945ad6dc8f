"""`classify` and `embed`: questions to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omnialign.cli.output import Dim, Json, Model, note, percent, print_json, progress, table


def classify(
    item: Annotated[str, typer.Argument(help="A file, or words.")],
    labels: Annotated[list[str], typer.Argument(help="Two or more descriptions.")],
    model: Model,
    modality: Annotated[str | None, typer.Option(help="Of the item.")] = None,
    independent: Annotated[
        bool, typer.Option("--independent", help="Each label yes or no by itself.")
    ] = False,
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Classify a file by descriptions, with no training on them.

    Example: `omnialign classify phone.jpg "an intact screen" "a cracked screen" --model RUN`
    """
    import omnialign as oa

    space = oa.load(model, dim=dim)
    chances = space.classify(item, labels, modality=modality, independent=independent)
    if json:
        print_json({"item": item, "labels": chances})
    else:
        table(item, ["label", "probability"], [[n, percent(p)] for n, p in chances.items()])


def embed(
    items: Annotated[list[str], typer.Argument(help="Files, or words.")],
    model: Model,
    modality: Annotated[str | None, typer.Option(help="Of all items.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a float32 .npy (n, dim) here.")
    ] = None,
    dim: Dim = None,
    json: Json = False,
) -> None:
    """Turn files or words into vectors.

    Example: `omnialign embed dog.wav rain.wav --model runs/any-to-text --output vectors.npy`
    """
    import numpy as np

    import omnialign as oa

    if output is None and not json:
        raise oa.OmniAlignError("embed wants --output FILE.npy, or --json")
    with progress("embedding") as bar:
        vectors = oa.load(model, dim=dim).embed(items, modality, progress=bar).numpy()
    if output is not None:
        try:
            with output.open("wb") as file:
                np.save(file, vectors)
        except OSError as error:
            raise oa.OmniAlignError(f"cannot write {output}: {error}") from None
    if json:
        entries = zip(items, vectors.tolist(), strict=True)
        print_json({"items": [{"item": i, "embedding": v} for i, v in entries]})
    else:
        note(f"{output}: {vectors.shape[0]} vectors of {vectors.shape[1]} dimensions")
