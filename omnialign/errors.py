"""Every error that a user can cause.

Each message says what was wanted, what was found and what to do. Broken invariants of our own are
`assert`s, never one of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class OmniAlignError(ValueError):
    """Base of all errors that the command line prints as one message, without a traceback."""


class ReadError(OmniAlignError):
    """An item that its modality cannot read. Training sets it aside; a query reports it."""

    def __init__(self, source: object, reason: str) -> None:
        super().__init__(source, reason)
        self.source = describe(source)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot read {self.source}: {self.reason}"


class ModalityError(OmniAlignError):
    """A modality that no plugin provides, or an item whose modality cannot be decided."""


class PluginError(OmniAlignError):
    """A plugin that breaks the contract."""


class RecipeError(OmniAlignError):
    """A recipe with an unknown key, a wrong type or a choice that does not exist."""


class DataError(OmniAlignError):
    """A source without usable rows, or with too many unreadable ones."""


class ModelError(OmniAlignError):
    """A saved model that is incomplete or does not match the installed plugins."""


class HubError(ModelError):
    """A hub that cannot be reached, does not have what is wanted, or refuses it."""


class TrainingError(OmniAlignError):
    """A run that cannot start, go on or be resumed."""


def describe(source: object) -> str:
    """A short name for any item: its path, or its type and size, or the start of the string."""
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{len(source)} bytes"
    if isinstance(source, str) or hasattr(source, "__fspath__"):
        text = str(source)
        return repr(text if len(text) <= 80 else f"{text[:77]}...")
    name = getattr(source, "name", None)
    if isinstance(name, str):
        return repr(name)
    shape = getattr(source, "shape", None)
    suffix = f" of shape {tuple(shape)}" if shape is not None else ""
    return f"a {type(source).__module__}.{type(source).__qualname__}{suffix}"


def choices(wanted: str, valid: Iterable[str]) -> str:
    """`valid: a, b, c`, led by a suggestion when `wanted` looks like a slip of one of them."""
    names = sorted(valid)
    near = get_close_matches(wanted, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}valid: {', '.join(names) or 'none'}"
