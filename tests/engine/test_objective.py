"""The sum of all pairs' losses, and frozen towers.

Axes: n pairs, D dim.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnialign.building import build
from omnialign.data.loader import PairBatch, SideBatch
from omnialign.engine.objective import Objective, joined, places
from omnialign.losses import info_nce, sigmoid
from omnialign.recipe import parse_recipe
from omnialign.testing import toy

KEY = (0, 0, 0)


PAIR = {"weight": 3.0, "temperature": 0.1, "min_temperature": 0.05}


def objective(
    pair: dict[str, Any] | None = None, matryoshka: Sequence[int] = (), **signal_tower: Any
) -> Objective:
    table = toy.recipe()
    table["space"]["matryoshka"] = [*matryoshka]
    table["pairs"][0] |= PAIR | (pair or {})
    table["towers"] = {"toy_signal": signal_tower}
    recipe = parse_recipe(table)
    torch.manual_seed(0)
    return Objective(build(recipe), recipe)


def batch(ids: list[int]) -> PairBatch:
    generator = torch.Generator().manual_seed(0)
    numbers = torch.tensor(ids)
    words = {"values": numbers[:, None] + 1, "mask": torch.ones(len(ids), 1, dtype=torch.bool)}
    signals = torch.randn(100, 12, generator=generator)[numbers]
    return PairBatch([SideBatch(signals, numbers), SideBatch(words, numbers)], None, [])


def embedded(made: Objective, given: PairBatch) -> list[Tensor]:
    modalities = ("toy_signal", "toy_words", "toy_words")
    return [
        made.space.tower(m)(side.inputs) for m, side in zip(modalities, given.sides, strict=False)
    ]


def ids_of(given: PairBatch) -> dict[str, Tensor]:
    names = ("x_ids", "y_ids", "negative_ids")
    return {name: side.ids for name, side in zip(names, given.sides, strict=False)}


@pytest.mark.usefixtures("toys")
class TestObjective:
    def test_the_weighted_loss_of_the_pair(self) -> None:
        made, given = objective(), batch([0, 1, 2, 2])
        total, (metrics,) = made([[given]], KEY)
        x, y = embedded(made, given)
        expected = info_nce(x, y, 10.0, **ids_of(given))
        torch.testing.assert_close(total, 3 * expected)
        torch.testing.assert_close(metrics["loss"], expected.detach())
        assert total.requires_grad
        assert not metrics["loss"].requires_grad

    @pytest.mark.parametrize(
        "pair", [{"duplicates": "positive"}, {"label_smoothing": 0.2}, {"loss": "sigmoid"}]
    )
    def test_a_pair_chooses_its_loss(self, pair: dict[str, Any]) -> None:
        made, given = objective(pair), batch([0, 1, 2, 2])
        total, _ = made([[given]], KEY)
        x, y = embedded(made, given)
        options = {**ids_of(given), **pair}
        if options.pop("loss", None):
            expected = sigmoid(x, y, 10.0, -10.0, **options)
        else:
            expected = info_nce(x, y, 10.0, **options)
        torch.testing.assert_close(total, 3 * expected)
        total.backward()
        biases = made.space.logit_biases.values()
        assert [bias.grad is not None for bias in biases] == [True] * ("loss" in pair)

    @pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
    def test_hard_negatives_and_weights_reach_the_loss(self, loss: str) -> None:
        made, given = objective({"loss": loss}, matryoshka=[8]), batch([0, 1, 2, 2])
        given.sides.append(batch([7, 1]).sides[1])
        given.weights = torch.tensor([1.0, 0.5, 0.0, 2.0])
        total, _ = made([[given]], KEY)
        vectors = embedded(made, given)
        losses: list[Tensor] = []
        for size in (8, 16):
            x, y, hard = (nn.functional.normalize(v[:, :size], dim=1) for v in vectors)
            options = {**ids_of(given), "weights": given.weights, "negatives": hard}
            if loss == "sigmoid":
                losses.append(sigmoid(x, y, 10.0, -10.0, **options))
            else:
                losses.append(info_nce(x, y, 10.0, **options))
        torch.testing.assert_close(total, 3 * sum(losses) / 2)

    @pytest.mark.parametrize("loss", ["info_nce", "sigmoid"])
    def test_rows_that_weigh_nothing_may_have_any_partner(self, loss: str) -> None:
        """They stay negatives of the others, which does not ask whose partner they are."""
        made = objective({"loss": loss}).double()
        found: list[dict[str, Tensor]] = []
        for partners in ([0, 1, 2, 3], [0, 1, 3, 2]):
            given = batch([0, 1, 2, 3])
            given.sides[0].inputs = given.sides[0].inputs.double()
            given.sides[1] = batch(partners).sides[1]
            given.weights = torch.tensor([1.0, 3.0, 0.0, 0.0])
            made.zero_grad()
            made([[given]], KEY)[0].backward()
            found.append(
                {n: p.grad.clone() for n, p in made.named_parameters() if p.grad is not None}
            )
        torch.testing.assert_close(found[0], found[1])

    @pytest.mark.parametrize("frozen", [False, True])
    def test_no_hard_negatives_are_trained_where_partners_are(self, frozen: bool) -> None:
        """What the processes exchange must not follow from how many each has."""
        made = objective(encoder={"name": "mlp"}, frozen=frozen, projection="identity")
        made._pairs = [p.model_copy(update={"modalities": p.modalities[::-1]}) for p in made._pairs]
        signals, words = batch([0, 1]).sides
        empty = PairBatch([words, signals, SideBatch(None, words.ids[:0])], None, [])
        assert [place.side for place in places([[empty]])] == [0, 1]
        vectors = {place: made.embed([[empty]], place, KEY) for place in places([[empty]])}
        hard = joined(vectors, 0, [empty])[2]
        assert hard.shape == (0, 16)
        assert hard.requires_grad != frozen

    def test_a_fixed_temperature_stays(self) -> None:
        made = objective({"learn_temperature": False, "temperature": 2.0})
        scale = made.space.log_scales["toy_signal-toy_words"]
        assert not scale.requires_grad
        made.clamp_temperatures()
        assert scale.exp().item() == pytest.approx(0.5)

    def test_temperature_is_clamped(self) -> None:
        made = objective()
        scale = made.space.log_scales["toy_signal-toy_words"]
        for start, end in ((-3.0, 1.0), (99.0, 0.05)):
            with torch.no_grad():
                scale.fill_(start)
            made.clamp_temperatures()
            assert scale.neg().exp().item() == pytest.approx(end)

    def test_pairs_share_a_temperature_where_the_recipe_says_so(self) -> None:
        table = toy.recipe()
        table["space"]["shared_temperature"] = True
        table["pairs"][0] |= {"temperature": 0.1, "min_temperature": 0.05}
        echo = table["pairs"][0] | {"modalities": ["toy_echo", "toy_words"], "loss": "sigmoid"}
        table["pairs"].append(echo)
        recipe = parse_recipe(table)
        made = Objective(build(recipe), recipe)
        (scale,) = made.space.log_scales.parameters()
        parts: list[Tensor] = []
        for weights in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
            made._pairs = [
                pair.model_copy(update={"weight": weight})
                for pair, weight in zip(recipe.pairs, weights, strict=True)
            ]
            total, _ = made([[batch([0, 1, 2, 2])]] * 2, KEY)
            parts.append(torch.autograd.grad(total, scale)[0])
        assert parts[0].abs() > 0 < parts[1].abs()
        torch.testing.assert_close(parts[0] + parts[1], parts[2])
        with torch.no_grad():
            scale.fill_(99.0)
        made.clamp_temperatures()
        assert made.space.logit_scale("toy_echo", "toy_words").item() == pytest.approx(20)

    @pytest.mark.parametrize("pair", [{}, {"loss": "sigmoid"}])
    def test_prefixes_are_trained_beside_the_whole(self, pair: dict[str, Any]) -> None:
        made, given = objective(pair, matryoshka=[3, 8]), batch([0, 1, 2, 2])
        total, (metrics,) = made([[given]], KEY)
        x, y = embedded(made, given)
        losses: list[Tensor] = []
        for size in (3, 8, 16):
            a, b = (nn.functional.normalize(v[:, :size], dim=1) for v in (x, y))
            ids = ids_of(given)
            losses.append(
                sigmoid(a, b, 10.0, -10.0, **ids) if pair else info_nce(a, b, 10.0, **ids)
            )
        torch.testing.assert_close(metrics["loss"], sum(losses).detach() / 3)
        torch.testing.assert_close(total, sum(losses))  # of weight 3

    def test_a_frozen_encoder_stays_in_evaluation_mode(self) -> None:
        made = objective(frozen=True, encoder={"name": "mlp", "dropout": 0.9})
        made.train()
        tower = made.space.tower("toy_signal")
        assert tower.projection.training
        assert not tower.encoder.training
        assert not any(p.requires_grad for p in tower.encoder.parameters())
        assert made.space.tower("toy_words").encoder.training

    def test_given_features_take_the_place_of_inputs(self) -> None:
        made, plain = objective(frozen=True), objective()
        given = batch([2, 3, 0, 3])
        expected, _ = plain([[given]], KEY)
        signals = given.sides[0]
        signals.inputs = made.space.tower("toy_signal").encoder(signals.inputs).detach()
        made.given_features = frozenset({"toy_signal"})
        torch.testing.assert_close(made([[given]], KEY)[0], expected)
