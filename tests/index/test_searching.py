"""From the nearest rows of each modality to hits: nothing better is left behind."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omnialign.calibration import FittedScores
from omnialign.index.rows import schema
from omnialign.index.searching import nearest_files
from omnialign.index.store import Neighbours

GALLERY = {
    "sound": [(f"{'long' if n < 60 else f'short{n}'}-{n}", 0.9 - 0.001 * n) for n in range(80)],
    "picture": [(f"picture{n}-0", 0.5 - 0.001 * n) for n in range(80)],
}
"""One long recording has the best sixty rows of its modality."""


class Gallery:
    limit = 10_000

    def nearest(self, queries: Any, k: int, modalities: Sequence[str], where: Any) -> Any:
        assert where is None
        return [
            {name: _neighbours(name, GALLERY[name][:k]) for name in modalities} for _ in queries
        ]


def _neighbours(modality: str, rows: Sequence[tuple[str, float]]) -> Neighbours:
    table = [
        {"id": row_id, "path": row_id, "modality": modality, "metadata": "{}"} for row_id, _ in rows
    ]
    return Neighbours(
        pa.Table.from_pylist(table, schema(1)).drop(["vector"]), np.array([c for _, c in rows])
    )


@pytest.mark.parametrize("k", [1, 5, 10, 21, 100])
def test_a_long_recording_hides_no_file_of_its_modality(k: int) -> None:
    (hits,) = nearest_files(
        Gallery(),  # pyright: ignore
        np.zeros((1, 2), np.float32),
        k,
        ["sound", "picture"],
        80,
        None,
        scores=FittedScores({}),
        query_modalities=[None],
        segments=False,
    )
    sounds = ["long-0", *(f"short{n}-{n}" for n in range(60, 80))]
    pictures = [f"picture{n}-0" for n in range(80)]
    assert [hit.id for hit in hits] == [*sounds, *pictures][:k]
