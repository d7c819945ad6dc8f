"""Triton's kernels against the whole matrix and the tiles of torch, both in float64.

`test_triton_tiles.py` runs this file in Triton's interpreter, in a process of its own; with a GPU
it can be run as it is: `pytest tests/losses/interpreted_triton.py`.

Axes: N pairs, m hard negatives, D dim.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import triton.language as tl
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.losses import info_nce, sigmoid, triton_tiles
from omnialign.losses.info_nce import _gradients, _log_sums
from omnialign.losses.pairing import Ids, Options, pair_up
from omnialign.losses.processes import Processes
from omnialign.losses.sigmoid import _one_pass

spec = importlib.util.spec_from_file_location(
    "pairing", Path(__file__).with_name("test_pairing.py")
)
assert spec is not None
assert spec.loader is not None
pairing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(pairing)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 1e-2, torch.float16: 2e-3}
"""Of a loss or a gradient, over its largest number."""

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero encountered in log")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many blocks and tiles, whose borders fall everywhere."""
    block = triton_tiles.Block(16, 32, 32, 2, num_warps=4, num_stages=2)
    monkeypatch.setattr(triton_tiles, "BLOCKS", {2: block, 4: block})
    monkeypatch.setattr(triton_tiles, "TILE", (64, 40))


@pytest.fixture(autouse=True)
def products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter would multiply the bits of bfloat16 as if they were integers."""
    from triton.runtime.interpreter import InterpreterBuilder

    multiply = InterpreterBuilder.create_dot

    def in_float32(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.bfloat16:
            a, b = (self.cast_impl(one, tl.float32) for one in (a, b))
        return multiply(self, a, b, *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", in_float32)


def close(found: Tensor, expected: Tensor, tolerance: float, floor: float = 1.0) -> None:
    """Within a share of the largest number, or of `floor` where all are smaller."""
    largest = max(float(expected.abs().max()) if expected.numel() else 0.0, floor)
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * largest)


def results(
    loss: Callable[..., Tensor], vectors: list[Tensor], scalars: list[float], options: Any
) -> list[Tensor]:
    """The loss, and its gradients by vectors and scalars; of those that take part."""
    leaves = [v.detach().clone().requires_grad_() for v in vectors]
    numbers = [torch.tensor(s, dtype=torch.float64, requires_grad=True) for s in scalars]
    x, y, *rest = leaves
    negatives = {"negatives": rest[0]} if rest else {}
    value = loss(x, y, *numbers, **options, **negatives)
    value.backward()
    assert all(leaf.grad is not None for leaf in (*leaves, *numbers))
    return [value.detach(), *(t.grad for t in (*leaves, *numbers) if t.grad is not None)]


def compare(
    loss: Callable[..., Tensor],
    vectors: list[Tensor],
    scalars: list[float],
    options: Any,
    dtype: torch.dtype,
    exact: Callable[..., Tensor] | None = None,
    floor: float = 1.0,
) -> None:
    given = [v.to(DEVICE, dtype) for v in vectors]
    assert triton_tiles.usable(given[0])
    options = {k: v.to(DEVICE) if isinstance(v, Tensor) else v for k, v in options.items()}
    found = results(loss, given, scalars, options)
    expected = results(exact or loss, [v.double() for v in given], scalars, options)
    for ours, wanted in zip(found, expected, strict=True):
        close(ours, wanted, TOLERANCE[dtype], floor)


@pytest.mark.parametrize(
    "case", pairing.CHECKED, ids=lambda c: "-".join(str(v)[:8] for v in c.values())
)
def test_every_option(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_tiles, "TILE", (4, 6))
    x, y, negatives = (v.detach() for v in pairing.operands(1.0)[:3])
    options = pairing.keywords(case, negatives)
    if options["weights"] is not None:
        options["weights"] = options["weights"].float()
    vectors = [x, y] if options.pop("negatives") is None else [x, y, negatives]

    def whole(formula: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def of(*given: Tensor, negatives: Tensor | None = None, **rest: Any) -> Tensor:
            if rest["weights"] is not None:
                rest["weights"] = rest["weights"].double()
            return formula(*given, negatives=negatives, **rest)

        return of

    exact = {name: whole(getattr(pairing, f"whole_{name}")) for name in ("info_nce", "sigmoid")}
    compare(info_nce, vectors, [20.0], options, torch.float32, exact["info_nce"])
    compare(sigmoid, vectors, [20.0, -3.0], options, torch.float32, exact["sigmoid"])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "m", "dim"), [(1, 0, 16), (2, 1, 80), (16, 0, 16), (33, 7, 30), (70, 41, 17)]
)
def test_every_shape(n: int, m: int, dim: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(n)
    x, y, hard = (normalize(torch.randn(k, dim, generator=generator), dim=1) for k in (n, n, m))
    vectors = [x, y, hard] if m else [x, y]
    options = {"x_ids": torch.arange(n) // 2 * 2, "label_smoothing": 0.1}
    for given in ({}, options):
        compare(info_nce, vectors, [20.0], given, dtype)
        compare(sigmoid, vectors, [10.0, -10.0], given, dtype)


@pytest.mark.parametrize("scale", [1.0, 50.0, 1000.0])
def test_entries_of_any_size_keep_their_digits(scale: float) -> None:
    """At a scale of 1,000 one exponential cannot serve rows and columns."""
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(40, 16, generator=generator), dim=1)
    y = normalize(x + 0.3 * torch.randn(40, 16, generator=generator), dim=1)
    y[3] = -y[3]
    for dtype in (torch.float32, torch.bfloat16):
        factor = 1 + scale / 50  # rounding of a similarity of float32 counts for more
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(TOLERANCE, dtype, TOLERANCE[dtype] * factor)
            compare(info_nce, [x, y], [scale], {}, dtype)
            compare(sigmoid, [x, y], [scale, -5.0], {}, dtype)


def test_many_pairs_in_float16_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivative is of the size of 1 / N², below what float16 holds."""
    generator = torch.Generator().manual_seed(0)
    x, y = (normalize(torch.randn(4096, 16, generator=generator), dim=1) for _ in range(2))
    block = triton_tiles.Block(512, 512, 16, 2, num_warps=4, num_stages=2)
    monkeypatch.setattr(triton_tiles, "BLOCKS", {2: block})
    monkeypatch.setattr(triton_tiles, "TILE", (4096, 4096))
    given = [v.to(DEVICE, torch.float16) for v in (x, y)]
    found = results(info_nce, given, [2.0], {})
    expected = results(info_nce, [v.double() for v in given], [2.0], {})
    for ours, wanted in zip(found[1:3], expected[1:3], strict=True):
        assert (ours - wanted).norm() < 1e-3 * wanted.norm()


def test_it_repeats_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (normalize(torch.randn(70, 32, generator=generator), dim=1) for _ in range(2))
    vectors = [x.to(DEVICE), y.to(DEVICE)]
    for loss, scalars in ((info_nce, [10.0]), (sigmoid, [10.0, -5.0])):
        first, second = (results(loss, vectors, scalars, {}) for _ in range(2))
        assert all(a.equal(b) for a, b in zip(first, second, strict=True))


class Part(Processes):
    """The last of several processes, with none to talk to."""

    size = 2

    def own(self, counts: list[int]) -> slice:
        return slice(sum(counts[:-1]), sum(counts))


@pytest.mark.parametrize("start", [0, 20, 49, 50])
@pytest.mark.parametrize("duplicates", ["mask", "positive"])
def test_rows_of_one_process_against_columns_of_all(start: int, duplicates: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, hard = (
        normalize(torch.randn(k, 16, generator=generator), dim=1).to(DEVICE) for k in (50, 50, 9)
    )
    ids = (torch.arange(50) // 3).to(DEVICE)
    weights = torch.rand(50, generator=generator).to(DEVICE)
    options = Options(ids, None, duplicates, hard, None, weights, 0.1, None)

    def part(dtype: torch.dtype) -> tuple[Tensor, Tensor, Any]:
        given = replace(options, negatives=hard.to(dtype), weights=weights.to(dtype))
        whole = pair_up(x.to(dtype), y.to(dtype), given, normalised=True)
        mine = replace(
            whole,
            processes=Part(None),
            counts=[start, 50 - start],
            ids=[Ids(one.rows[start:], one.columns) for one in whole.ids],
            own_target=whole.own_target[start:],
        )
        return x[start:].to(dtype), torch.cat([y, hard]).to(dtype), mine

    (a, keys, ours), (b, exact_keys, exact) = part(torch.float32), part(torch.float64)
    found = triton_tiles.log_sums(a, keys, 9.0, ours)
    expected = _log_sums(b, exact_keys, 9.0, exact)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, check_dtype=False, rtol=1e-5, atol=1e-6)
    logs = expected[0], exact.weights.new_zeros(50)
    found = triton_tiles.info_nce_gradients(
        a, keys, 9.0, ours, *(v.float() for v in logs), True, True
    )
    expected = _gradients(b, exact_keys, 9.0, exact, *logs, True, True)
    for one, other in zip(found, expected, strict=True):
        close(one, other, 1e-5)
    found = triton_tiles.sigmoid_one_pass(a, keys, 9.0, -4.0, ours, True, True)
    for one, other in zip(
        found, _one_pass(b, exact_keys, 9.0, -4.0, exact, True, True), strict=True
    ):
        close(one, other, 1e-5)


def test_only_what_is_wanted_is_computed() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (normalize(torch.randn(20, 16, generator=generator), dim=1) for _ in range(2))
    x, y = x.to(DEVICE).requires_grad_(), y.to(DEVICE)
    for loss in (info_nce(x, y, 9.0), sigmoid(x, y, 9.0, -4.0)):
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.abs().sum() > 0
    with torch.no_grad():
        assert info_nce(x, y, 9.0).isfinite()
        assert sigmoid(x, y, 9.0, -4.0).isfinite()
