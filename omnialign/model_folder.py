"""A saved model: one folder with `config.json`, `model.safetensors` and the encoders' files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Literal

import pydantic
import torch
from safetensors.torch import load_file, save_file

from omnialign.contract import LongInput
from omnialign.errors import ModelError
from omnialign.options import explain
from omnialign.recipe import Choice
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.tower import Tower

FORMAT = 1


class _Tower(pydantic.BaseModel):
    encoder: Choice
    projection: Literal["linear", "mlp", "identity"]
    long_input: LongInput


class _Config(pydantic.BaseModel):
    """What `config.json` holds."""

    format: int
    dim: int
    pairs: list[tuple[str, str]]
    towers: dict[str, _Tower]
    preprocessing: str
    fingerprint: str
    plugins: dict[str, str]
    shared_temperature: bool = False
    matryoshka: list[int] = []
    biased_pairs: list[tuple[str, str]] = []
    truncated_to: int | None = None


def save(space: SharedSpace, folder: str | Path) -> None:
    """Writes `config.json`, `model.safetensors` and the files of each encoder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in space.modalities:
        files = folder / "encoders" / name
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        space.tower(name).encoder.save_files(files)
        for empty in (files, files.parent):
            if not any(empty.iterdir()):
                empty.rmdir()
    state = {k: v.detach().cpu().contiguous().clone() for k, v in space.state_dict().items()}
    partial = folder / "model.safetensors.partial"
    save_file(state, partial)
    plain = folder / "config.json.partial"
    plain.touch()
    shutil.copymode(plain, partial)  # safetensors keeps a file to its owner
    os.replace(partial, folder / "model.safetensors")
    config = {
        "format": FORMAT,
        **space.config(),
        "preprocessing": space.preprocessing_fingerprint(),
        "fingerprint": space.fingerprint(),
        "plugins": {p.distribution: p.version for p in registry().plugins if p.distribution},
    }
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, folder / "config.json")


def load(
    path: str | Path, device: str | torch.device | None = None, *, dim: int | None = None
) -> SharedSpace:
    """Loads a saved model, or a run, from its folder; ready for queries.

    It uses no network, runs no code but the installed plugins', and never unpickles.

    Args:
        path: the folder.
        device: where the model goes; by default a GPU if there is one.
        dim: of an embedding: one of the sizes that the model was trained for; by default the
            largest, or what it was saved with.

    Raises:
        ModelError: a file is missing or damaged, the installed plugins do not fit, or the model was
            not trained for `dim`.
    """
    folder = Path(path)
    config = _read_config(folder)
    space = _rebuild(folder, config)
    if space.preprocessing_fingerprint() != config.preprocessing:
        raise ModelError(
            f"{folder}: the installed plugins preprocess differently from those that the model was "
            f"trained with, so its embeddings would not be the same; install {config.plugins}"
        )
    _load_weights(space, folder / "model.safetensors")
    if space.fingerprint() != config.fingerprint:
        raise ModelError(
            f"{folder}: model.safetensors holds other weights than those that config.json was "
            "written for; copy both again from one place"
        )
    if dim is not None:
        space.truncate(dim)
    space.eval()
    return space.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _read_config(folder: Path) -> _Config:
    if not folder.is_dir():
        raise ModelError(f"no model folder at '{folder}'; give the --output of a training run")
    for name in ("config.json", "model.safetensors"):
        if (folder / name).is_file():
            continue
        if (folder / "recipe.toml").is_file():
            raise ModelError(
                f"the run in '{folder}' has not come to its end: {name} is missing; go on with it: "
                f"omnialign train RECIPE --output {folder} --resume"
            )
        raise ModelError(
            f"'{folder}' holds no model: {name} is missing; give the --output of a training run, "
            "or a folder that a model was saved to"
        )
    file = folder / "config.json"
    try:
        table = json.loads(file.read_text("utf-8"))
        found = table["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} is damaged ({type(error).__name__}: {error}); copy the model again"
        ) from None
    if found != FORMAT:
        raise ModelError(f"{file} has format {found}; this version of OmniAlign reads {FORMAT}")
    try:
        return _Config.model_validate(table)
    except pydantic.ValidationError as error:
        raise ModelError(explain(str(file), error, _Config)) from None


def _rebuild(folder: Path, config: _Config) -> SharedSpace:
    plugins = registry()
    towers: dict[str, Tower] = {}
    for modality, saved in config.towers.items():
        name = saved.encoder.name
        kind = plugins.encoder(modality, name)
        options = plugins.encoder_options(modality, name, saved.encoder.options)
        try:
            encoder = kind.from_files(folder / "encoders" / modality, **options)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(
                f"{folder}: the {modality} encoder '{name}' cannot be rebuilt: {error}"
            ) from error
        towers[modality] = Tower(
            plugins.modality(modality),
            encoder,
            name=name,
            options=options,
            dim=config.dim,
            projection=saved.projection,
            long_input=saved.long_input,
        )
    space = SharedSpace(
        towers,
        config.dim,
        dict.fromkeys(config.pairs, 0.07),
        shared_temperature=config.shared_temperature,
        matryoshka=config.matryoshka,
        biased_pairs=config.biased_pairs,
    )
    if config.truncated_to is not None:
        space.truncate(config.truncated_to)
    return space


def _load_weights(space: SharedSpace, file: Path) -> None:
    try:
        state = load_file(file)
    except Exception as error:
        raise ModelError(f"{file} is damaged ({error}); copy the model again") from None
    own = space.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ModelError(
            f"{file} does not fit its config.json: missing {missing}, unexpected {unexpected}, "
            f"of another shape {sorted(shapes)}"
        )
    space.load_state_dict(state)
