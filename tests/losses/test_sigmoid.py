"""The pairwise sigmoid loss against its definition.

Axes: N pairs, D dim.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.losses import sigmoid


def unit(n: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(n, 6, generator=generator, dtype=dtype), dim=-1)


def naive(x: Tensor, y: Tensor, scale: float, bias: float) -> float:
    """The paper's sum, entry by entry, in Python's own numbers."""
    total = 0.0
    for i in range(len(x)):
        for j in range(len(y)):
            label = 1 if i == j else -1
            total += math.log(1 / (1 + math.exp(-label * (scale * float(x[i] @ y[j]) + bias))))
    return -total / len(x)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (3.0, 0.0), (20.0, 5.0)])
def test_it_is_the_formula(n: int, scale: float, bias: float) -> None:
    x, y = unit(n, 1), unit(n, 2)
    assert sigmoid(x, y, scale, bias).item() == pytest.approx(naive(x, y, scale, bias), rel=1e-10)


def test_float32_keeps_its_digits_for_likely_and_unlikely_entries() -> None:
    x = unit(6, 1)
    exact = naive(x, x, 30.0, -4.0)
    assert sigmoid(x.float(), x.float(), 30.0, -4.0).item() == pytest.approx(exact, rel=1e-5)


def test_nothing_overflows() -> None:
    x = unit(6, 1, torch.float32).requires_grad_()
    loss = sigmoid(x, -x.detach(), 1000.0, 500.0)
    loss.backward()
    assert loss.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_a_second_backward_gives_the_same() -> None:
    x, y = unit(5, 1).requires_grad_(), unit(5, 2)
    loss = sigmoid(x, y, 8.0, -2.0)
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_summed_in_float32(dtype: torch.dtype) -> None:
    x, y = unit(6, 1, dtype), unit(6, 2, dtype)
    exact = naive(x.double(), y.double(), 10.0, -10.0)
    loss = sigmoid(x.requires_grad_(), y, 10.0, -10.0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=2e-3)
    assert x.grad is not None
    assert x.grad.dtype == dtype
