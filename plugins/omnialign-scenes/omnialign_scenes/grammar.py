"""What a scene is: typed facts, and which of them each modality can show.

A scene is either a group (`count` equal things that share a motion and a rhythm) or a pair (two
things of different kinds in a relation, at rest). Nothing here knows words or pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from omnialign import OmniAlignError

Kind = Literal["circle", "square", "triangle", "star", "ring", "cross", "heart", "moon"]
Color = Literal["red", "orange", "yellow", "green", "blue", "purple", "white", "black"]
Size = Literal["small", "large"]
Motion = Literal["still", "left", "right", "rising", "falling", "growing", "shrinking"]
Rhythm = Literal["even", "quickening", "slowing"]
Relation = Literal["left of", "above"]
"""Right of and below are the same facts with the things exchanged; language has all four."""
Modality = Literal["image", "audio", "video", "pointcloud", "timeseries"]
Attribute = Literal["kind", "color", "size", "count", "motion", "rhythm", "relation"]

VALUES: Mapping[str, tuple[str | int, ...]] = {
    "kind": get_args(Kind),
    "color": get_args(Color),
    "size": get_args(Size),
    "count": (1, 2, 3, 4),
    "motion": get_args(Motion),
    "rhythm": get_args(Rhythm),
    "relation": get_args(Relation),
}
"""The values of every attribute. The first of each is what a scene has where it does not vary."""

MODALITIES: tuple[Modality, ...] = get_args(Modality)
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
MIN_COUNT_WITH_RHYTHM = 3
"""Fewer beats have no rhythm that anybody could hear."""

SHOWS: Mapping[str, frozenset[str]] = {
    "image": frozenset({"kind", "color", "size", "count", "relation"}),
    "video": frozenset({"kind", "color", "size", "count", "relation", "motion"}),
    "pointcloud": frozenset({"kind", "color", "size", "count", "relation"}),
    "audio": frozenset({"kind", "size", "count", "relation", "motion", "rhythm"}),
    "timeseries": frozenset({"kind", "size", "count", "relation", "motion", "rhythm"}),
}
"""The facts that each modality can show, if only in part: see `language.describe`."""


def _check_value(name: str, value: object) -> None:
    if value not in VALUES[name]:
        valid = ", ".join(str(v) for v in VALUES[name])
        raise OmniAlignError(f"no {name} {value!r}; valid: {valid}")


@dataclass(frozen=True)
class Thing:
    """One piece of the world."""

    kind: Kind = "circle"
    color: Color = "red"
    size: Size = "small"

    def __post_init__(self) -> None:
        for name in ("kind", "color", "size"):
            _check_value(name, getattr(self, name))


@dataclass(frozen=True)
class Scene:
    """A group of `count` equal things, or one thing in a relation to another.

    Raises `OmniAlignError` for a value that does not exist and for facts that contradict each
    other.
    """

    thing: Thing = Thing()
    count: int = 1
    motion: Motion = "still"
    rhythm: Rhythm = "even"
    relation: Relation | None = None
    other: Thing | None = None

    def __post_init__(self) -> None:
        for name in ("count", "motion", "rhythm"):
            _check_value(name, getattr(self, name))
        if self.rhythm != "even" and self.count < MIN_COUNT_WITH_RHYTHM:
            raise OmniAlignError(
                f"rhythm '{self.rhythm}' needs a count of {MIN_COUNT_WITH_RHYTHM} or more, not "
                f"{self.count}"
            )
        if (self.relation is None) != (self.other is None):
            raise OmniAlignError("a relation and the other thing come together: give both or none")
        if self.relation is None or self.other is None:
            return
        _check_value("relation", self.relation)
        if self.other.kind == self.thing.kind:
            raise OmniAlignError(
                f"the two things of a relation differ in kind; both are '{self.thing.kind}'"
            )
        if self.count != 1 or self.motion != "still":
            raise OmniAlignError("a scene with a relation has a count of 1 and motion 'still'")

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things, in reading order: left before right, above before below."""
        return (self.thing, self.other) if self.other else (self.thing,) * self.count


def check_attributes(attributes: tuple[str, ...]) -> None:
    """Refuses attributes that do not exist, or that need another one to vary too."""
    for name in attributes:
        if name not in ATTRIBUTES:
            raise OmniAlignError(f"no attribute '{name}'; valid: {', '.join(ATTRIBUTES)}")
    for name, needed in (("rhythm", "count"), ("relation", "kind")):
        if name in attributes and needed not in attributes:
            raise OmniAlignError(f"attribute '{name}' needs '{needed}' among the attributes too")
