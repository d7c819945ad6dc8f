"""The source `scenes`: rows of described scenes, rendered when a column is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from omnialign import OmniAlignError, Source
from omnialign_scenes.grammar import ATTRIBUTES, Attribute, Modality, Scene, check_attributes
from omnialign_scenes.language import captions, shown_by
from omnialign_scenes.rendering import Rendering, render
from omnialign_scenes.sampling import Split, distinct_scenes, held_out, sample_scene

FACTS = ("kind", "color", "size", "count", "motion", "rhythm", "relation")
OTHER_FACTS = ("other_kind", "other_color", "other_size")
NONE = "none"
"""What a group has for a relation and another thing: a word, so that a recipe can filter by it."""


class Scenes(Source):
    """Scenes in one or more modalities, each with captions; row `i` is a function of the options
    and `i` alone, whatever `num_scenes` is.

    Columns: one for each of `modalities`; `text`, captions of what all of them show;
    `text_<modality>`, of what that one shows; `label`, the kind; `kind`, `color`, `size`, `count`,
    `motion`, `rhythm`, `relation`, `other_kind`, `other_color` and `other_size`, the facts; the
    last four are "none" for a group.
    """

    def __init__(
        self,
        modalities: tuple[Modality, ...] = ("image",),
        split: Split = "train",
        num_scenes: int = 4096,
        seed: int = 0,
        attributes: tuple[Attribute, ...] = ATTRIBUTES,
        image_size: int = 64,
        video_size: int = 64,
        num_frames: int = 8,
        clip_seconds: float = 1.5,
        sample_rate_hz: int = 16000,
        timeseries_rate_hz: float = 500.0,
        num_points: int = 512,
    ) -> None:
        """
        Args:
            modalities: what is rendered; the same scene in each of them.
            split: `train`, or `test` whose combinations of values never occur in `train`. No two
                test scenes have the same `text`.
            num_scenes: the number of rows. The test split has fewer where the world has no more
                scenes whose `text` differs.
            seed: other seeds give other scenes, places, shades and sounds, and the same split.
            attributes: the facts that vary and are spoken of. `rhythm` needs `count`, `relation`
                needs `kind`; without `relation` no scene has two kinds of things.
            image_size: pixels along a side.
            video_size: the same, of a frame.
            num_frames: of a video.
            clip_seconds: the length of videos, sounds and time series.
            sample_rate_hz: of sounds.
            timeseries_rate_hz: of time series.
            num_points: of a point cloud.

        Raises:
            OmniAlignError: an option outside of its bounds, or attributes that cannot be split.
        """
        self._modalities = tuple(dict.fromkeys(modalities))
        self._attributes = tuple(dict.fromkeys(attributes))
        self._split: Split = split
        self._num_scenes = num_scenes
        self._seed = seed
        self._rendering = Rendering(
            image_size=image_size,
            video_size=video_size,
            num_frames=num_frames,
            clip_seconds=clip_seconds,
            sample_rate_hz=sample_rate_hz,
            timeseries_rate_hz=timeseries_rate_hz,
            num_points=num_points,
        )
        shown_by(*self._modalities)
        check_attributes(self._attributes)
        held_out(Scene(), self._attributes)
        if num_scenes < 1:
            raise OmniAlignError(f"num_scenes is at least 1, not {num_scenes}")
        self._distinct: list[Scene] = []
        if split == "test":
            self._distinct = distinct_scenes(
                num_scenes, seed, split, self._modalities, self._attributes
            )
            self._num_scenes = len(self._distinct)
        texts = tuple(f"text_{modality}" for modality in self._modalities)
        self._columns = (*self._modalities, "text", *texts, "label", *FACTS, *OTHER_FACTS)

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def __len__(self) -> int:
        return self._num_scenes

    def __getitem__(self, index: int) -> SceneRow:
        if not 0 <= index < self._num_scenes:
            raise IndexError(f"row {index} of {self._num_scenes} scenes")
        return SceneRow(self, index)

    def scene(self, index: int) -> Scene:
        """The scene of row `index`."""
        if self._distinct:
            return self._distinct[index]
        return sample_scene(self._seed, index, self._split, self._attributes)

    def captions(self, scene: Scene, *modalities: str) -> list[str]:
        """Captions of what all of `modalities`, or all of this source's, show."""
        return captions(scene, *(modalities or self._modalities), attributes=self._attributes)

    def render(self, scene: Scene, modality: str, index: int) -> Any:
        """The scene of row `index` as that row has it."""
        return render(scene, modality, f"{self._seed}/{self._split}/{index}", self._rendering)


class SceneRow(Mapping[str, Any]):
    """One scene; a column is made each time that it is looked at, and not before."""

    def __init__(self, source: Scenes, index: int) -> None:
        self._source = source
        self._index = index

    @cached_property
    def _scene(self) -> Scene:
        return self._source.scene(self._index)

    def __getitem__(self, column: str) -> Any:
        if column not in self._source.columns:
            raise KeyError(column)
        scene = self._scene
        if column in ("text", "label"):
            return self._source.captions(scene) if column == "text" else scene.thing.kind
        if column.startswith("text_"):
            return self._source.captions(scene, column.removeprefix("text_"))
        if column in OTHER_FACTS:
            return getattr(scene.other, column.removeprefix("other_"), NONE)
        if column == "relation":
            return scene.relation or NONE
        if column in FACTS:
            return getattr(scene.thing if hasattr(scene.thing, column) else scene, column)
        return self._source.render(scene, column, self._index)

    def __contains__(self, column: object) -> bool:
        return column in self._source.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._source.columns)

    def __len__(self) -> int:
        return len(self._source.columns)
