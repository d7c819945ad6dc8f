"""LoRA (Hu et al. 2021, arXiv:2106.09685) through peft: small matrices learn beside frozen ones."""

from __future__ import annotations

from typing import Any

from torch import nn

from omnialign.errors import RecipeError
from omnialign.recipe import Lora, Recipe
from omnialign.space import SharedSpace

INSTALL = "LoRA wants peft, which is not installed: pip install 'omnialign[lora]'"


class Adapters:
    """The adapters of a run's towers: in place while it trains, then merged into the weights.

    Raises `RecipeError` where peft is not installed, or an encoder has nothing to adapt.
    """

    def __init__(self, space: SharedSpace, recipe: Recipe) -> None:
        wanted = {m: recipe.tower(m).lora for m in space.modalities}
        self._adapted = [
            _adapt(space.tower(modality).encoder, modality, lora)
            for modality, lora in wanted.items()
            if lora is not None
        ]

    def merge(self) -> None:
        """Leaves plain encoders that give the same features."""
        for model in self._adapted:
            model.merge_and_unload()
        self._adapted.clear()


def _adapt(encoder: nn.Module, modality: str, lora: Lora) -> Any:
    try:
        from peft import LoraConfig, LoraModel
        from peft.tuners.tuners_utils import BaseTunerLayer
    except ImportError:
        raise RecipeError(f"towers.{modality}.lora: {INSTALL}") from None
    where = f"towers.{modality}.lora"
    targets = lora.targets or linear_layers(encoder)
    if not targets:
        raise RecipeError(
            f"{where}: the encoder has no linear layer; name other layers in targets, such as "
            f"{_some(name for name, layer in encoder.named_modules() if _holds_weights(layer))}"
        )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    try:
        model = LoraModel(encoder, config, "default")
    except ValueError as error:
        raise RecipeError(
            f"{where}: {error}; the encoder has the layers "
            f"{_some(name for name, layer in encoder.named_modules() if _holds_weights(layer))}"
        ) from None
    for layer in encoder.modules():
        if isinstance(layer, BaseTunerLayer):
            # torch's fused transformer layers pass adapters over, but never a layer with a hook
            layer.register_forward_pre_hook(_nothing)
    return model


def linear_layers(encoder: nn.Module) -> list[str]:
    """Names of all linear layers, those of multi-head attention as one."""
    attention = [n for n, m in encoder.named_modules() if isinstance(m, nn.MultiheadAttention)]
    return [
        name
        for name, layer in encoder.named_modules()
        if name in attention
        or (isinstance(layer, nn.Linear) and name.rpartition(".")[0] not in attention)
    ]


def _holds_weights(layer: nn.Module) -> bool:
    return any(p.ndim >= 2 for p in layer.parameters(recurse=False))


def _some(names: Any) -> str:
    found = [name for name in names if name]
    return ", ".join(found[:8]) + (", …" if len(found) > 8 else "")


def _nothing(layer: nn.Module, inputs: Any) -> None:
    del layer, inputs
