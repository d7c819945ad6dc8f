"""Finds plugins, keeps broken ones visible, and answers by name.

A plugin that cannot be used stops nothing else: it is listed with its cause, and becomes an error
only when something that no sound plugin provides is asked for.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from omnialign import hub
from omnialign.contract import (
    ENTRY_POINT_GROUP,
    Claim,
    Hooks,
    Modality,
    ModelFormat,
    Source,
)
from omnialign.errors import (
    ModalityError,
    ModelError,
    PluginError,
    RecipeError,
    choices,
    describe,
)
from omnialign.options import check_options


@dataclass
class Plugin:
    """One entry point and what became of it."""

    name: str
    distribution: str
    version: str
    modalities: list[str] = field(default_factory=list[str])
    sources: list[str] = field(default_factory=list[str])
    encoders: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Names of those that it gives to modalities of others."""
    formats: list[str] = field(default_factory=list[str])
    problem: str | None = None
    """Why it, or a part of it, cannot be used; None where all is well."""


class Registry:
    """Modalities and sources by name."""

    def __init__(self) -> None:
        self.plugins: list[Plugin] = []
        self.modalities: dict[str, Modality[Any]] = {}
        self.sources: dict[str, str | type[Source]] = {}
        self.formats: dict[str, str | ModelFormat] = {}
        self._added_encoders: dict[str, dict[str, Any]] = {}

    def load(self, found: Iterable[EntryPoint]) -> None:
        """Loads entry points one by one; a failure is recorded with its cause."""
        for entry in found:
            dist = entry.dist
            plugin = Plugin(entry.name, dist.name if dist else "", dist.version if dist else "")
            self.plugins.append(plugin)
            try:
                with redirect_stdout(sys.stderr):  # standard output is for results
                    module = entry.load()
            except KeyboardInterrupt:
                raise
            except SystemExit as error:
                plugin.problem = f"it exits on import (SystemExit: {error})"
            except BaseException as error:
                plugin.problem = f"import failed ({type(error).__name__}: {error})"
            else:
                self._register(module, plugin)

    def add(self, module: ModuleType | object, name: str) -> Plugin:
        """Registers a module, or any object with hook implementations, that is already loaded."""
        plugin = Plugin(name, "", "")
        self.plugins.append(plugin)
        self._register(module, plugin)
        return plugin

    def _register(self, module: Any, plugin: Plugin) -> None:
        manager = pluggy.PluginManager("omnialign")
        manager.add_hookspecs(Hooks)
        known = sorted(name for name in vars(Hooks) if name.startswith("omnialign_"))
        try:
            manager.register(module)
            if not manager.get_hookcallers(module):
                looks = [n for n in dir(module) if n.startswith("omnialign_")]
                raise PluginError(
                    f"it implements no hook; mark {looks[0]} with @omnialign.hookimpl"
                    if looks
                    else f"it implements no hook; valid: {', '.join(known)}"
                )
            manager.check_pending()
            for modality in _returned(manager, "omnialign_modalities", Sequence, ()):
                self._add_modality(modality, plugin)
            sources = _returned(manager, "omnialign_sources", Mapping, {})
            for name in sources:
                if name in self.sources:
                    raise PluginError(f"source '{name}' is already provided{self._by(name)}")
                self.sources[name] = sources[name]
                plugin.sources.append(name)
            formats = _returned(manager, "omnialign_formats", Mapping, {})
            for scheme in formats:
                if scheme == hub.SCHEME:
                    raise PluginError(f"format '{scheme}' is the core's own; take another name")
                if scheme in self.formats:
                    raise PluginError(f"format '{scheme}' is already provided{self._by(scheme)}")
                self.formats[scheme] = formats[scheme]
                plugin.formats.append(scheme)
            for modality, encoders in _returned(manager, "omnialign_encoders", Mapping, {}).items():
                self._add_encoders(modality, encoders, plugin)
        except pluggy.PluginValidationError as error:
            plugin.problem = f"{error}; valid hooks: {', '.join(known)}".replace("\n", " ")
        except (Exception, SystemExit) as error:
            plugin.problem = (
                str(error)
                if isinstance(error, PluginError)
                else f"a hook failed ({type(error).__name__}: {error})"
            )

    def _add_modality(self, modality: Any, plugin: Plugin) -> None:
        if not isinstance(modality, Modality):
            raise PluginError(
                f"omnialign_modalities gave {modality!r}; it wants Modality instances"
            )
        kind: type[Modality[Any]] = type(modality)
        missing = [n for n in ("name", "encoders", "default_encoder") if not hasattr(kind, n)]
        if missing:
            raise PluginError(f"{kind.__qualname__} does not set {', '.join(missing)}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", modality.name):
            raise PluginError(
                f"{kind.__qualname__}.name is '{modality.name}'; it wants lower-case letters, "
                "digits and underscores"
            )
        if modality.default_encoder not in modality.encoders:
            raise PluginError(
                f"{kind.__qualname__}.default_encoder is '{modality.default_encoder}'; "
                f"{choices(modality.default_encoder, modality.encoders)}"
            )
        if modality.name in self.modalities:
            raise PluginError(
                f"modality '{modality.name}' is already provided{self._by(modality.name)}"
            )
        for name in modality.encoders:
            if name in self._added_encoders.get(modality.name, {}):
                raise PluginError(f"{modality.name} encoder '{name}' is already provided")
        self.modalities[modality.name] = modality
        plugin.modalities.append(modality.name)

    def _add_encoders(self, modality: str, encoders: Mapping[str, Any], plugin: Plugin) -> None:
        taken = self.encoders(modality) if modality in self.modalities else {}
        for name, target in encoders.items():
            if name in taken or name in self._added_encoders.get(modality, {}):
                raise PluginError(f"{modality} encoder '{name}' is already provided")
            self._added_encoders.setdefault(modality, {})[name] = target
            plugin.encoders.setdefault(modality, []).append(name)

    def _by(self, name: str) -> str:
        for plugin in self.plugins:
            if name in (*plugin.modalities, *plugin.sources, *plugin.formats):
                return f" by plugin '{plugin.name}' ({plugin.distribution or 'not installed'})"
        return ""

    def _failures(self) -> str:
        broken = [f"{p.name} ({p.problem})" for p in self.plugins if p.problem]
        return f"; failed to load: {', '.join(broken)}" if broken else ""

    def modality(self, name: str) -> Modality[Any]:
        """The modality called `name`; raises `ModalityError` that lists the installed ones."""
        if name not in self.modalities:
            installed = ", ".join(sorted(self.modalities)) or "none"
            raise ModalityError(
                f"no installed plugin provides modality '{name}'; installed: {installed}"
                f"{self._failures()}"
            )
        return self.modalities[name]

    def source(self, name: str) -> type[Source]:
        """The source called `name`; raises `RecipeError` that lists the installed ones."""
        if name not in self.sources:
            raise RecipeError(
                f"no source '{name}'; {choices(name, self.sources)}{self._failures()}"
            )
        return imported(self.sources[name])

    def encoder(self, modality: str, name: str) -> type[Any]:
        """The encoder class `name` of a modality."""
        return self._named(modality, "encoder", name, self.encoders(modality))

    def encoders(self, modality: str) -> dict[str, str | type[Any]]:
        """All encoders of a modality by name: its own first, then those that others give it."""
        own = self.modality(modality).encoders
        return {**own, **self._added_encoders.get(modality, {})}

    def format(self, scheme: str) -> ModelFormat:
        """The reader of models `scheme:NAME`; raises `ModelError` that lists the installed ones."""
        if scheme not in self.formats:
            known = ", ".join(f"{name}:" for name in sorted(self.formats)) or "none"
            raise ModelError(
                f"no installed plugin reads models '{scheme}:…'; installed: {known}"
                f"{self._failures()}"
            )
        return imported(self.formats[scheme])

    def augmentation(self, modality: str, name: str) -> type[Any]:
        """The augmentation class `name` of a modality."""
        return self._named(modality, "augmentation", name, self.modality(modality).augmentations)

    def _named(self, modality: str, kind: str, name: str, table: Mapping[str, Any]) -> type[Any]:
        if name not in table:
            raise RecipeError(f"{modality} has no {kind} '{name}'; {choices(name, table)}")
        return imported(table[name])

    def encoder_options(self, modality: str, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The complete options of an encoder."""
        return check_options(f"{modality} encoder '{name}'", self.encoder(modality, name), given)

    def decide(self, item: Any, among: Iterable[str] | None = None) -> tuple[str, Any]:
        """The modality that claims an item, and the item in the form to read.

        A string that names a file becomes a path. `among` limits the choice; an item that only a
        modality outside of it claims is an error that says so.

        Raises:
            ModalityError: nobody, or more than one, claims it. The message says what to pass.
        """
        allowed = sorted(self.modalities if among is None else among)
        item = self._as_path(item)
        if isinstance(item, PathLike) and not Path(item).is_file():
            kind = "a folder" if Path(item).is_dir() else "not an existing file"
            raise ModalityError(
                f"{describe(item)} is {kind}; if it is the data itself, pass modality=..."
            )
        claims = {name: self._claim(name, item) for name in allowed}
        best = max(claims.values(), default=Claim.NO)
        names = [name for name, claim in claims.items() if claim == best]
        if best == Claim.NO:
            others = [n for n in self.modalities if n not in claims]
            owner = [n for n in others if self._claim(n, item) != Claim.NO]
            if not owner and isinstance(item, PathLike):
                head = _head(Path(item))
                names = [n for n in allowed if self._claim(n, head) == Claim.OWNS]
                if len(names) == 1:
                    return names[0], item
            hint = f" ({', '.join(owner)} would, but is not in this model)" if owner else ""
            raise ModalityError(
                f"no modality claims {describe(item)}{hint}; pass modality=..., "
                f"one of: {', '.join(allowed)}{self._failures()}"
            )
        if len(names) > 1:
            raise ModalityError(
                f"{describe(item)} could be {' or '.join(names)}; pass "
                + " or ".join(f"modality='{name}'" for name in names)
            )
        return names[0], item

    def _claim(self, name: str, item: Any) -> Claim:
        """A claim that fails counts as none, and stays visible."""
        try:
            return self.modalities[name].claim(item)
        except Exception as error:
            for plugin in self.plugins:
                if name in plugin.modalities:
                    plugin.problem = f"{name}.claim failed ({type(error).__name__}: {error})"
            return Claim.NO

    def _as_path(self, item: Any) -> Any:
        if not isinstance(item, str) or "\n" in item or len(item) > 1024:
            return item
        suffix = Path(item).suffix.lower()
        known = any(suffix in modality.suffixes for modality in self.modalities.values())
        meant = bool(suffix) and known and not any(c.isspace() for c in item)
        is_folder = os.sep in item and os.path.isdir(item)
        return Path(item) if meant or is_folder or os.path.isfile(item) else item


def _head(path: Path) -> bytes:
    """The first bytes of a file: where its suffix is nobody's, a modality may own its content."""
    try:
        with path.open("rb") as file:
            return file.read(65536)
    except OSError:
        return b""


def _returned(manager: pluggy.PluginManager, hook: str, kind: type[Any], default: Any) -> Any:
    """What the one registered plugin gives for a hook; the default if it does not implement it."""
    caller = getattr(manager.hook, hook)
    if not caller.get_hookimpls():
        return default
    given = next(iter(caller()), None)
    if not isinstance(given, kind):
        raise PluginError(f"{hook} gave {type(given).__name__}; it wants a {kind.__name__}")
    return given


def imported(target: Any) -> Any:
    """The class or function of a table's entry, imported where it is `"module:name"`."""
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"cannot import '{target}': {error}") from error


@cache
def registry() -> Registry:
    """The registry of everything that is installed, loaded once."""
    found = Registry()
    found.load(sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name))
    return found
