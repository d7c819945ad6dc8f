"""The graph finds nearly what the scan finds, and says how nearly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omnialign.errors import OmniAlignError
from omnialign.index import approximate
from omnialign.index.approximate import FILE, Approximate
from omnialign.index.scan import Scan


def clustered(seed: int, n: int, dim: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((30, dim))
    vectors = centres[rng.integers(0, 30, n)] + 0.7 * rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    made = Scan.open(tmp_path / "scan", 64)
    made.append(clustered(1, 4000))
    return made


def test_built_saved_and_opened(tmp_path: Path, scan: Scan) -> None:
    told: list[int] = []
    Approximate.build(tmp_path, scan, told.append)
    assert told == [4000]
    opened = Approximate.open(tmp_path, scan)
    queries = clustered(2, 40)
    assert opened.recall(queries, 10) > 0.97
    found = opened.search(queries, 10)
    products = np.einsum("qd,qkd->qk", queries, scan.vectors()[found.places])
    np.testing.assert_allclose(found.cosines, products, atol=1e-6)
    assert (np.diff(found.cosines, axis=1) <= 0).all()


def test_recall_is_measured(tmp_path: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    built = Approximate.build(tmp_path, scan)
    queries = clustered(2, 40)
    monkeypatch.setattr(approximate, "BREADTH", 1)
    monkeypatch.setattr(approximate, "SPARE", 1)
    exact, found = scan.search(queries, 10)[0].places, built.search(queries, 10).places
    shared = [
        len(set(a) & set(b)) / 10 for a, b in zip(exact.tolist(), found.tolist(), strict=True)
    ]
    assert built.recall(queries, 10) == pytest.approx(np.mean(shared))
    assert np.mean(shared) < 1


@pytest.mark.parametrize("scanned", [0, 1_000_000])
def test_filters_hold(
    tmp_path: Path, scan: Scan, monkeypatch: pytest.MonkeyPatch, scanned: int
) -> None:
    monkeypatch.setattr(approximate, "SCANNED", scanned)
    built = Approximate.build(tmp_path, scan)
    queries = clustered(2, 20)
    mask = np.random.default_rng(3).random(4000) < 0.2
    exact, found = scan.search(queries, 10, [mask])[0], built.search(queries, 10, mask)
    assert mask[found.places[found.places >= 0]].all()
    assert (exact.places == found.places).mean() > (0.9 if scanned == 0 else 0.999)


def test_an_empty_filter_finds_nothing(tmp_path: Path, scan: Scan) -> None:
    found = Approximate.build(tmp_path, scan).search(clustered(2, 2), 3, np.zeros(4000, bool))
    assert (found.places == -1).all()


def test_later_rows_are_scanned_and_then_taken_in(tmp_path: Path, scan: Scan) -> None:
    built = Approximate.build(tmp_path, scan)
    scan.append(clustered(4, 500))
    queries = scan.vectors()[4100:4120].copy()
    for graph in (built, Approximate.open(tmp_path, scan)):
        assert (graph.search(queries, 5).places[:, 0] == np.arange(4100, 4120)).all()
    opened = Approximate.open(tmp_path, scan)
    opened.extend()
    assert len(opened) == 4500
    again = Approximate.open(tmp_path, scan)
    assert len(again) == 4500
    assert again.recall(clustered(2, 40), 10) > 0.97


def test_built_again_over_what_was_there(tmp_path: Path, scan: Scan) -> None:
    Approximate.build(tmp_path, scan)
    scan.truncate(0)
    scan.append(clustered(5, 700))
    Approximate.build(tmp_path, scan)
    opened = Approximate.open(tmp_path, scan)
    assert len(opened) == 700
    assert opened.search(scan.vectors()[[3]], 1).places.tolist() == [[3]]


def test_more_neighbours_than_rows(tmp_path: Path) -> None:
    few = Scan.open(tmp_path / "few", 64)
    few.append(clustered(1, 3))
    found = Approximate.build(tmp_path, few).search(clustered(2, 2), 5)
    np.testing.assert_array_equal(found.places, few.search(clustered(2, 2), 5)[0].places)


def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path, scan: Scan) -> None:
    with pytest.raises(OmniAlignError, match="no approximate index was found at"):
        Approximate.open(tmp_path, scan)
    Approximate.build(tmp_path, scan)
    scan.truncate(10)
    with pytest.raises(OmniAlignError, match=r"has 4000 rows of 64 numbers.*10 of 64: build"):
        Approximate.open(tmp_path, scan)
    (tmp_path / FILE).write_bytes(b"damaged" * 1000)
    with pytest.raises(OmniAlignError, match=r"cannot be read \(.*\): build"):
        Approximate.open(tmp_path, scan)
