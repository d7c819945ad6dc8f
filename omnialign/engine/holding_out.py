"""What a run keeps of its test rows, so that scores can be calibrated later.

Axes: n items, P partners, D dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from omnialign.data.rows import Item, PairRows
from omnialign.held_out import HeldOut
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace

MAX_ROWS = 500
"""Of a pair; the vectors of a space of 512 dimensions then take a megabyte a modality."""
MAX_ITEMS = 2
"""Of one modality in a row."""


def kept_rows(rows: PairRows) -> list[int]:
    """Every other row, by its place in the source, and of many `MAX_ROWS` evenly spread.

    The rows between stay unseen, for who measures what calibration gives. Of a stream, those that
    come first.
    """
    is_stream = rows.source.shuffle_window is not None
    among = range(min(len(rows), 2 * MAX_ROWS) if is_stream else len(rows))
    even = [i for i in among if rows.number(i) % 2 == 0]
    number = min(len(even), MAX_ROWS)
    return [even[i * len(even) // number] for i in range(number)]


def hold_out(space: SharedSpace, recipe: Recipe) -> HeldOut | None:
    """Embeds half of the test rows of each pair; None where no pair has any.

    Of several captions of a row two are kept, which say how near words are that mean the same. What
    cannot be read is left out.
    """
    items: dict[str, dict[str, Item]] = {}
    together: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for pair in recipe.pairs:
        if pair.test is None:
            continue
        rows = PairRows(recipe, pair.test, pair.modalities)
        for i in kept_rows(rows):
            xs, ys = (rows.items(i, modality)[:MAX_ITEMS] for modality in pair.modalities)
            together.setdefault(pair.modalities, []).extend(
                (x.identity, y.identity) for x in xs for y in ys
            )
            for modality, found in zip(pair.modalities, (xs, ys), strict=True):
                items.setdefault(modality, {}).update((item.identity, item) for item in found)
    vectors: dict[str, torch.Tensor] = {}
    places: dict[str, dict[str, int]] = {}
    for modality, unique in items.items():
        bad: dict[int, str] = {}
        values = [item.value for item in unique.values()]
        embedded = space.embed_known(values, [modality] * len(values), unreadable=bad)
        good = [i for i in range(len(values)) if i not in bad]
        if good:
            names = list(unique)
            vectors[modality] = embedded[good]
            places[modality] = {names[i]: place for place, i in enumerate(good)}
    partners = {
        (x, y): _partners(named, places[x], places[y])
        for (x, y), named in together.items()
        if x in places and y in places
    }
    if not partners:
        return None
    return HeldOut(vectors, partners, {m: space.tower(m).fingerprint() for m in vectors})


def _partners(
    named: Sequence[tuple[str, str]], xs: dict[str, int], ys: dict[str, int]
) -> torch.Tensor:
    found = sorted({(xs[x], ys[y]) for x, y in named if x in xs and y in ys})
    return torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
