"""A saved model: one folder with `config.json`, `model.safetensors` and the encoders' files.

For a hub each tower's weights are in a file of their own, `weights/NAME.safetensors`, so that no
more is downloaded than is wanted. What a run has held out goes along as `calibration.safetensors`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from omnialign import hub
from omnialign.building import assemble
from omnialign.errors import ModalityError, ModelError
from omnialign.held_out import HeldOut
from omnialign.model_config import FORMAT, ModelConfig, check_complete, read_config
from omnialign.overrides import SCHEME
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.tensor_file import write_tensors
from omnialign.tower import Tower

HELD_OUT = "calibration.safetensors"


def save(space: SharedSpace, folder: str | Path, *, by_tower: bool = False) -> None:
    """Writes `config.json`, `model.safetensors` and the files of each encoder.

    With `by_tower`, the weights of each tower go into `weights/NAME.safetensors`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {k: v.detach().cpu().contiguous().clone() for k, v in space.state_dict().items()}
    for modality in space.modalities if by_tower else ():
        own = [name for name in state if name.startswith(_prefix(modality))]
        write_tensors({name: state.pop(name) for name in own}, _own_file(folder, modality))
    write_tensors(state, folder / "model.safetensors")
    _write_held_out(space, folder / HELD_OUT)
    save_towers(space, folder)


def _write_held_out(space: SharedSpace, file: Path) -> None:
    """Writes what these very towers gave; what others gave is left out."""
    file.unlink(missing_ok=True)
    if space.held_out is None:
        return
    ours = {modality: space.tower(modality).fingerprint() for modality in space.modalities}
    if (held_out := space.held_out.of(ours)) is not None:
        held_out.save(file)


def _prefix(modality: str) -> str:
    return f"towers.{modality}."


def _own_file(folder: Path, modality: str) -> Path:
    return folder / "weights" / f"{modality}.safetensors"


def save_towers(space: SharedSpace, folder: Path) -> None:
    """Writes `config.json` and the files of each encoder, without the weights."""
    for name in space.modalities:
        files = folder / "encoders" / name
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        space.tower(name).encoder.save_files(files)
        for empty in (files, files.parent):
            if not any(empty.iterdir()):
                empty.rmdir()
    config = {
        "format": FORMAT,
        **space.config(),
        "preprocessing": space.preprocessing_fingerprint(),
        "fingerprint": space.fingerprint(),
        "tower_fingerprints": {m: space.tower(m).fingerprint() for m in space.modalities},
        "plugins": {p.distribution: p.version for p in registry().plugins if p.distribution},
    }
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    os.replace(partial, folder / "config.json")


def load_towers(folder: Path, *, trust_remote_code: bool = False) -> SharedSpace:
    """What `save_towers` wrote, with fresh weights; raises `ModelError` as `load` does."""
    config = read_config(folder)
    return _rebuild(folder, config, list(config.towers), trust_remote_code)


def load(
    source: str | Path,
    device: str | torch.device | None = None,
    *,
    dim: int | None = None,
    modalities: Sequence[str] | None = None,
    trust_remote_code: bool = False,
) -> SharedSpace:
    """Loads a model, ready for queries.

    From a folder (a run, or what `save` wrote) it uses no network. It runs no code but the
    installed plugins', and never unpickles.

    Args:
        source: the folder; or `hub:USER/NAME`, what `push_to_hub` pushed; or `SCHEME:NAME`, a model
            that others saved, in a format that a plugin reads (`hf:openai/clip-vit-base-patch32`).
            `@REVISION` at the end of either fixes a version.
        device: where the model goes; by default a GPU if there is one.
        dim: of an embedding: one of the sizes that the model was trained for; by default the
            largest, or what it was saved with.
        modalities: whose towers are wanted; the others' weights are neither downloaded nor read. By
            default all.
        trust_remote_code: whether a folder may run code that came with a tower, where its encoder
            was made with the option `trust_remote_code`.

    Raises:
        ModelError: a file is missing or damaged, the installed plugins do not fit, or the model was
            not trained for `dim`.
        HubError: the hub does not have the model, does not give it, or cannot be reached.
        ModalityError: the model has no such modality.
    """
    if isinstance(modalities, str) or (modalities is not None and not modalities):
        example = f"[{modalities!r}]" if modalities else "a list of names"
        raise ModalityError(
            f"modalities = {modalities!r} is no list of modalities; say modalities = {example}, or "
            "leave it out for all that the model has"
        )
    scheme = SCHEME.match(str(source))
    if scheme and not Path(source).exists():
        space = _from_afar(str(source), modalities, trust_remote_code)
    else:
        space = _from_folder(Path(source), modalities, trust_remote_code)
    if dim is not None:
        space.truncate(dim)
    space.eval()
    return space.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _from_afar(
    source: str, modalities: Sequence[str] | None, trust_remote_code: bool
) -> SharedSpace:
    scheme, _, name = source.partition(":")
    revision = None
    if "@" in name and not Path(name).exists():
        name, _, revision = name.rpartition("@")
    if scheme == hub.SCHEME:
        folder = _fetched(name, revision, modalities)
        return _from_folder(folder, modalities, trust_remote_code)
    read = registry().format(scheme)
    if not name:
        raise ModelError(
            f"'{source}' names no model; say {scheme}:NAME, where NAME is a folder, a file or a "
            "name on the hub"
        )
    model = read(name, revision=revision, modalities=modalities)
    has = {*model.towers, *(m for pair in model.logit_scales for m in pair)}
    _check_modalities(source, modalities or (), has, model.towers)
    return assemble(model)


def _check_modalities(
    source: str | Path, wanted: Sequence[str], has: Iterable[str], read: Iterable[str]
) -> None:
    """Raises `ModalityError`, where a wanted modality was not read, with all that the model has."""
    for modality in wanted:
        if modality not in read:
            raise ModalityError(
                f"{source} has no modality '{modality}'; it has: {', '.join(sorted(has))}"
            )


def _fetched(name: str, revision: str | None, modalities: Sequence[str] | None) -> Path:
    """The folder of a pushed model in the hub's cache, with what the wanted towers need."""
    config = hub.fetch(name, revision, ["config.json"]) / "config.json"
    if not config.is_file() or b'"preprocessing"' not in config.read_bytes():
        raise ModelError(
            f"{hub.SCHEME}:{name} holds no model of OmniAlign; models that others saved are loaded "
            "with the scheme of a plugin: omnialign plugins lists them"
        )
    wanted = ["*"] if modalities is None else modalities
    files = [file for m in wanted for file in (f"encoders/{m}/*", f"weights/{m}.safetensors")]
    always = ["config.json", "model.safetensors", HELD_OUT]
    return hub.fetch(name, config.parent.name, [*always, *files])


def _from_folder(
    folder: Path, modalities: Sequence[str] | None, trust_remote_code: bool
) -> SharedSpace:
    check_complete(folder)
    config = read_config(folder)
    _check_modalities(folder, modalities or (), config.towers, config.towers)
    wanted = [m for m in config.towers if modalities is None or m in modalities]
    space = _rebuild(folder, config, wanted, trust_remote_code)
    is_whole = len(wanted) == len(config.towers)
    if is_whole and space.preprocessing_fingerprint() != config.preprocessing:
        raise ModelError(
            f"{folder}: the installed plugins preprocess differently from those that the model was "
            f"trained with, so its embeddings would not be the same; install {config.plugins}"
        )
    _load_weights(space, folder, set(config.towers) - set(wanted))
    if is_whole:
        changed = [] if space.fingerprint() == config.fingerprint else ["it"]
    else:
        stated = config.tower_fingerprints
        changed = [m for m in wanted if space.tower(m).fingerprint() != stated.get(m)]
    if changed:
        raise ModelError(
            f"{folder}: model.safetensors holds other weights than those that config.json was "
            "written for; copy both again from one place"
            if is_whole
            else f"{folder}: the {', '.join(changed)} tower is not the one that config.json was "
            f"written for: its weights or the installed plugins differ; wanted: {config.plugins}"
        )
    space.held_out = _read_held_out(folder / HELD_OUT, config)
    return space


def _rebuild(
    folder: Path, config: ModelConfig, wanted: Sequence[str], trust_remote_code: bool
) -> SharedSpace:
    plugins = registry()
    towers: dict[str, Tower] = {}
    for modality in wanted:
        saved = config.towers[modality]
        name = saved.encoder.name
        kind = plugins.encoder(modality, name)
        options = plugins.encoder_options(modality, name, saved.encoder.options)
        if options.get("trust_remote_code") and not trust_remote_code:
            raise ModelError(
                f"{folder}: the {modality} encoder '{name}' runs code that came with its model; if "
                "you trust it, say omnialign.load(…, trust_remote_code=True)"
            )
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


def _load_weights(space: SharedSpace, folder: Path, left_out: set[str]) -> None:
    """Reads the weights of all towers but those `left_out`, whose bytes are not touched."""
    file = folder / "model.safetensors"
    state = _read_weights(file, left_out)
    for modality in space.modalities:
        is_apart = not any(name.startswith(_prefix(modality)) for name in state)
        if is_apart and _own_file(folder, modality).is_file():
            state |= _read_weights(_own_file(folder, modality), left_out)
    own = space.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = [k for k in own.keys() & state.keys() if own[k].shape != state[k].shape]
    if missing or unexpected or shapes:
        raise ModelError(
            f"{file} does not fit its config.json: missing {missing}, unexpected {unexpected}, "
            f"of another shape {sorted(shapes)}"
        )
    space.load_state_dict(state)


def _read_held_out(file: Path, config: ModelConfig) -> HeldOut | None:
    """Of all towers, those that are not wanted too; None where the model has none."""
    if not file.is_file():
        return None
    found = HeldOut.load(file)
    for modality, fingerprint in found.fingerprints.items():
        stated = config.tower_fingerprints.get(modality)
        if fingerprint != stated:
            raise ModelError(
                f"{file} is of another model: its {modality} tower has the fingerprint "
                f"{fingerprint}, that of config.json {stated}; delete it, and scores are "
                "calibrated from what is searched"
            )
    return found


def _read_weights(file: Path, left_out: set[str]) -> dict[str, torch.Tensor]:
    passed_over = tuple(_prefix(modality) for modality in left_out)
    try:
        with safe_open(file, "pt") as opened:
            names = [name for name in opened.keys() if not name.startswith(passed_over)]  # noqa: SIM118
            return {name: opened.get_tensor(name) for name in names}
    except Exception as error:
        raise ModelError(f"{file} is damaged ({error}); copy the model again") from None
