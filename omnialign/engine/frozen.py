"""Frozen encoders run once: their features are computed before training, and kept on disk.

Axes: n items, s segments of an item, w width of features.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omnialign.data.features import FeatureStore, cache_folder, content_key, sample_key
from omnialign.data.loader import PairDataset
from omnialign.data.rows import Item, identity_number
from omnialign.data.sides import ReadSide, StoredSide
from omnialign.engine.fingerprint import feature_fingerprint
from omnialign.errors import ReadError
from omnialign.recipe import Recipe
from omnialign.space import SharedSpace
from omnialign.tower import Tower

ROWS_AT_ONCE = 64
"""Rows whose new items are encoded together: always the same, so that a pass that was killed goes
on to the same bits."""
INPUTS_AT_ONCE = 64
CHUNK_BYTES = 16 * 2**20
SECONDS_PER_CHUNK = 20.0
"""What a killed pass may lose, at most."""


@dataclass
class FeatureReport:
    """How the pass over the items of a frozen tower is doing, on this process."""

    modality: str
    num_rows: int
    rows_done: int = 0
    found: int = 0
    """Items whose features were on disk."""
    computed: int = 0
    unreadable: int = 0
    problem: str | None = None
    """Why features are not kept on disk; None where they are."""
    done: bool = False


FeatureListener = Callable[[FeatureReport], None]


def frozen_modalities(recipe: Recipe) -> list[str]:
    """Those whose features are functions of the item: a frozen encoder, and no augmentation."""
    towers = {m: recipe.tower(m) for m in recipe.modalities()}
    return [m for m, tower in towers.items() if tower.frozen and not tower.augmentations]


def store_frozen_features(
    space: SharedSpace,
    recipe: Recipe,
    datasets: Sequence[PairDataset],
    accelerator: Accelerator,
    bf16: bool,
    listener: FeatureListener | None = None,
) -> None:
    """Makes the datasets give the features of frozen towers in the place of inputs.

    Features that are not yet on disk are computed: every process takes its share.
    """
    for modality in frozen_modalities(recipe):
        tower = space.tower(modality)
        about = {"modality": modality, "encoder": tower.config["encoder"]["name"]}
        folder = cache_folder() / "features" / feature_fingerprint(tower, bf16)
        store = FeatureStore(folder, tower.encoder.width, about)
        places = [
            (dataset, place)
            for dataset in datasets
            for place, side in enumerate(dataset.sides)
            if isinstance(side, ReadSide) and side.pipeline.modality.name == modality
        ]
        sides = [dataset.sides[place] for dataset, place in places]
        run = _Pass(tower, store, sides, accelerator, bf16, recipe.train.num_workers, listener)
        for (dataset, place), stored in zip(places, run(), strict=True):
            dataset.sides[place] = stored


@dataclass(frozen=True)
class _Looked:
    """What a worker found out about an item."""

    identity: int
    key: bytes | None = None
    inputs: list[Any] = field(default_factory=list[Any])
    """Of its segments; empty where its features are known, or where it cannot be read."""
    unreadable: tuple[str, str] | None = None


class _Items(Dataset[Any]):
    """The items of the rows of all sides, one side after the other; runs in workers."""

    def __init__(self, sides: Sequence[ReadSide], known: Mapping[bytes, Any]) -> None:
        self._sides = sides
        self._known = known
        self._seen: dict[int, _Looked] = {}
        self._starts = np.cumsum([0, *(len(side.rows) for side in sides)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, row: int) -> list[_Looked]:
        number = int(np.searchsorted(self._starts, row, "right")) - 1
        side = self._sides[number]
        items = side.items(row - int(self._starts[number]))
        return [self._once(side, item) for item in items]

    def _once(self, side: ReadSide, item: Item) -> _Looked:
        identity = identity_number(item)
        if identity not in self._seen:
            looked = self._look(side, item, identity)
            self._seen[identity] = _Looked(identity, looked.key, [], looked.unreadable)
            return looked
        return self._seen[identity]

    def _look(self, side: ReadSide, item: Item, identity: int) -> _Looked:
        pipeline = side.pipeline
        try:
            key = _key(side, item)
            if key in self._known:
                return _Looked(identity, key)
            if key is None:
                sample = pipeline.read(item.value)
                key = sample_key(sample)
                known = key in self._known
                return _Looked(identity, key, [] if known else pipeline.inputs(sample))
            segments = pipeline.read_segments(item.value)
            inputs = [pipeline.preprocess(segment.sample) for segment in segments]
            if _key(side, item) != key:
                raise ReadError(item.value, "it changed while it was read")
            return _Looked(identity, key, inputs)
        except ReadError as error:
            return _Looked(identity, unreadable=(error.source, error.reason))


def _key(side: ReadSide, item: Item) -> bytes | None:
    try:
        return content_key(side.pipeline.modality, item.value)
    except OSError as error:
        side.pipeline.read(item.value)  # says it in its own words
        raise ReadError(item.value, str(error)) from None


class _Pass:
    """One pass over all items of one frozen tower."""

    def __init__(
        self,
        tower: Tower,
        store: FeatureStore,
        sides: Sequence[Any],
        accelerator: Accelerator,
        bf16: bool,
        num_workers: int,
        listener: FeatureListener | None,
    ) -> None:
        self._tower = tower
        self._store = store
        self._sides: list[ReadSide] = list(sides)
        self._accelerator = accelerator
        self._bf16 = bf16
        self._num_workers = num_workers
        self._listener = listener
        self._pending: dict[bytes, Tensor] = {}
        self._written = time.monotonic()

    def __call__(self) -> list[StoredSide]:
        num_rows = sum(len(side.rows) for side in self._sides)
        blocks = [
            range(start, min(start + ROWS_AT_ONCE, num_rows))
            for start in range(0, num_rows, ROWS_AT_ONCE)
        ]
        was_training = self._tower.encoder.training
        self._tower.encoder.eval()
        accelerator = self._accelerator
        looked = self._look(blocks[accelerator.process_index :: accelerator.num_processes])
        if accelerator.num_processes > 1:
            shares: list[dict[int, list[_Looked]]] = [{} for _ in range(accelerator.num_processes)]
            dist.all_gather_object(shares, looked)
            looked = {row: items for share in shares for row, items in share.items()}
        stored, places = self._store.open()
        # what another process holds in its memory, or on a disk of its own
        missing = {row for row, items in looked.items() if any(_lacks(i, places) for i in items)}
        if missing:
            looked |= self._look([b for b in blocks if not missing.isdisjoint(b)])
            stored, places = self._store.open()
        self._tower.encoder.train(was_training)
        self._say(done=True)
        found: list[StoredSide] = []
        first = 0
        for side in self._sides:
            rows = [looked[row] for row in range(first, first + len(side.rows))]
            found.append(_stored_side(rows, places, stored))
            first += len(side.rows)
        return found

    def _look(self, blocks: Sequence[Sequence[int]]) -> dict[int, list[_Looked]]:
        """Looks at all items of some rows; what is new of them is encoded and stored."""
        known = self._store.open()[1]
        self._report = FeatureReport(self._tower.modality.name, sum(map(len, blocks)))
        loader: DataLoader[Any] = DataLoader(
            _Items(self._sides, known),
            batch_sampler=blocks,  # type: ignore[arg-type]
            collate_fn=list,
            num_workers=self._num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        looked: dict[int, list[_Looked]] = {}
        computed: set[bytes] = set()
        seen: set[int] = set()
        for block, rows in zip(blocks, loader, strict=True):
            new: dict[bytes, list[Any]] = {}
            for row, items in zip(block, rows, strict=True):
                looked[row] = [_Looked(i.identity, i.key, [], i.unreadable) for i in items]
                for item in items:
                    if item.key and item.inputs and item.key not in computed:
                        new[item.key] = item.inputs
                    if item.identity not in seen:
                        seen.add(item.identity)
                        self._report.found += item.key in known
                        self._report.unreadable += item.unreadable is not None
            self._pending |= self._encode(new)
            computed |= new.keys()
            self._report.rows_done += len(rows)
            self._report.computed += len(new)
            self._write(least=CHUNK_BYTES)
            self._say()
        self._write(least=0)
        return looked

    @torch.no_grad()
    def _encode(self, new: Mapping[bytes, list[Any]]) -> dict[bytes, Tensor]:
        """Features `(s, w)` of each item, on the CPU."""
        encoder, device = self._tower.encoder, self._accelerator.device.type
        inputs = [value for values in new.values() for value in values]
        features: list[Tensor] = []
        for start in range(0, len(inputs), INPUTS_AT_ONCE):
            batch = encoder.collate(inputs[start : start + INPUTS_AT_ONCE])
            with torch.autocast(device, torch.bfloat16, enabled=self._bf16):
                features += self._tower.features(batch).float().cpu()
        rows = iter(features)
        return {key: torch.stack([next(rows) for _ in values]) for key, values in new.items()}

    def _write(self, least: int) -> None:
        held = sum(rows.nbytes for rows in self._pending.values())
        if held >= least or time.monotonic() - self._written > SECONDS_PER_CHUNK:
            self._store.add(self._pending)
            self._pending = {}
            self._written = time.monotonic()
            self._report.problem = self._store.problem

    def _say(self, done: bool = False) -> None:
        self._report.done = done
        if self._listener and self._accelerator.is_main_process:
            self._listener(self._report)


def _lacks(item: _Looked, places: Mapping[bytes, Any]) -> bool:
    return item.key is not None and item.key not in places


def _stored_side(
    rows: Sequence[Sequence[_Looked]],
    places: Mapping[bytes, tuple[int, int]],
    stored: Any,
) -> StoredSide:
    items = [item for row in rows for item in row]
    where = [(0, 0) if item.key is None else places[item.key] for item in items]
    return StoredSide(
        starts=np.cumsum([0, *map(len, rows)]),
        identities=np.array([item.identity for item in items], dtype=np.int64),
        first=np.array([first for first, _ in where], dtype=np.int64),
        num_segments=np.array([number for _, number in where], dtype=np.int64),
        unreadable={i: item.unreadable for i, item in enumerate(items) if item.unreadable},
        stored=stored,
    )
