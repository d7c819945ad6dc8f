"""LoRA (Hu et al. 2021, arXiv:2106.09685) through peft: small matrices learn beside frozen ones."""

from __future__ import annotations

from collections.abc import Iterable
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
            f"{_some(_adaptable(encoder))}"
        )
    _check_targets(f"{where}.targets", targets, encoder)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=lora.dropout,
        target_modules=targets,
    )
    try:
        # in a module of no kind: peft takes one with a `config` for a whole model of transformers
        model = LoraModel(nn.ModuleDict({"encoder": encoder}), config, "default")
    except ValueError as error:
        raise RecipeError(
            f"{where}: {error}; the encoder has the layers {_some(_adaptable(encoder))}"
        ) from None
    for layer in encoder.modules():
        if isinstance(layer, BaseTunerLayer):
            # torch's fused transformer layers pass adapters over, but never a layer with a hook
            layer.register_forward_pre_hook(_nothing)
    return model


def _check_targets(where: str, targets: Iterable[str], encoder: nn.Module) -> None:
    """Each is a layer that can be adapted, or the end of the names of some, and of no other."""
    layers, adaptable = dict(encoder.named_modules()), _adaptable(encoder)
    for target in targets:
        meant = [name for name in layers if f".{name}".endswith(f".{target}")]
        wrong = [name for name in meant if name not in adaptable]
        if meant and not wrong:
            continue
        found = f"{wrong[0]}, a {type(layers[wrong[0]]).__name__}" if wrong else "no layer"
        raise RecipeError(
            f"{where}: '{target}' is {found}; what can be adapted: {_some(adaptable)}"
        )


def linear_layers(encoder: nn.Module) -> list[str]:
    """Names of all linear layers, those of multi-head attention as one."""
    kinds = (nn.Linear, nn.MultiheadAttention)
    return [name for name, layer in _adaptable(encoder).items() if isinstance(layer, kinds)]


def _adaptable(encoder: nn.Module) -> dict[str, nn.Module]:
    """Layers that hold a matrix, by name; multi-head attention as one, since it calls no layer."""
    layers = dict(encoder.named_modules())
    return {
        name: layer
        for name, layer in layers.items()
        if any(p.ndim >= 2 for p in layer.parameters(recurse=False))
        and not isinstance(layers.get(name.rpartition(".")[0]), nn.MultiheadAttention)
    }


def _some(names: Iterable[str]) -> str:
    found = [name for name in names if name]
    return ", ".join(found[:8]) + (", …" if len(found) > 8 else "")


def _nothing(layer: nn.Module, inputs: Any) -> None:
    del layer, inputs
