"""Both losses against the whole similarity matrix, for every option and every combination of them.

Axes: N pairs, m hard negatives, D dim.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from omnialign.losses import info_nce, sigmoid, tiles

N, M, D = 9, 5, 6
X_IDS = torch.tensor([1, 2, 1, 3, 4, 5, 6, 6, 7])
Y_IDS = torch.tensor([1, 2, 3, 3, 4, 5, 1, 8, 9])
OPTIONS: dict[str, list[Any]] = {
    "duplicates": ["mask", "positive"],
    "ids": ["none", "x", "both"],
    "negatives": [None, "unknown", "known"],
    "weights": [None, torch.linspace(0, 2, N, dtype=torch.float64)],
    "label_smoothing": [0.0, 0.1],
}
CASES = [dict(zip(OPTIONS, values, strict=True)) for values in itertools.product(*OPTIONS.values())]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles, whose borders fall everywhere."""
    monkeypatch.setattr(tiles, "ROWS", 4)
    monkeypatch.setattr(tiles, "COLUMNS", 3)


def operands(scale: float, bias: float | None = None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (N, N, M)]
    scalars = [torch.tensor(v, dtype=torch.float64) for v in (scale, bias) if v is not None]
    return [t.requires_grad_() for t in (*(normalize(v, dim=-1) for v in vectors), *scalars)]


def keywords(case: dict[str, Any], negatives: Tensor) -> dict[str, Any]:
    found = {k: case[k] for k in ("duplicates", "weights", "label_smoothing")}
    found["x_ids"] = None if case["ids"] == "none" else X_IDS
    found["y_ids"] = Y_IDS if case["ids"] == "both" else None
    found["negatives"] = None if case["negatives"] is None else negatives
    known = case["negatives"] == "known" and case["ids"] == "both"
    found["negative_ids"] = torch.tensor([3, 11, 12, 3, 4]) if known else None
    return found


def relations(options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor | None]:
    """Allowed entries `(N, N)`, partners `(N, N)`, allowed hard negatives `(N, m)`."""
    own = torch.eye(N, dtype=torch.bool)
    same = torch.zeros_like(own)
    for ids in (options["x_ids"], options["y_ids"]):
        if ids is not None:
            same |= ids[:, None] == ids
    masks = options["duplicates"] == "mask"
    hard = None
    if options["negatives"] is not None:
        hard = torch.ones(N, M, dtype=torch.bool)
        if options["negative_ids"] is not None:
            hard = options["y_ids"][:, None] != options["negative_ids"]
    return (own | ~same) if masks else torch.ones_like(own), own if masks else own | same, hard


def shares(options: dict[str, Any]) -> Tensor:
    weights = options["weights"]
    found = torch.ones(N, dtype=torch.float64) if weights is None else weights
    return found / found.sum()


def whole_info_nce(x: Tensor, y: Tensor, scale: Tensor, **options: Any) -> Tensor:
    allowed, partner, hard = relations(options)
    smoothing = options["label_smoothing"]

    def one_way(logits: Tensor, extra: Tensor | None) -> Tensor:
        columns, may, targets = logits, allowed, partner.double()
        if extra is not None:
            assert hard is not None
            columns, may = torch.cat([logits, extra], 1), torch.cat([allowed, hard], 1)
            targets = torch.cat([targets, torch.zeros_like(extra)], 1)
        targets = (1 - smoothing) * targets / targets.sum(1, keepdim=True)
        targets = targets + smoothing * may.double() / may.sum(1, keepdim=True)
        chances = columns.masked_fill(~may, -torch.inf).log_softmax(1)
        costs = torch.where(may, targets * chances, 0.0).sum(1)
        return -(shares(options) * costs).sum()

    logits = scale * x @ y.T
    extra = None if hard is None else scale * x @ options["negatives"].T
    return (one_way(logits, extra) + one_way(logits.T, None)) / 2


def whole_sigmoid(x: Tensor, y: Tensor, scale: Tensor, bias: Tensor, **options: Any) -> Tensor:
    allowed, partner, hard = relations(options)
    smoothing, share = options["label_smoothing"], shares(options)
    weights = (share[:, None] + share) / 2
    columns = allowed.sum(1).double()
    rows = columns if hard is None else columns + hard.sum(1)
    spread = smoothing / 2 * ((share / rows)[:, None] + share / columns) * allowed
    labels = (1 - smoothing) * weights * partner + spread
    logits = scale * x @ y.T + bias
    loss = (-weights * logsigmoid(-logits) * allowed - labels * logits).sum()
    if hard is not None:
        logits = scale * x @ options["negatives"].T + bias
        due = smoothing / 2 * (share / rows)[:, None]
        loss = loss + ((-share[:, None] * logsigmoid(-logits) - due * logits) * hard).sum()
    return loss


def assert_equal(
    ours: Callable[..., Tensor],
    whole: Callable[..., Tensor],
    case: dict[str, Any],
    given: tuple[float, ...],
) -> None:
    sides: list[tuple[Tensor, list[Tensor]]] = []
    for function in (ours, whole):
        x, y, negatives, *scalars = operands(*given)
        loss = function(x, y, *scalars, **keywords(case, negatives))
        loss.backward()
        used = [x, y, *scalars, *([negatives] if case["negatives"] else [])]
        sides.append((loss.detach(), [t.grad for t in used if t.grad is not None]))
    (loss, gradients), (wanted, expected) = sides
    torch.testing.assert_close(loss, wanted, rtol=1e-11, atol=1e-11)
    assert len(gradients) == len(expected)
    torch.testing.assert_close(gradients, expected, rtol=1e-10, atol=1e-10)


CHECKED = [case for case in CASES if case["negatives"] != "known" or case["ids"] == "both"]


@pytest.mark.parametrize("scale", [5.0, 200.0])
@pytest.mark.parametrize("case", CHECKED, ids=lambda c: "-".join(str(v)[:8] for v in c.values()))
def test_info_nce_is_the_whole_matrix(case: dict[str, Any], scale: float) -> None:
    assert_equal(info_nce, whole_info_nce, case, (scale,))


@pytest.mark.parametrize("scale", [5.0, 50.0])
@pytest.mark.parametrize("case", CHECKED, ids=lambda c: "-".join(str(v)[:8] for v in c.values()))
def test_sigmoid_is_the_whole_matrix(case: dict[str, Any], scale: float) -> None:
    assert_equal(sigmoid, whole_sigmoid, case, (scale, -3.0))


@pytest.mark.parametrize("case", CHECKED[:: len(CHECKED) // 6])
def test_gradcheck(case: dict[str, Any]) -> None:
    x, y, negatives, scale, bias = operands(4.0, -2.0)

    def of_info_nce(x: Tensor, y: Tensor, negatives: Tensor, scale: Tensor) -> Tensor:
        return info_nce(x, y, scale, **keywords(case, negatives))

    def of_sigmoid(x: Tensor, y: Tensor, n: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return sigmoid(x, y, scale, bias, **keywords(case, n))

    assert torch.autograd.gradcheck(of_info_nce, (x, y, negatives, scale))
    assert torch.autograd.gradcheck(of_sigmoid, (x, y, negatives, scale, bias))


@pytest.mark.parametrize("wanted", ["x", "y", "scale", "xy"])
def test_only_what_is_trained_gets_a_gradient(wanted: str) -> None:
    """A frozen side costs no product and changes nothing of the other's gradient."""
    x, y, _, scale, bias = operands(6.0, -2.0)
    for loss in (info_nce(x, y, scale), sigmoid(x, y, scale, bias)):
        kept = {"x": x, "y": y, "scale": scale}
        full = torch.autograd.grad(loss, list(kept.values()))
        expected = dict(zip(kept, full, strict=True))
        some = {k: v.detach().requires_grad_(k in wanted or k == wanted) for k, v in kept.items()}
        again = (
            info_nce(some["x"], some["y"], some["scale"])
            if loss.grad_fn is not None and "InfoNCE" in type(loss.grad_fn).__name__
            else sigmoid(some["x"], some["y"], some["scale"], bias.detach())
        )
        again.backward()
        for name, tensor in some.items():
            if tensor.requires_grad:
                torch.testing.assert_close(tensor.grad, expected[name], rtol=1e-12, atol=1e-12)
            else:
                assert tensor.grad is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"negatives": torch.zeros(2, D + 1, dtype=torch.float64)}, r"wants negatives \(m, 6\)"),
        ({"negatives": torch.zeros(2, D)}, "of torch.float32"),
        ({"weights": torch.ones(N + 1)}, "wants 9 finite weights"),
        ({"weights": torch.full((N,), torch.nan)}, "finite weights"),
        ({"duplicates": "drop"}, "wants 'mask' or 'positive'"),
        ({"x_ids": torch.zeros(N)}, "9 integers; got .* of torch.float32"),
        ({"x_ids": torch.zeros(N, dtype=torch.bool)}, "9 integers; got .* of torch.bool"),
        ({"weights": -torch.ones(N)}, "at least 0"),
        ({"label_smoothing": 1.5}, "label_smoothing is 1.5"),
        ({"x_ids": torch.zeros(3, dtype=torch.int64)}, "wants x_ids as 9 integers"),
        ({"negative_ids": torch.zeros(3, dtype=torch.int64)}, "want y_ids beside them"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    x, y, _, scale, bias = operands(4.0, -2.0)
    with pytest.raises(ValueError, match=message):
        info_nce(x, y, scale, **change)
    with pytest.raises(ValueError, match=message):
        sigmoid(x, y, scale, bias, **change)
    with pytest.raises(ValueError, match="one floating dtype"):
        info_nce(x, y.float(), scale)


@pytest.mark.parametrize("size", [3e38, 1e-39, 1e-45])
def test_weights_of_any_size_are_shares(size: float) -> None:
    x, y, *_ = (v.float() for v in operands(4.0, -2.0))
    assert info_nce(x, y, 4.0, weights=torch.full((N,), size)) == info_nce(x, y, 4.0)
    with pytest.raises(ValueError, match="finite weights"):
        info_nce(x, y, 4.0, weights=torch.full((N,), 1e39, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_ids_of_any_integers_are_equal_alike(dtype: torch.dtype) -> None:
    x, y, negatives, scale, _ = operands(4.0, -2.0)
    ids = torch.arange(N) * 14
    ids[0] = 255 if dtype == torch.uint8 else 0
    found = [info_nce(x, y, scale, y_ids=i, negatives=negatives) for i in (ids, ids.to(dtype))]
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_16_bits_a_softmax_costs_at_least_nothing(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(256, 64), dim=-1)
    y = torch.nn.functional.normalize(x + 0.05 * torch.randn(256, 64), dim=-1)
    assert -1e-5 < info_nce(x.to(dtype), y.to(dtype), 100.0) < 1e-2


def test_what_weighs_nothing_teaches_nothing() -> None:
    x, y, negatives, scale, bias = operands(4.0, -2.0)
    options = {"negatives": negatives, "weights": torch.zeros(N), "label_smoothing": 0.1}
    for loss in (info_nce(x, y, scale, **options), sigmoid(x, y, scale, bias, **options)):
        assert loss.item() == 0
        given = torch.autograd.grad(loss, [x, y, negatives, scale])
        assert all(not gradient.any() for gradient in given)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (-10.0, "positive, finite logit_scale; got -10"),
        (float("inf"), "logit_scale; got inf"),
        (torch.ones(2), r"one number; got \(2,\)"),
    ],
)
def test_a_scale_is_one_positive_number(scale: Any, message: str) -> None:
    x, y, _, _, bias = operands(4.0, -2.0)
    for loss in (lambda: info_nce(x, y, scale), lambda: sigmoid(x, y, scale, bias)):
        with pytest.raises(ValueError, match=message):
            loss()


def test_a_scale_of_one_element_is_a_scalar() -> None:
    x, y, *_ = operands(4.0)
    scale = torch.full((1,), 4.0, dtype=torch.float64, requires_grad=True)
    info_nce(x, y, scale).backward()
    assert scale.grad is not None
    assert scale.grad.shape == (1,)
