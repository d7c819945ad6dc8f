"""One adapter for the models of `transformers`; a modality adds how its samples go in.

Axes: n samples, T tokens, W width.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from omnialign import Encoder, ModelError
from omnialign_pretrained.checkpoint import (
    Origin,
    read_config,
    read_processor,
    read_whole,
    save_code,
)
from omnialign_pretrained.families import OWN, STILL, Pooling, family_of
from omnialign_pretrained.parts import Part, find_part
from omnialign_pretrained.pooling import AttentionPool, pool, tokens_of

RECORD = "pretrained.json"
"""Of a saved model: where its weights came from, and how they are pooled."""
INPUT_MASK = "input_mask"
"""An `attention_mask` of inputs that are not to be cut along it."""
ORIGIN = {"model", "revision", "pooling", "trust_remote_code"}
"""The options that every modality has."""
SIZES = "_sizes"
"""Ends the name of the sizes of inputs that were brought to one."""


class PretrainedEncoder(Encoder):
    """A model of `transformers`, or that part of it that encodes one modality."""

    modality: ClassVar[str]
    processors: ClassVar[Sequence[Any]]
    """Classes such as `AutoTokenizer`; the first that the model has prepares its inputs."""
    preparation: ClassVar[str]
    """What users call that: the tokenizer."""

    origin: Origin
    """With the commit that the hub gave, where it gave one."""
    pooling: Pooling
    options: Mapping[str, Any]
    """Those of the modality."""

    def _load(self, origin: Origin, pooling: Pooling | None, **options: Any) -> None:
        """Reads configuration, processor and weights; raises `ModelError`."""
        self.options = options
        config, origin = read_config(origin)
        part = find_part(origin, config, self.modality, pooling)
        processor = read_processor(origin, self._processors(config), f"the {self.preparation}")
        whole = read_whole(origin, config, part.keep, part.without)
        self._take(origin, part, processor, whole)

    def _take(self, origin: Origin, part: Part, processor: Any, whole: Any) -> None:
        self.origin = origin
        self.pooling = part.pooling
        self.width = part.width
        self.num_marks = part.num_marks
        self.config = whole.config
        self.kind: Any = type(whole)
        self.processor = processor
        self.model = whole if part.pooling == "projected" else whole.get_submodule(part.path)
        self.attention = AttentionPool(part.width) if part.pooling == "attention" else None
        family = family_of(whole.config)
        idle = {*STILL, *family.fixed, *(() if part.pooling in OWN else family.pooler)}
        for name, parameter in self.model.named_parameters():
            if idle & {*name.split(".")}:
                parameter.requires_grad_(False)
        self._prepare(part.settings)

    @classmethod
    def _processors(cls, config: Any) -> Sequence[Any]:
        """`processors`, in the order in which a model of this configuration is asked for them."""
        del config
        return cls.processors

    @abstractmethod
    def _prepare(self, settings: Any) -> None:
        """Sets `preprocess`, `collate` and `window`, given the encoder's own configuration."""

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        sizes = [name for name in batch if name.endswith(SIZES)]
        if not sizes:
            return self._features(dict(batch))
        shapes = torch.cat([batch[name] for name in sizes], dim=1)
        kinds, kind_of = shapes.unique(dim=0, return_inverse=True)
        rows = [(kind_of == k).nonzero()[:, 0] for k in range(len(kinds))]
        found = torch.cat([self._features(_of_one_size(batch, of)) for of in rows])
        return found.index_select(0, torch.cat(rows).argsort())

    def _features(self, inputs: dict[str, Tensor]) -> Tensor:
        if INPUT_MASK in inputs:
            inputs["attention_mask"] = inputs.pop(INPUT_MASK)
        if self.pooling == "projected":
            output = getattr(self.model, f"get_{self.modality}_features")(**inputs)
        else:
            output = self.model(**inputs)
        if self.pooling in OWN:
            pooled = getattr(output, "pooler_output", None)
            if not isinstance(pooled, Tensor) or pooled.shape[1:].numel() != self.width:
                raise ModelError(
                    f"'{self.origin.model}': a {self.config.model_type} model has no vector of its "
                    f"own for pooling '{self.pooling}'; choose another: mean, max, attention"
                )
            return pooled.flatten(1)
        x = tokens_of(output.last_hidden_state)
        held = self._held(inputs, x)
        if self.attention is not None:
            return self.attention(x[:, self.num_marks :], held[:, self.num_marks :])
        return pool(self.pooling, x, held, self.num_marks)

    def _held(self, inputs: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Which tokens of `x` `(n, T, W)` are of the sample, `(n, T)`."""
        for name in ("pixel_attention_mask", "attention_mask"):
            if name in inputs and inputs[name].shape == x.shape[:2]:
                return inputs[name] != 0
        return torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)

    def save_files(self, folder: Path) -> None:
        """The configuration, the processor, and where the model came from."""
        save_code(self.kind, self.config, folder)
        self.config.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        record = {
            "model": self.origin.model,
            "revision": self.origin.revision,
            "pooling": self.pooling,
        }
        (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", "utf-8")

    @classmethod
    def from_files(cls, folder: Path, **options: Any) -> Self:
        """Rebuilds it from `save_files`, with fresh weights."""
        record = json.loads((folder / RECORD).read_text("utf-8"))
        given = inspect.signature(cls).parameters
        options = {name: p.default for name, p in given.items()} | options
        trusted = options["trust_remote_code"]
        config, here = read_config(Origin(str(folder), None, trusted))
        part = find_part(here, config, cls.modality, record["pooling"])
        processor = read_processor(here, cls._processors(config), f"the {cls.preparation}")
        encoder = cls.__new__(cls)
        nn.Module.__init__(encoder)
        encoder.options = {k: v for k, v in options.items() if k not in ORIGIN}
        whole = read_whole(here, config, part.keep, part.without, fresh=True)
        origin = Origin(record["model"], record["revision"], trusted)
        encoder._take(origin, part, processor, whole)
        return encoder


def stack(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks inputs of a model; those of other sizes are padded, and their sizes go along."""
    batch: dict[str, Tensor] = {}
    for name in inputs[0]:
        values = [given[name] for given in inputs]
        sizes = torch.tensor([value.shape for value in values])
        largest = sizes.amax(0) if sizes.numel() else sizes
        if not bool((sizes == largest).all()):
            batch[name + SIZES] = sizes
            values = [_padded(value, largest.tolist()) for value in values]
        batch[name] = torch.stack(values)
    return batch


def _padded(value: Tensor, sizes: Sequence[int]) -> Tensor:
    rest = [most - size for size, most in zip(value.shape, sizes, strict=True)]
    return pad(value, [n for left in reversed(rest) for n in (0, left)])


def _of_one_size(batch: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Rows of what `stack` gave, whose sizes are equal, without padding."""
    found: dict[str, Tensor] = {}
    for name in batch:
        if name.endswith(SIZES):
            continue
        found[name] = batch[name][rows]
        if name + SIZES in batch:
            sizes: list[int] = batch[name + SIZES][rows[0]].tolist()
            found[name] = found[name][(slice(None), *map(slice, sizes))]
    return found


def first(given: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a processor gave for one sample, without the axis of samples."""
    named = {INPUT_MASK if name == "attention_mask" else name: x for name, x in given.items()}
    return {name: torch.as_tensor(x)[0] for name, x in named.items()}


def settings_hash(processor: Any) -> str:
    """Identifies a processor by its settings."""
    settings = json.dumps(processor.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(settings.encode()).hexdigest()[:16]
