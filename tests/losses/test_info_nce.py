"""InfoNCE against its plain formula.

Axes: N pairs, D dim.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from omnialign.losses import info_nce


def unit(n: int, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, dim, generator=generator, dtype=dtype), dim=-1)


def naive(x: Tensor, y: Tensor, scale: float, excluded: Tensor | None = None) -> float:
    """The definition, pair by pair, in Python's own numbers."""
    total = 0.0
    for a, b in ((x, y), (y, x)):
        for i in range(len(a)):
            terms = [
                math.exp(scale * float(a[i] @ b[j]))
                for j in range(len(b))
                if excluded is None or i == j or not excluded[i, j]
            ]
            total -= math.log(math.exp(scale * float(a[i] @ b[i])) / sum(terms))
    return total / (2 * len(x))


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("scale", [1.0, 14.3])
def test_it_is_the_formula(n: int, scale: float) -> None:
    x, y = unit(n, seed=1), unit(n, seed=2)
    assert info_nce(x, y, scale).item() == pytest.approx(naive(x, y, scale), rel=1e-12)
    logits = scale * x @ y.T
    target = torch.arange(n)
    both = (cross_entropy(logits, target) + cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(info_nce(x, y, scale), both, rtol=1e-12, atol=1e-12)


def test_it_is_symmetric() -> None:
    x, y = unit(5, seed=1), unit(5, seed=2)
    torch.testing.assert_close(info_nce(x, y, 7.0), info_nce(y, x, 7.0), rtol=1e-14, atol=0)


def test_order_does_not_matter() -> None:
    x, y, order = unit(5, seed=1), unit(5, seed=2), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(info_nce(x, y, 7.0), info_nce(x[order], y[order], 7.0))


def test_one_pair_costs_nothing_and_equal_pairs_cost_the_log_of_their_number() -> None:
    x = unit(1)
    assert info_nce(x, x, 10.0).item() == pytest.approx(0)
    same = x.expand(8, -1)
    assert info_nce(same, same, 10.0).item() == pytest.approx(math.log(8))


def test_gradients() -> None:
    x, y = unit(4, seed=1).requires_grad_(), unit(4, seed=2).requires_grad_()
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([1, 2, 1, 3])
    assert torch.autograd.gradcheck(info_nce, (x, y, scale))
    assert torch.autograd.gradcheck(lambda *a: info_nce(*a, x_ids=ids), (x, y, scale))


def test_duplicates_are_never_negatives() -> None:
    x, y = unit(5, seed=1), unit(5, seed=2)
    x_ids, y_ids = torch.tensor([1, 2, 1, 3, 4]), torch.tensor([5, 6, 7, 8, 6])
    equal = (x_ids[:, None] == x_ids) | (y_ids[:, None] == y_ids)
    value = info_nce(x, y, 9.0, x_ids=x_ids, y_ids=y_ids)
    assert value.item() == pytest.approx(naive(x, y, 9.0, equal), rel=1e-12)
    one_side = info_nce(x, y, 9.0, y_ids=y_ids)
    assert one_side.item() == pytest.approx(naive(x, y, 9.0, y_ids[:, None] == y_ids), rel=1e-12)


def test_a_batch_of_one_item_costs_nothing() -> None:
    x, y = unit(4, seed=1).requires_grad_(), unit(4, seed=2)
    loss = info_nce(x, y, 9.0, x_ids=torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-12


def test_ids_that_all_differ_change_nothing() -> None:
    x, y, ids = unit(5, seed=1), unit(5, seed=2), torch.arange(5)
    assert info_nce(x, y, 9.0, x_ids=ids, y_ids=ids).equal(info_nce(x, y, 9.0))


@pytest.mark.parametrize(
    ("dtype", "rel"), [(torch.bfloat16, 2e-3), (torch.float16, 2e-4), (torch.float32, 1e-6)]
)
def test_it_sums_in_float32_at_least(dtype: torch.dtype, rel: float) -> None:
    """On a CPU a single similarity of 16-bit vectors has 16 bits."""
    x, y = unit(6, seed=1, dtype=dtype), unit(6, seed=2, dtype=dtype)
    loss = info_nce(x, y, 50.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive(x.double(), y.double(), 50.0), rel=rel)


def test_many_pairs_in_float16_lose_nothing() -> None:
    """A derivative is of the size of 1 / N², below what float16 holds."""
    x, y = unit(4096, seed=1, dtype=torch.float16), unit(4096, seed=2, dtype=torch.float16)
    info_nce(x.requires_grad_(), y, 2.0).backward()
    exact = x.detach().double().requires_grad_()
    info_nce(exact, y.double(), 2.0).backward()
    assert x.grad is not None
    assert exact.grad is not None
    assert (x.grad - exact.grad).norm() < 1e-3 * exact.grad.norm()


def test_autocast_does_not_make_it_coarse() -> None:
    x, y = unit(6, seed=1, dtype=torch.float32), unit(6, seed=2, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert info_nce(x, y, 50.0).equal(info_nce(x, y, 50.0))
        value = info_nce(x, y, 50.0)
    assert value.equal(info_nce(x, y, 50.0))


def test_a_large_scale_does_not_overflow() -> None:
    x = unit(6, dtype=torch.float32)
    assert info_nce(x, -x, 1000.0).isfinite()


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((3, 4), (2, 4), r"one shape \(n, D\); got \(3, 4\) and \(2, 4\)"),
        ((3, 4), (3, 5), r"got \(3, 4\) and \(3, 5\)"),
        ((4,), (4,), r"got \(4,\) and \(4,\)"),
        ((0, 4), (0, 4), "at least one pair"),
    ],
)
def test_bad_shapes(x: tuple[int, ...], y: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        info_nce(torch.zeros(x), torch.zeros(y), 1.0)
