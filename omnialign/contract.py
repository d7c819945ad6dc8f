"""What a plugin provides: modalities, sources, and the hooks that hand them over.

Reading a modality and encoding it are two things, so that one reader and one set of augmentations
serve every encoder. The base class of encoders, which needs torch, is
`omnialign.encoder.Encoder`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

import pluggy

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from omnialign.encoder import Encoder

ENTRY_POINT_GROUP = "omnialign"
hookspec = pluggy.HookspecMarker("omnialign")
hookimpl = pluggy.HookimplMarker("omnialign")

Sample = TypeVar("Sample")
LongInput = Literal["windows", "truncate", "native"]


class Claim(IntEnum):
    """How surely an item belongs to a modality, as decided by the modality itself."""

    NO = 0
    COULD = 1
    """It could be read, but the form is not this modality's own (any `str` could be text)."""
    OWNS = 2
    """The form is this modality's own (a known suffix, a type, a magic number)."""


@dataclass(frozen=True)
class Segment(Generic[Sample]):
    """A stretch of a long sample; start and end are None where the modality has no clock."""

    sample: Sample
    start_seconds: float | None = None
    end_seconds: float | None = None


class Unread(ABC, Generic[Sample]):
    """An item, or a stretch of one, that is decoded when it is needed; small, and picklable."""

    name: str
    """Of the file, for errors."""

    @abstractmethod
    def read(self) -> Sample:
        """The sample: value for value what the whole item, read and cut, would have there.

        Raises `ReadError`.
        """

    @abstractmethod
    def segments(self, window: float) -> Sequence[Segment[Unread[Sample]]]:
        """The stretches that `Modality.segments` would give of the sample, none of them decoded."""


@dataclass(frozen=True)
class Preview:
    """A picture, a player or words that show a sample on a page: bytes and their MIME type."""

    mime: str
    data: bytes


class Augmentation(Protocol[Sample]):
    """A random change of the canonical sample that keeps its form.

    A class with explicit keyword options. All randomness comes from `generator`, so that the same
    seed gives the same result.

    It may state two things more. `cuts = True`: it takes a stretch and looks at no value, so it
    takes an `Unread` too, and gives one of the same stretch. `zoom`: how many times larger than in
    the sample it may show a detail; 1 where it is not stated.
    """

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample: ...


class Modality(ABC, Generic[Sample]):
    """A kind of data.

    The tables `augmentations` and `encoders` map a name to a class, or to `"module:Class"`, which
    is imported when it is first asked for: a plugin's main module should import without torch.
    """

    name: ClassVar[str]
    """Lower case, the name users write: `image`."""
    suffixes: ClassVar[frozenset[str]] = frozenset()
    """Of the files it reads: lower case, with the dot."""
    inline_strings: ClassVar[bool] = False
    """True where a string is the data itself (a caption, a sequence), not the path of a file."""
    long_input: ClassVar[LongInput] = "native"
    """What happens to a sample longer than the encoder's window, unless a recipe says otherwise:
    `windows` embeds each window and averages them, `truncate` keeps the first, `native` hands the
    whole sample to the encoder."""
    templates: ClassVar[tuple[str, ...]] = ("{}",)
    """Prompts that turn a class name into a description of this modality: `"a photo of a {}"`."""
    augmentations: ClassVar[Mapping[str, str | type[Augmentation[Any]]]] = {}
    encoders: ClassVar[Mapping[str, str | type[Encoder]]]
    default_encoder: ClassVar[str]

    @abstractmethod
    def read(self, source: Any) -> Sample:
        """Brings a path, bytes, an open binary file or an in-memory form to the canonical sample.

        Raises `ReadError` for anything unreadable, and refuses what is too large before allocating
        it. A `str` is a path, or the data itself where `inline_strings` is set.
        """

    def open(self, source: Any, resolution: float | None = None) -> Sample | Unread[Sample]:
        """As `read`, for training, where a part is often enough.

        A long file that can be read from any place may come as an `Unread`. With `resolution`, in
        the unit of `Encoder.resolution`, the sample need not be finer than that. What it gives
        depends on the arguments alone.
        """
        del resolution
        return self.read(source)

    def claim(self, source: Any) -> Claim:
        """Whether `source` (as for `read`) is this modality's. Never decided by an array's rank."""
        if isinstance(source, PathLike):
            return Claim.OWNS if Path(source).suffix.lower() in self.suffixes else Claim.NO
        return Claim.NO

    def segments(self, sample: Sample, window: float) -> list[Segment[Sample]]:
        """Cuts a sample into consecutive stretches of at most `window`, in order, none empty.

        `window` is in the modality's own unit: seconds where there is a clock, else elements
        (tokens, residues). The default suits modalities that have no length: one segment.
        """
        del window
        return [Segment(sample)]

    def read_segments(self, source: Any, window: float) -> Iterable[Segment[Sample]]:
        """The segments of `read(source)`, in order, for embedding.

        Where files may be longer than memory, each is decoded when it is asked for; `read` may then
        refuse what this does not. Raises `ReadError`, and be it in the middle.
        """
        return self.segments(self.read(source), window)

    def companions(self, path: Path) -> Sequence[Path]:
        """Other existing files that `read` opens for the one at `path`: a mesh's textures.

        Features of a frozen encoder are found again by the content of all of them.
        """
        del path
        return []

    @abstractmethod
    def preview(self, sample: Sample) -> Preview:
        """Something a person can look at or listen to."""

    def interactive_preview(self, sample: Sample) -> Preview | None:
        """Something a person can take in hand, where there is such a thing.

        A page turns `model/gltf-binary`: triangles or points of one buffer, with `POSITION`, and
        `COLOR_0` where there are colours.
        """
        del sample
        return None

    @abstractmethod
    def example_samples(self, n: int) -> Sequence[Sample]:
        """`n` different samples: deterministic, offline, small."""


@dataclass(frozen=True)
class Blob:
    """A file inside of another one (a shard): bytes that are read each time they are asked for."""

    name: str
    """Where it lies, for people: `train-000000.tar: 000012.png`."""
    read: Callable[[], bytes]
    """Raises `ReadError`."""

    def __str__(self) -> str:
        return self.name

    def held(self) -> Blob:
        """The same with its bytes in memory, which goes to another process by itself.

        Raises `ReadError`.
        """
        return Blob(self.name, partial(bytes, self.read()))


class Source(ABC):
    """Rows to train on or to evaluate with; random access, the same rows at every construction.

    A class with explicit keyword options, which a recipe gives. A row maps a column to an item, to
    a list of items that all describe the row (several captions), or to a plain value (a label);
    it lacks the columns that it has nothing for. A row may compute a value when it is asked for,
    but `in` must be cheap. An item is what its modality reads, or a `Blob` of it.
    """

    root: Path | None = None
    """The folder that relative paths in rows start from."""
    shuffle_window: int | None = None
    """Of a source that is read in order (a stream): an epoch goes through it in stretches of so
    many rows, shuffled inside. Only the main process of a loader looks into it, and no filter does.
    """

    @property
    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Names of all columns."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class AlignedTower:
    """A tower of a model that others trained, with what it takes to rebuild it."""

    encoder: Encoder
    name: str
    """Under which some plugin provides the encoder."""
    options: Mapping[str, Any]
    """It is rebuilt from these and from what its `save_files` wrote."""
    projection: Tensor | None = None
    """A matrix `(dim, width)` that brings features into the space; None where they lie in it."""
    long_input: LongInput | None = None
    """Default: the modality's own policy."""


@dataclass(frozen=True)
class AlignedModel:
    """A model that others trained, as a plugin has read it: towers that share a space."""

    dim: int
    towers: Mapping[str, AlignedTower]
    """By modality."""
    logit_scales: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """The inverse temperature of each aligned pair, also of towers that were not asked for."""
    logit_biases: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Of pairs that were trained with the sigmoid loss."""


class ModelFormat(Protocol):
    """Reads a model that others saved.

    `name` is what stands behind the scheme, `revision` what stands behind an `@`. Only towers of
    `modalities` are read, all where it is None; a modality that the model lacks is passed over.
    Raises `ModelError` that names what is missing, unexpected or of another shape.
    """

    def __call__(
        self, name: str, *, revision: str | None, modalities: Sequence[str] | None
    ) -> AlignedModel: ...


class Hooks:
    """The hooks that a plugin module may implement, each marked with `@omnialign.hookimpl`."""

    @hookspec
    def omnialign_modalities(self) -> Sequence[Modality[Any]]:  # type: ignore[empty-body]
        """The modalities that this plugin provides."""

    @hookspec
    def omnialign_sources(self) -> Mapping[str, type[Source] | str]:  # type: ignore[empty-body]
        """The sources that this plugin provides, by the name that a recipe uses.

        A value is the class, or `"module:Class"`.
        """

    @hookspec
    def omnialign_encoders(self) -> Mapping[str, Mapping[str, type[Encoder] | str]]:  # type: ignore[empty-body]
        """Encoders for modalities that others provide: by modality, then by name.

        A value is the class, or `"module:Class"`.
        """

    @hookspec
    def omnialign_formats(self) -> Mapping[str, ModelFormat | str]:  # type: ignore[empty-body]
        """Formats of whole models that this plugin reads, by scheme: `hf` reads `hf:NAME`.

        A value is the function, or `"module:function"`.
        """
