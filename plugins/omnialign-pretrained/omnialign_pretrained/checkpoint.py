"""Parts of checkpoints of `transformers`: their configuration, weights and processors."""

from __future__ import annotations

import sys
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from logging import CRITICAL
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.dynamic_module_utils import custom_object_save, get_class_from_dynamic_module
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.utils import CONFIG_NAME, logging
from transformers.utils.hub import cached_file, extract_commit_hash

from omnialign import ModelError
from omnialign_pretrained.families import SETTINGS, STILL
from omnialign_pretrained.places import hub_quietly, refuse_revision
from omnialign_pretrained.state_dicts import listed, refusal

FAULTS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    ImportError,
    RuntimeError,
    UnpicklingError,
    SafetensorError,
)
"""What `transformers` raises for a checkpoint that is missing, damaged or of another kind."""
REMOTE = "transformers_modules."
"""How the names begin of modules that came with a model."""
LEFT_OVER = ("position_ids", "inv_freq", "position_embeddings.weight", "relative_position_index")
"""How the names end of what old checkpoints hold, and models now compute or do not use."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from."""

    model: str
    """A name on the hub, or a folder."""
    revision: str | None = None
    trust_remote_code: bool = False
    is_whole: bool = False
    """Whether all towers are wanted at once; then no code of the model is run, trusted or not."""

    @property
    def settings(self) -> dict[str, Any]:
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    def error(self, what: str, error: Exception) -> ModelError:
        """That `what` cannot be had, why, and what to do."""
        cause = next((x for x in str(error).splitlines() if x.strip()), type(error).__name__)
        if isinstance(error, UnpicklingError):
            return ModelError(f"cannot load {what} of '{self.model}': the file {refusal(error)}")
        if "trust_remote_code" in str(error):
            return ModelError(
                f"cannot load {what} of '{self.model}': it comes with code of its own, which is "
                + (
                    "never run for a whole model, trusted or not; take its towers one by one, as "
                    "encoders with trust_remote_code = true"
                    if self.is_whole
                    else "not run; if you trust it, set the encoder's trust_remote_code = true"
                )
            )
        if Path(self.model).is_dir():
            return ModelError(
                f"cannot load {what} from the folder '{self.model}': {cause.strip()}; it needs "
                "config.json, model.safetensors and the files of its processor or tokenizer, as "
                "save_pretrained writes them"
            )
        return ModelError(
            f"cannot load {what} of '{self.model}': there is no such folder, and the hub did not "
            f"give it ({cause.strip()}); check the name and the revision; without a network, "
            "download it once while online and set HF_HUB_OFFLINE=1, or give a local folder"
        )


@contextmanager
def quietly() -> Generator[None]:
    """Without the reports of `transformers` and of the hub, and without progress bars."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with redirect_stdout(sys.stderr), hub_quietly():
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def read_config(origin: Origin) -> tuple[Any, Origin]:
    """The configuration, and the origin with the commit that the hub gave.

    Raises `ModelError`.
    """
    refuse_revision(origin.model, origin.revision)
    try:
        with quietly():
            config: Any = AutoConfig.from_pretrained(origin.model, **origin.settings)
            file = cached_file(origin.model, CONFIG_NAME, revision=origin.revision)
    except FAULTS as error:
        raise origin.error("the configuration", error) from None
    if Path(origin.model).is_dir():
        return config, origin
    return config, replace(origin, revision=extract_commit_hash(file, None) or origin.revision)


def read_processor(origin: Origin, kinds: Sequence[Any], what: str) -> Any:
    """The first that there is of `kinds` (classes such as `AutoTokenizer`).

    Raises `ModelError` that calls it `what`.
    """
    found: Exception = OSError("none is there")
    for kind in kinds:
        try:
            with quietly():
                return kind.from_pretrained(origin.model, **origin.settings)
        except FAULTS as error:
            found = error
    raise origin.error(what, found) from None


def model_class(config: Any, origin: Origin) -> Any:
    """The class of a model's body, without a head. Raises `ModelError`."""
    remote = (getattr(config, "auto_map", None) or {}).get("AutoModel")
    if origin.trust_remote_code and remote:
        return get_class_from_dynamic_module(remote, origin.model, revision=origin.revision)
    try:
        kind: Any = MODEL_MAPPING[type(config)]
    except KeyError:
        raise ModelError(
            f"'{origin.model}' is of type '{config.model_type}', of which transformers has no "
            "AutoModel; give a model that it has one of"
        ) from None
    if not isinstance(kind, tuple):
        return kind
    named = {k.__name__: k for k in kind}
    return next((named[n] for n in config.architectures or () if n in named), kind[0])


def save_code(kind: Any, config: Any, folder: Path) -> None:
    """Writes the code of a model's class, where that came with the model, and names it there."""
    if kind.__module__.startswith(REMOTE):
        custom_object_save(kind, folder)
        named = {**config.auto_map, "AutoModel": config.auto_map["AutoModel"].rpartition("--")[2]}
        config.auto_map = named


def outline(config: Any, origin: Origin) -> Any:
    """The whole model without values, to look at. Raises `ModelError`."""
    kind = model_class(config, origin)
    try:
        with quietly(), torch.device("meta"):
            return kind(config)
    except FAULTS as error:
        raise origin.error("the model", error) from None


def read_whole(
    origin: Origin,
    config: Any,
    keep: Collection[str],
    without: Collection[str] = (),
    *,
    tops: Collection[str] = (),
    fresh: bool = False,
) -> Any:
    """A model that consists of no more than the members at the paths `keep`.

    An empty path is the whole. No bytes are read of the others' weights, nor of the modules at
    `without`. `fresh` weights are not read at all.

    `tops` are the names of all that the whole model consists of: a weight below none of them is
    unexpected. Without them heads are passed over.

    Raises `ModelError` for weights that are missing, unexpected or of another shape.
    """
    for name, value in SETTINGS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    kind = model_class(config, origin)
    given = {"state_dict": {}} if fresh else origin.settings
    try:
        with quietly():
            whole, loaded = _cut(kind, keep, without).from_pretrained(
                None if fresh else origin.model,
                config=config,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # `_check` refuses them, by name
                **given,
            )
    except FAULTS as error:
        raise origin.error("the weights", error) from None
    whole.__class__ = kind
    if not fresh:
        _check(origin, whole, loaded, keep, without, tops)
    return whole


def _cut(kind: Any, keep: Collection[str], without: Collection[str]) -> Any:
    """A model's class, whose instances lack the members that are not kept."""

    def build(self: Any, config: Any, *args: Any, **options: Any) -> None:
        kind.__init__(self, config, *args, **options)
        _prune(self, [path.split(".") if path else [] for path in keep])
        self._is_hf_initialized = False
        for path in without:
            parent, _, child = path.rpartition(".")
            setattr(self.get_submodule(parent), child, None)
        weights = set(self.state_dict(keep_vars=True))
        tied = self.all_tied_weights_keys.items()
        self.all_tied_weights_keys = {a: b for a, b in tied if {a, b} <= weights}

    def initialise(self: Any, module: Any) -> None:
        with suppress(AttributeError):  # of a member that was not kept
            kind._init_weights(self, module)

    changed = {"__init__": build, "_init_weights": initialise, "__module__": kind.__module__}
    return type(kind.__name__, (kind,), changed)


def _prune(module: Any, paths: Sequence[Sequence[str]]) -> None:
    """Sets to None what lies on the way to none of the paths."""
    if any(not path for path in paths):
        return
    module._is_hf_initialized = True  # what would be initialised in it may be gone
    for name in members(module):
        below = [path[1:] for path in paths if path[0] == name]
        if below:
            _prune(getattr(module, name), below)
        else:
            setattr(module, name, None)


def members(module: Any) -> list[str]:
    """Names of what a module consists of: other modules and its own parameters."""
    own = dict(module.named_parameters(recurse=False))
    return [*dict(module.named_children()), *own]


def _check(
    origin: Origin,
    whole: Any,
    loaded: Mapping[str, Any],
    keep: Collection[str],
    without: Collection[str],
    tops: Collection[str],
) -> None:
    """Holds what was loaded against what the kept members want."""
    own_tops = {name.partition(".")[0] for name in whole.state_dict()}
    kept = tuple({f"{path or top}." for path in keep for top in own_tops})
    dropped = tuple(f"{path}." for path in without)
    own = [name.removeprefix(f"{whole.base_model_prefix}.") for name in loaded["unexpected_keys"]]
    missing = [n for n in loaded["missing_keys"] if not {*n.split(".")} & STILL]
    unexpected = [
        n
        for n in own
        if (n.startswith(kept) or (tops and n.partition(".")[0] not in tops))
        and not n.startswith(dropped)
        and not n.endswith(LEFT_OVER)
    ]
    about = f"the checkpoint of '{origin.model}'"
    if missing or unexpected:
        raise ModelError(
            f"{about} is of another model than a {whole.config.model_type} with its config.json: "
            f"missing {listed(missing)}; unexpected {listed(unexpected)}"
        )
    differing = [f"{n} {tuple(a)} for {tuple(b)}" for n, a, b in loaded["mismatched_keys"]]
    if differing:
        raise ModelError(
            f"{about} holds weights of other shapes than its config.json says: {listed(differing)}"
        )
