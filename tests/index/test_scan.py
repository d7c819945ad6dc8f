"""The scan finds what brute force in float64 finds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from omnialign.errors import OmniAlignError
from omnialign.index.scan import FILES, Neighbours, Scan

DEVICES = [None, "cpu"]
"""The codes of a CPU, and what runs on an accelerator, here on a CPU."""


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((n, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def filled(folder: Path, vectors: np.ndarray, device: str | None = None) -> Scan:
    scan = Scan.open(folder, vectors.shape[1], device)
    scan.append(vectors)
    return scan


def check(
    found: Neighbours, vectors: np.ndarray, queries: np.ndarray, mask: np.ndarray | None = None
) -> None:
    """Cosines are brute force's, and each belongs to its place, which the mask allows."""
    k = found.cosines.shape[1]
    cosines = queries.astype(np.float64) @ vectors.astype(np.float64).T
    allowed = np.full(len(vectors), True) if mask is None else mask
    count = min(k, int(allowed.sum()))
    wanted = -np.sort(-cosines[:, allowed], axis=1)[:, :k]
    np.testing.assert_allclose(found.cosines[:, :count], wanted, atol=2e-6)
    places = found.places[:, :count]
    assert allowed[places].all()
    np.testing.assert_allclose(np.take_along_axis(cosines, places, 1), wanted, atol=2e-6)
    assert all(len(set(row)) == count for row in places.tolist())
    assert (found.places[:, count:] == -1).all()
    assert np.isneginf(found.cosines[:, count:]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_queries", [1, 3, 40, 300])
@pytest.mark.parametrize(("n", "dim"), [(1, 1), (3, 2), (9, 7), (700, 100), (20_000, 48)])
def test_equals_brute_force(
    tmp_path: Path, n: int, dim: int, num_queries: int, device: str | None
) -> None:
    rng = np.random.default_rng(n)
    vectors, queries = unit(rng, n, dim), unit(rng, num_queries, dim)
    scan = filled(tmp_path, vectors, device)
    for k in (1, 10):
        (found,) = scan.search(queries, k)
        check(found, vectors, queries)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_queries", [1, 5, 40])
def test_one_pass_serves_several_masks(
    tmp_path: Path, num_queries: int, device: str | None
) -> None:
    rng = np.random.default_rng(1)
    vectors, queries = unit(rng, 5000, 64), unit(rng, num_queries, 64)
    kinds = np.sort(rng.integers(0, 3, 5000))  # one kind after the other, as folders are indexed
    few = np.isin(np.arange(5000), [17, 4711])
    scan = filled(tmp_path, vectors, device)
    masks: Sequence[np.ndarray | None]
    for masks in ([kinds == 0, kinds == 1, kinds == 2], [None, few], [few], [kinds < 0, few]):
        results = scan.search(queries, 10, masks)
        assert len(results) == len(masks)
        for found, mask in zip(results, masks, strict=True):
            check(found, vectors, queries, mask)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_queries", [1, 40])
def test_of_equal_vectors_the_first_are_found(
    tmp_path: Path, num_queries: int, device: str | None
) -> None:
    rng = np.random.default_rng(2)
    vectors = np.repeat(unit(rng, 30, 100), 50, axis=0)
    scan = filled(tmp_path, vectors, device)
    (found,) = scan.search(vectors[50 * np.arange(num_queries) % 1500], 7)
    first = 50 * (np.arange(num_queries) % 30)
    np.testing.assert_array_equal(found.places, first[:, None] + np.arange(7))


@pytest.mark.parametrize("device", DEVICES)
def test_neighbours_closer_than_codes_can_tell(tmp_path: Path, device: str | None) -> None:
    rng = np.random.default_rng(3)
    near = unit(rng, 1, 256) + 1e-4 * rng.standard_normal((3000, 256)).astype(np.float32)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    scan = filled(tmp_path, near, device)
    for queries in (near[:1], near[:40]):
        (found,) = scan.search(queries, 10)
        check(found, near, queries)


@pytest.mark.parametrize("num_queries", [1, 40])
def test_coordinates_that_stand_out_cost_no_exactness(tmp_path: Path, num_queries: int) -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng, 3000, 96)
    vectors[:, 5] += 3
    vectors[::2] *= rng.random((1500, 96)) < 0.05
    vectors[7] = 0
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    scan = filled(tmp_path, vectors)
    (found,) = scan.search(vectors[:num_queries], 10)
    check(found, vectors, vectors[:num_queries])


@pytest.mark.parametrize("device", DEVICES)
def test_appended_in_pieces_truncated_and_reopened(tmp_path: Path, device: str | None) -> None:
    rng = np.random.default_rng(5)
    vectors, queries = unit(rng, 1000, 33), unit(rng, 4, 33)
    scan = Scan.open(tmp_path, 33, device)
    check(scan.search(queries, 5)[0], vectors[:0], queries)
    for start, stop in ((0, 1), (1, 400), (400, 400), (400, 900)):
        scan.append(vectors[start:stop])
        check(scan.search(queries, 5)[0], vectors[:stop], queries)
    scan.truncate(300)
    scan.append(vectors[900:])
    kept = np.concatenate([vectors[:300], vectors[900:]])
    check(scan.search(queries, 5)[0], kept, queries)
    again = Scan.open(tmp_path, 33, device)
    assert len(again) == 400
    np.testing.assert_array_equal(again.vectors(), kept)
    check(again.search(queries, 5)[0], kept, queries)


@pytest.mark.parametrize("name", FILES)
def test_what_an_interrupted_append_left_is_dropped(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(6)
    vectors, queries = unit(rng, 500, 20), unit(rng, 2, 20)
    filled(tmp_path, vectors[:400])
    with (tmp_path / name).open("ab") as file:
        file.write(b"\x01" * 1111)
    scan = Scan.open(tmp_path, 20)
    scan.truncate(400)
    scan.append(vectors[400:])
    check(scan.search(queries, 10)[0], vectors, queries)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_short_says_what_to_do(tmp_path: Path, name: str) -> None:
    filled(tmp_path, unit(np.random.default_rng(7), 50, 20))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    scan = Scan.open(tmp_path, 20)
    with pytest.raises(OmniAlignError, match=rf"{name}' was to have 50 rows and has 49: delete"):
        scan.truncate(50)


def test_another_layout_says_what_to_do(tmp_path: Path) -> None:
    Scan.open(tmp_path, 20)
    with pytest.raises(OmniAlignError, match=r"'dim': 20.*wanted.*'dim': 21.*delete the folder"):
        Scan.open(tmp_path, 21)
    (tmp_path / "scan.json").write_text("{")
    with pytest.raises(OmniAlignError, match=r"is not JSON: delete the folder"):
        Scan.open(tmp_path, 20)


@pytest.mark.parametrize("wrong", [2.0, np.nan, np.inf])
def test_vectors_that_are_not_of_unit_length_are_refused(tmp_path: Path, wrong: float) -> None:
    vectors = unit(np.random.default_rng(8), 9, 20)
    vectors[4] *= wrong
    scan = Scan.open(tmp_path, 20)
    with pytest.raises(OmniAlignError, match="row 4 of 9 has length"):
        scan.append(vectors)
    assert len(scan) == 0


def test_codes_lose_little_and_say_how_much() -> None:
    from omnialign.index.codes import code, code_queries, rotation, step

    rng = np.random.default_rng(9)
    for dim in (1, 7, 100, 512, 768):
        turned = rotation(dim)
        np.testing.assert_allclose(turned @ turned.T, np.eye(dim), atol=1e-5)
        vectors, queries = unit(rng, 2000, dim), unit(rng, 20, dim)
        vectors[0] = np.eye(dim)[0]
        codes, errors = code(vectors)
        assert errors.max() < 0.025
        stored = codes.astype(np.float64) * step(dim) @ turned
        np.testing.assert_allclose(np.linalg.norm(vectors - stored, axis=1), errors, atol=1e-5)
        coded = code_queries(queries, float(errors.max()))
        products = codes.astype(np.int64) @ coded.codes.astype(np.int64).T
        off = np.abs(products * coded.units - vectors @ queries.T)
        assert (off <= coded.margins).all()
