"""Length buckets: what is processed, and that nothing else changes.

Axes: n rows, L places, w width, D dim.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnialign.data.buckets import Padding, cheapest_cut, length_buckets, mask_of
from omnialign.encoder import pad_and_stack
from omnialign.registry import registry
from omnialign.testing import toy
from omnialign.tower import Tower

DATA = Path(__file__).parents[2].parent / "shared/data"
MOST = 1.25


def padded(lengths: list[int], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return pad_and_stack([torch.randint(1, 500, (n,), generator=generator) for n in lengths])


def tower(encoder: Any, modality: Any) -> Tower:
    return Tower(
        modality, encoder, name="x", options={}, dim=8, projection="linear", long_input="truncate"
    )


def ratio(batches: list[Any], device: str = "cpu") -> float:
    padding = Padding()
    for batch in batches:
        length_buckets(batch, device, padding)
    return padding.ratio


def heavy_tailed(size: int, seed: int) -> list[int]:
    drawn = np.random.default_rng(seed).pareto(1.2, size)
    return np.clip(drawn * 8 + 4, 1, 512).astype(int).tolist()


def cost(parts: list[Any]) -> int:
    return sum(10 + len(part) * part[0] for part in parts)


class TestParts:
    def test_every_row_once_whole_and_in_place(self) -> None:
        lengths = [3, 90, 4, 2, 88, 5, 30, 1]
        batch = padded(lengths) | {"numbers": torch.arange(8)}
        padding = Padding()
        parts = length_buckets(batch, "cpu", padding)
        assert 1 < len(parts) < 8
        assert sorted(torch.cat([rows for rows, _ in parts]).tolist()) == list(range(8))
        for rows, part in parts:
            assert part["numbers"].tolist() == rows.tolist()
            longest = max(lengths[row] for row in rows)
            assert longest <= part["mask"].shape[1] <= min(90, 1.25 * longest)
            for row, values, mask in zip(rows.tolist(), part["values"], part["mask"], strict=True):
                assert torch.equal(values[mask], batch["values"][row][batch["mask"][row]])
        assert padding.real == sum(lengths)
        assert padding.processed == sum(part["mask"].numel() for _, part in parts)

    def test_rows_of_one_length_are_one_part_in_order(self) -> None:
        batch = padded([7] * 40)
        ((rows, part),) = length_buckets(batch, "cpu", padding := Padding())
        assert rows.tolist() == list(range(40))
        assert torch.equal(part["values"], batch["values"])
        assert padding.ratio == 1

    def test_padding_in_front_is_not_cut_off(self) -> None:
        batch = {k: t.flip(1) for k, t in padded([1, 60, 1, 1, 60, 2]).items()}
        parts = length_buckets(batch, "cpu", Padding())
        assert [part["mask"].shape for _, part in parts] == [(6, 60)]

    @pytest.mark.parametrize(
        "other", [torch.ones(3), {"values": torch.ones(3, 2)}, {"mask": torch.ones(3, 2, 2)}]
    )
    def test_what_has_no_mask_goes_whole(self, other: Any) -> None:
        padding = Padding()
        assert [part for _, part in length_buckets(other, "cpu", padding)] == [other]
        assert (padding.real, padding.ratio) == (0, 1.0)

    def test_a_tensor_of_other_sizes_keeps_the_batch_whole(self) -> None:
        assert mask_of(padded([1, 50]) | {"sizes": torch.ones(2, 3)}) is None
        assert mask_of(padded([1, 50]) | {"sizes": torch.ones(2)}) is not None

    def test_the_cut_is_the_cheapest_of_those_allowed(self) -> None:
        for seed in range(20):
            lengths = -np.sort(-np.random.default_rng(seed).integers(1, 30, 7))
            cuts = [np.flatnonzero([int(b) for b in f"{k:06b}"]) + 1 for k in range(64)]
            parts = [np.split(lengths, cut) for cut in cuts]
            allowed = [p for p in parts if len(p) == 1 or all(len(q) not in (5, 7) for q in p)]
            sizes = cheapest_cut(lengths, 10)
            found = np.split(lengths, np.cumsum(sizes)[:-1])
            assert sum(sizes) == 7
            assert cost(found) == min(cost(p) for p in allowed)

    def test_shapes_come_again(self) -> None:
        batches = [padded(heavy_tailed(256, seed)) for seed in range(200)]
        shapes = [p["mask"].shape for b in batches for _, p in length_buckets(b, "cpu", Padding())]
        assert len(set(shapes)) < len(shapes) / 10


class TestWork:
    @pytest.mark.parametrize("size", [32, 256, 4096])
    def test_heavy_tails(self, size: int) -> None:
        batches = [padded(heavy_tailed(size, seed)) for seed in range(max(1, 512 // size))]
        naive = sum(b["mask"].numel() for b in batches) / sum(int(b["mask"].sum()) for b in batches)
        assert naive > 5
        assert ratio(batches) <= MOST
        assert max(len(length_buckets(b, "cpu", Padding())) for b in batches) <= 12

    @pytest.mark.parametrize("size", [32, 256])
    def test_real_captions(self, size: int) -> None:
        if not DATA.is_dir():
            pytest.skip("the real data is not beside this checkout")
        rows = [
            json.loads(line)
            for path in sorted(DATA.glob("*/metadata.jsonl"))
            for line in path.read_text("utf-8").splitlines()
        ]
        captions = [text for row in rows for text in (row.get("texts") or [row["text"]])]
        encoder = registry().encoder("text", "transformer")()
        order = np.random.default_rng(0).permutation(len(captions))
        batches = [
            encoder.collate([encoder.preprocess(captions[i]) for i in order[start : start + size]])
            for start in range(0, 2048, size)
        ]
        assert ratio(batches) <= MOST

    def test_an_accelerator_gets_few_parts(self) -> None:
        assert len(length_buckets(padded([8] * 20 + [40] * 12), "cuda", Padding())) == 1
        assert ratio([padded(heavy_tailed(4096, 0))], "cuda") <= MOST


LENGTHS = {
    "text": ["word " * n for n in (1, 1, 2, 1, 3, 20, 1, 2, 1, 18, 1, 1)],
    "protein": ["MKV" * n for n in (2, 2, 3, 90, 2, 3, 2, 80, 4, 2, 2, 3)],
}


@pytest.mark.parametrize(
    ("modality", "encoder"),
    [("text", "transformer"), ("text", "ngrams"), ("protein", "conv"), ("protein", "transformer")],
)
def test_features_and_gradients_stay(modality: str, encoder: str) -> None:
    torch.manual_seed(0)
    made = tower(registry().encoder(modality, encoder)(), registry().modality(modality)).double()
    batch = made.encoder.collate([made.encoder.preprocess(item) for item in LENGTHS[modality]])
    batch = {k: t.double() if t.is_floating_point() else t for k, t in batch.items()}
    weights = torch.randn(12, made.encoder.width, dtype=torch.float64)
    found: list[list[Tensor]] = []
    for features in (made.encoder, made.features):
        made.zero_grad()
        out = features(batch)
        (out * weights).sum().backward()
        gradients = [p.grad.clone() for p in made.encoder.parameters() if p.grad is not None]
        found.append([out.detach(), *gradients])
    assert made.padding.ratio <= MOST < batch["mask"].numel() / made.padding.real
    for whole, bucketed in zip(*found, strict=True):
        torch.testing.assert_close(whole, bucketed, rtol=1e-10, atol=1e-12)


class Noisy(toy.HashedWords):
    """With dropout."""

    def forward(self, batch: Any) -> Tensor:
        return torch.nn.functional.dropout(super().forward(batch), 0.5, self.training)


def test_a_replay_is_the_same_to_the_last_bit() -> None:
    torch.manual_seed(0)
    made, batch = tower(Noisy(), toy.ToyWords()), padded([2, 80, 3, 90, 1, 1])
    first, again, other = ([torch.manual_seed(seed), made.train()(batch)][1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, made.eval()(batch))
