"""Adapters through peft: they alone are trained, and a plain model is saved.

Axes: n samples, L tokens, W width.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omnialign.building import build
from omnialign.encoder import Encoder
from omnialign.engine import train
from omnialign.engine.lora import Adapters, linear_layers
from omnialign.engine.trainer import StepReport
from omnialign.errors import RecipeError
from omnialign.model_folder import load
from omnialign.recipe import Lora, Recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")


class Attentive(Encoder):
    """Two transformer layers of torch, whose fused form passes adapters over."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, batch: Tensor) -> Tensor:
        return self.layers(batch).mean(1)


def recipe(lora: dict[str, Any] | None = None, **settings: Any) -> Recipe:
    table = toy.recipe(**{"num_steps": 8, "log_every": 1, "checkpoint_every": 3, **settings})
    encoder = {"name": "mlp", "dropout": 0.2}
    table["towers"] = {"toy_signal": {"encoder": encoder, "lora": {"rank": 4, **(lora or {})}}}
    return parse_recipe(table)


def adapted(wanted: Recipe, encoder: Encoder | None = None) -> tuple[SharedSpace, Adapters]:
    torch.manual_seed(0)
    space = build(wanted)
    if encoder is not None:
        space.tower("toy_signal").encoder = encoder
    return space, Adapters(space, wanted)


def shake(encoder: nn.Module) -> None:
    """Gives all adapters weights that count."""
    with torch.no_grad():
        for p in encoder.parameters():
            if p.requires_grad:
                p.normal_()


def trainable(space: SharedSpace) -> set[str]:
    encoder = space.tower("toy_signal").encoder
    return {name for name, p in encoder.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_merged_features_are_those_of_the_adapters(kind: str) -> None:
    encoder = Attentive() if kind == "attention" else toy.Mlp(width=16)
    x = torch.randn(5, 3, 16) if kind == "attention" else torch.randn(5, 12)
    plain = set(encoder.state_dict())
    encoder.double().eval()
    before = encoder(x.double()).detach()
    space, adapters = adapted(recipe(), encoder)
    torch.testing.assert_close(encoder(x.double()), before)
    encoder.double().eval()
    shake(encoder)
    with torch.no_grad():
        found = encoder(x.double())
        assert not torch.allclose(found, before)
        adapters.merge()
        torch.testing.assert_close(encoder(x.double()), found)
    assert set(encoder.state_dict()) == plain
    assert all("peft" not in type(m).__module__ for m in space.modules())


def test_adapters_and_the_projection_alone_are_trained() -> None:
    space, _ = adapted(recipe())
    assert len(trainable(space)) == 4
    assert all("lora_" in name for name in trainable(space))
    assert space.tower("toy_signal").projection.weight.requires_grad  # type: ignore[union-attr]
    chosen, _ = adapted(recipe({"targets": ["layers.3"]}))
    assert {name.partition(".lora")[0] for name in trainable(chosen)} == {"layers.3"}


def test_attention_is_one_layer() -> None:
    found = linear_layers(Attentive())
    assert found[:3] == [
        "layers.layers.0.self_attn",
        "layers.layers.0.linear1",
        "layers.layers.0.linear2",
    ]
    assert len(found) == 6


def test_a_run_saves_a_plain_model_of_the_same_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = [torch.linspace(-1, k, 9) for k in range(4)]
    found: list[Tensor] = []
    merge = Adapters.merge
    spaces: list[SharedSpace] = []

    def watched(self: Adapters) -> None:
        found.append(spaces[0].embed(signals, "toy_signal"))
        merge(self)

    def keep(self: Adapters, space: SharedSpace, wanted: Recipe) -> None:
        spaces.append(space)
        init(self, space, wanted)

    init = Adapters.__init__
    monkeypatch.setattr(Adapters, "__init__", keep)
    monkeypatch.setattr(Adapters, "merge", watched)
    wanted = recipe(weight_average=0.5)
    train(wanted, tmp_path)
    monkeypatch.setitem(sys.modules, "peft", None)
    again = load(tmp_path)
    torch.testing.assert_close(again.embed(signals, "toy_signal"), found[0], rtol=1e-5, atol=1e-6)
    torch.manual_seed(wanted.seed)
    start = build(wanted)
    assert set(again.state_dict()) == set(start.state_dict())
    encoder = "towers.toy_signal.encoder.layers"
    ours, theirs = again.state_dict(), start.state_dict()
    assert ours[f"{encoder}.0.bias"].equal(theirs[f"{encoder}.0.bias"])
    moved = ours[f"{encoder}.0.weight"] - theirs[f"{encoder}.0.weight"]
    assert torch.linalg.matrix_rank(moved, atol=1e-5) == 4


class StopError(Exception):
    pass


@pytest.mark.parametrize("settings", [{}, {"micro_batch_size": 5}])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    wanted = recipe({"dropout": 0.3}, weight_average=0.9, **settings)
    whole = train(wanted, tmp_path / "whole")

    def listener(report: StepReport) -> None:
        if report.step == 5:
            raise StopError

    with pytest.raises(StopError):
        train(wanted, tmp_path / "killed", listener=listener)
    again = train(wanted, tmp_path / "killed", resume=True)
    assert again.fingerprint() == whole.fingerprint()
    losses = [
        [json.loads(line)["loss"] for line in text.splitlines()]
        for text in ((tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "killed"))
    ]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


class TestMistakes:
    def test_no_linear_layer(self) -> None:
        table = toy.recipe()
        table["towers"] = {"toy_words": {"lora": {}}}
        with pytest.raises(RecipeError, match=r"toy_words\.lora: .*no linear layer; .* as table"):
            adapted(parse_recipe(table))

    @pytest.mark.parametrize(
        ("target", "found"),
        [
            ("attention", "no layer"),
            ("inear1", "no layer"),
            ("norm1", "layers.layers.0.norm1, a LayerNorm"),
            ("layers", "layers, a TransformerEncoder"),
            ("out_proj", "layers.layers.0.self_attn.out_proj, a NonDynamicallyQuantizableLinear"),
        ],
    )
    def test_each_target_is_checked(self, target: str, found: str) -> None:
        with pytest.raises(RecipeError) as caught:
            adapted(recipe({"targets": ["linear1", target]}), Attentive())
        where = "towers.toy_signal.lora.targets"
        assert str(caught.value).startswith(
            f"{where}: '{target}' is {found}; what can be adapted: layers.layers.0.self_attn, "
            "layers.layers.0.linear1, "
        )

    def test_peft_is_not_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "peft", None)
        with pytest.raises(RecipeError, match=r"pip install 'omnialign\[lora\]'"):
            adapted(recipe())


def test_defaults() -> None:
    assert Lora().targets == []
    assert Lora().rank == 8
