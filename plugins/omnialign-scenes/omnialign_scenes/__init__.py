"""A tiny world of described scenes, rendered as image, audio, video, point cloud and time series.

from omnialign_scenes import captions, render, sample_scene
scene = sample_scene(seed=0, index=5)
captions(scene, "image"), render(scene, "image", seed=0)
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from omnialign import Source, hookimpl

if TYPE_CHECKING:
    from omnialign_scenes.folder import write_folder
    from omnialign_scenes.grammar import Scene, Thing
    from omnialign_scenes.language import Description, caption, captions, describe, parse
    from omnialign_scenes.rendering import Rendering, render
    from omnialign_scenes.sampling import distinct_scenes, held_out, sample_scene
    from omnialign_scenes.source import Scenes

_HOME = {
    "Description": "language",
    "Rendering": "rendering",
    "Scene": "grammar",
    "Scenes": "source",
    "Thing": "grammar",
    "caption": "language",
    "captions": "language",
    "describe": "language",
    "distinct_scenes": "sampling",
    "held_out": "sampling",
    "parse": "language",
    "render": "rendering",
    "sample_scene": "sampling",
    "write_folder": "folder",
}
"""Public names by the module they live in; imported when first used, so that listing plugins costs
neither numpy nor Pillow."""

__all__ = [
    "Description",
    "Rendering",
    "Scene",
    "Scenes",
    "Thing",
    "caption",
    "captions",
    "describe",
    "distinct_scenes",
    "held_out",
    "parse",
    "render",
    "sample_scene",
    "write_folder",
]


@hookimpl
def omnialign_sources() -> Mapping[str, type[Source] | str]:
    return {"scenes": "omnialign_scenes.source:Scenes"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnialign_scenes' has no attribute '{name}'")
    return getattr(import_module(f"omnialign_scenes.{_HOME[name]}"), name)
