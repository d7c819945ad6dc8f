"""A space in the places where others expect a model: one module for each library.

Each imports its library, which an extra of the same name installs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnialign.space import SharedSpace


def as_space(model: SharedSpace | str | Path) -> SharedSpace:
    """A space as it is; or the one that `omnialign.load` finds under this name."""
    from omnialign.model_folder import load
    from omnialign.space import SharedSpace

    return model if isinstance(model, SharedSpace) else load(model)
