"""Spaces and encoders of what is installed: as a recipe describes them, or as others left them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from omnialign.contract import AlignedModel
from omnialign.encoder import Encoder
from omnialign.errors import ModelError, OmniAlignError, RecipeError
from omnialign.recipe import Recipe, complete_tower
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.temperature import pair_key
from omnialign.tower import Tower


def build(recipe: Recipe, start: SharedSpace | None = None) -> SharedSpace:
    """A space as a (checked) recipe describes it, with fresh or pretrained encoders.

    `start` is the model that the recipe starts from. It gives the towers whose encoder the recipe
    leaves open, whole, and the temperatures of pairs of its own that stay.
    """
    towers: dict[str, Tower] = {}
    paired = {m for pair in recipe.pairs for m in pair.modalities}
    for name in recipe.modalities():
        wanted = recipe.tower(name)
        if start is not None and name not in paired:
            start.tower(name)
        if wanted.encoder is None and start is not None and name in start.modalities:
            towers[name] = _given(name, recipe, start)
            continue
        if wanted.encoder is None:
            wanted = complete_tower(name, wanted, registry())
        assert wanted.encoder is not None
        assert wanted.projection is not None
        assert wanted.long_input is not None
        towers[name] = Tower(
            registry().modality(name),
            build_encoder(name, wanted.encoder.name, wanted.encoder.options),
            name=wanted.encoder.name,
            options=wanted.encoder.options,
            dim=recipe.space.dim,
            projection=wanted.projection,
            long_input=wanted.long_input,
        )
    pairs = {pair.modalities: pair.temperature for pair in recipe.pairs}
    biased = [pair.modalities for pair in recipe.pairs if pair.loss == "sigmoid"]
    trained = {pair_key(*pair) for pair in pairs}
    if start is not None:
        stays = [p for p in start.pairs if towers.keys() >= set(p) and pair_key(*p) not in trained]
        pairs |= {pair: 1 / start.logit_scale(*pair).item() for pair in stays}
        biased += [pair for pair in stays if start.logit_bias(*pair) is not None]
    return SharedSpace(
        towers,
        recipe.space.dim,
        pairs,
        shared_temperature=recipe.space.shared_temperature,
        matryoshka=recipe.space.matryoshka,
        biased_pairs=biased,
    )


def _given(name: str, recipe: Recipe, start: SharedSpace) -> Tower:
    """The tower of the model that a recipe starts from."""
    wanted, tower = recipe.tower(name), start.tower(name)
    if start.trained_dim != recipe.space.dim:
        raise ModelError(
            f"start_from: {recipe.start_from} has embeddings of {start.trained_dim} dimensions, "
            f"and space.dim is {recipe.space.dim}; say space.dim = {start.trained_dim}"
        )
    for key in ("projection", "long_input"):
        if getattr(wanted, key) not in (None, tower.config[key]):
            raise ModelError(
                f"start_from: towers.{name}.{key} of {recipe.start_from} is "
                f"{tower.config[key]!r}, but {getattr(wanted, key)!r} in the recipe; leave it out"
            )
    return tower


def build_encoder(
    modality: str,
    name: str,
    options: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Encoder:
    """An encoder of an installed plugin, with fresh or pretrained weights.

    An encoder that holds another one builds it so, and rebuilds it from its `folder`.

    Args:
        modality: `"image"`, say.
        name: under which the plugin provides it.
        options: its own; defaults for the rest.
        folder: what `Encoder.save_files` wrote: it is rebuilt from there, without its weights and
            with no download.

    Raises:
        ModalityError: no plugin provides the modality.
        RecipeError: it has no such encoder, or the encoder cannot be built with these options.
    """
    plugins = registry()
    checked = plugins.encoder_options(modality, name, options or {})
    kind = plugins.encoder(modality, name)
    try:
        return kind(**checked) if folder is None else kind.from_files(folder, **checked)
    except OmniAlignError:
        raise
    except (AssertionError, RuntimeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise RecipeError(
            f"towers.{modality}: encoder '{name}' cannot be built with {checked}: {error}"
        ) from error


@torch.no_grad()
def assemble(model: AlignedModel) -> SharedSpace:
    """A space of the towers of a model that others trained."""
    towers: dict[str, Tower] = {}
    for name, given in model.towers.items():
        modality = registry().modality(name)
        towers[name] = tower = Tower(
            modality,
            given.encoder,
            name=given.name,
            options=registry().encoder_options(name, given.name, given.options),
            dim=model.dim,
            projection="identity" if given.projection is None else "linear",
            long_input=given.long_input or modality.long_input,
        )
        if given.projection is not None:
            tower.projection.load_state_dict({"weight": given.projection})
    space = SharedSpace(
        towers,
        model.dim,
        {pair: 1 / scale for pair, scale in model.logit_scales.items()},
        biased_pairs=list(model.logit_biases),
    )
    for pair, bias in model.logit_biases.items():
        space.logit_biases[pair_key(*pair)].fill_(bias)
    return space
