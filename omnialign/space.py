"""The shared space: towers that bring modalities onto one unit sphere.

Axes: n items, w width of features, D dim.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from omnialign.contract import Claim, Modality
from omnialign.errors import ModalityError, ModelError, OmniAlignError
from omnialign.gallery import Gallery, Hit
from omnialign.held_out import HeldOut
from omnialign.prompts import Description, Labels, described, filled
from omnialign.registry import registry
from omnialign.segments import (
    EmbeddedSegment,
    check_batch_size,
    embed_each,
    embed_means,
    evaluating,
)
from omnialign.temperature import LogitBiases, LogScales
from omnialign.tower import Tower, digest_of_weights, prefix

Items = Sequence[Any]
Progress = Callable[[int, int], None]


def words_among(modalities: Mapping[str, Modality[Any]]) -> str:
    """The name of the one that takes plain words; raises `ModalityError` where there is none."""
    for name, modality in modalities.items():
        if modality.inline_strings and modality.claim("a few plain words") != Claim.NO:
            return name
    raise ModalityError(
        f"this model has no modality that takes words; it has: {', '.join(modalities)}"
    )


class SharedSpace(nn.Module):
    """One embedding space for several modalities.

    Args:
        towers: by modality.
        dim: dimensions of what the towers give.
        pairs: the pairs of modalities that are (to be) aligned, with the initial temperature.
        shared_temperature: whether all pairs have one temperature, or one each.
        matryoshka: the sizes besides `dim` whose prefixes are trained.
        biased_pairs: those of the pairs whose logits have a bias, as the sigmoid loss learns it.
    """

    def __init__(
        self,
        towers: Mapping[str, Tower],
        dim: int,
        pairs: Mapping[tuple[str, str], float],
        *,
        shared_temperature: bool = False,
        matryoshka: Sequence[int] = (),
        biased_pairs: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(towers)
        self.dim = self.trained_dim = dim
        self.pairs = list(pairs)
        self.matryoshka = list(matryoshka)
        self.biased_pairs = list(dict.fromkeys(biased_pairs))
        self.log_scales = LogScales(pairs, shared_temperature)
        self.logit_biases = LogitBiases(biased_pairs)
        self.held_out: HeldOut | None = None
        """What the run kept of its test rows, in `trained_dim` dimensions."""

    @property
    def modalities(self) -> list[str]:
        return list(self.towers)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def tower(self, modality: str) -> Tower:
        """The tower of a modality; raises `ModalityError` that lists what the model has."""
        if modality not in self.towers:
            raise ModalityError(
                f"this model has no modality '{modality}'; it has: {', '.join(self.modalities)}"
            )
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    def truncate(self, dim: int) -> None:
        """From now on an embedding is the first `dim` numbers, brought back to length one.

        Raises `ModelError` for a size whose prefixes were not trained.
        """
        sizes = [*self.matryoshka, self.trained_dim]
        if dim not in sizes:
            raise ModelError(
                f"this model's embeddings cannot be cut to {dim} dimensions; it was trained for: "
                f"{', '.join(map(str, sizes))}; for others train with space.matryoshka"
            )
        self.dim = dim

    def logit_scale(self, x: str, y: str) -> Tensor:
        """The inverse temperature of a pair; of one never trained, the mean over those trained."""
        return self.log_scales.of(x, y).exp()

    def logit_bias(self, x: str, y: str) -> Tensor | None:
        """What a pair's sigmoid loss adds to logits; None of a pair without that loss."""
        return self.logit_biases.of(x, y)

    def embed(
        self,
        items: Items | str | Path,
        modality: str | None = None,
        *,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> Tensor:
        """Brings items into the space.

        Args:
            items: paths, strings, bytes, arrays or what else the plugins read; one alone is a
                list of one.
            modality: of all items; without it the plugins decide for each one.
            batch_size: encoder inputs in one forward.
            progress: called with the number of items done and of all items.

        Returns:
            float32 unit vectors `(n, D)` on the CPU, in the order of `items`.

        Raises:
            ReadError: an item cannot be read.
            ModalityError: its modality is unknown, undecided or not in this model.
        """
        decided = [self._decide(item, modality) for item in _as_list(items)]
        return self.embed_known(
            [value for _, value in decided],
            [name for name, _ in decided],
            batch_size=batch_size,
            progress=progress,
        )

    def _decide(self, item: Any, modality: str | None) -> tuple[str, Any]:
        if modality is None:
            return registry().decide(item, self.modalities)
        self.tower(modality)
        return modality, item

    def embed_known(
        self,
        items: Sequence[Any],
        modalities: Sequence[str],
        *,
        batch_size: int = 64,
        progress: Progress | None = None,
        unreadable: dict[int, str] | None = None,
    ) -> Tensor:
        """As `embed`, for items whose modalities `(n,)` are given.

        With `unreadable`, an item that cannot be read stops nothing: its place and the reason are
        noted there, and its row of `(n, D)` is zero.
        """
        check_batch_size(batch_size)
        vectors = torch.zeros(len(items), self.dim)
        done = 0
        with evaluating(self):
            for name in dict.fromkeys(modalities):
                places = [i for i, m in enumerate(modalities) if m == name]
                for start in range(0, len(places), batch_size):
                    chunk = [(i, items[i]) for i in places[start : start + batch_size]]
                    found = embed_means(self.tower(name), chunk, batch_size, unreadable)
                    for place, vector in found.items():
                        vectors[place] = prefix(vector, self.dim)
                    done += len(chunk)
                    if progress:
                        progress(done, len(items))
        return vectors

    def embed_segments(
        self, item: Any, modality: str | None = None, *, batch_size: int = 64
    ) -> list[EmbeddedSegment]:
        """As `embed`, of one item: each window by itself, with its seconds, in order.

        Of a recording, however long it is, no more is held than `batch_size` windows.
        """
        check_batch_size(batch_size)
        name, readable = self._decide(item, modality)
        with evaluating(self):
            found = embed_each(self.tower(name), [(0, readable)], batch_size)
            return [each._replace(vector=prefix(each.vector, self.dim)) for _, each in found]

    def similarity(
        self, x: Any, y: Any, *, x_modality: str | None = None, y_modality: str | None = None
    ) -> float:
        """The cosine between two items, from -1 to 1."""
        return float((self.embed([x], x_modality) @ self.embed([y], y_modality).T).item())

    def classify(
        self,
        item: Any,
        labels: Labels,
        *,
        modality: str | None = None,
        templates: Sequence[str] = ("{}",),
        independent: bool = False,
    ) -> dict[str, float]:
        """Probabilities of labels in words, best first.

        Args:
            item: what to classify.
            labels: descriptions, or a table from label to one description or several; all of them,
                in every template, are averaged.
            modality: of the item; decided by the plugins if None.
            templates: prompts with `{}`.
            independent: each label yes or no by itself, where otherwise one of them is right; for
                pairs trained with the sigmoid loss.
        """
        descriptions = described(labels)
        name, readable = self._decide(item, modality)
        bias = self.logit_bias(name, self.words)
        if independent and bias is None:
            raise OmniAlignError(
                f"classify: {name} and {self.words} have no bias, so labels are not independent; "
                "leave `independent` out, or train the pair with loss = 'sigmoid'"
            )
        prompts = self.embed_prompts([*descriptions.values()], templates)
        logits = self.logit_scale(name, self.words).detach().cpu() * (
            self.embed_known([readable], [name]) @ prompts.T
        )
        if independent and bias is not None:
            chances = (logits + bias.detach().cpu()).sigmoid()[0]
        else:
            chances = logits.softmax(-1)[0]
        order: list[int] = chances.argsort(descending=True).tolist()
        names = list(descriptions)
        return {names[i]: float(chances[i]) for i in order}

    @property
    def words(self) -> str:
        """The modality that plain words belong to; raises `ModalityError` where there is none."""
        return words_among({name: self.tower(name).modality for name in self.modalities})

    def embed_prompts(
        self, descriptions: Sequence[Description], templates: Sequence[str]
    ) -> Tensor:
        """One unit vector a label, `(n, D)`: the mean over its prompts."""
        prompts = [filled(templates, description) for description in descriptions]
        vectors = self.embed([prompt for own in prompts for prompt in own], self.words)
        means = [own.mean(0) for own in vectors.split([len(own) for own in prompts])]
        return nn.functional.normalize(torch.stack(means), dim=-1)

    def rank(
        self,
        query: Any,
        gallery: Items | str | Path,
        *,
        modality: str | None = None,
        gallery_modality: str | None = None,
        progress: Progress | None = None,
    ) -> list[Hit]:
        """Items of a gallery, best first.

        Args:
            query: words, or an item of any modality.
            gallery: items, or a folder whose files are searched recursively; files of modalities
                that this model lacks are passed over.
            modality: of the query; decided by the plugins if None.
            gallery_modality: only this modality of the gallery.
            progress: as for `embed`.
        """
        found = Gallery.gather(gallery, self.modalities, gallery_modality)
        return self.search(query, found, modality=modality, progress=progress)[0]

    def search(
        self,
        query: Any,
        gallery: Gallery,
        *,
        modality: str | None = None,
        progress: Progress | None = None,
    ) -> tuple[list[Hit], Gallery]:
        """Hits, best first, and the gallery with unreadable items moved to `skipped`."""
        wanted = self.embed([query], modality)[0]
        readable, vectors = self.embed_gallery(gallery, progress)
        scores = (vectors @ wanted).tolist()
        order = sorted(range(len(scores)), key=lambda i: -scores[i])
        hits = [Hit(i, readable.items[i], readable.modalities[i], scores[i]) for i in order]
        return hits, readable

    def embed_gallery(
        self, gallery: Gallery, progress: Progress | None = None
    ) -> tuple[Gallery, Tensor]:
        """What can be read of a gallery, and its vectors `(n, D)`."""
        unreadable: dict[int, str] = {}
        vectors = self.embed_known(
            gallery.items, gallery.modalities, progress=progress, unreadable=unreadable
        )
        keep = [i for i in range(len(gallery.items)) if i not in unreadable]
        return gallery.without(unreadable), vectors[keep]

    def preprocessing_fingerprint(self) -> str:
        """A hash of everything that turns an item into encoder inputs."""
        described = {
            name: [self.tower(name).stated_preprocess(), self.tower(name).encoder.window]
            for name in self.modalities
        }
        return _digest(json.dumps([described, self.config()], sort_keys=True).encode())

    def fingerprint(self) -> str:
        """A hash of weights, preprocessing and long-input policy: equal for equal embeddings."""
        return digest_of_weights(self, self.preprocessing_fingerprint())

    def config(self) -> dict[str, Any]:
        """What it takes to rebuild the space; what is as it was always is left out."""
        found: dict[str, Any] = {
            "dim": self.trained_dim,
            "pairs": [list(pair) for pair in self.pairs],
            "towers": {name: self.tower(name).config for name in self.modalities},
        }
        if self.log_scales.is_shared:
            found["shared_temperature"] = True
        if self.matryoshka:
            found["matryoshka"] = self.matryoshka
        if self.biased_pairs:
            found["biased_pairs"] = [list(pair) for pair in self.biased_pairs]
        if self.dim < self.trained_dim:
            found["truncated_to"] = self.dim
        return found

    def save(self, folder: str | Path) -> None:
        """Writes `config.json`, `model.safetensors` and the files of each encoder.

        Raises `ModelError` where the folder cannot be written.
        """
        from safetensors import SafetensorError

        from omnialign.model_folder import save

        try:
            save(self, folder)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"the model cannot be saved in '{folder}': {error}; choose a folder that can be "
                "written, with room on its disk"
            ) from error

    def push_to_hub(
        self, name: str, *, private: bool = False, run: str | Path | None = None
    ) -> str:
        """Pushes the model with its card to the Hugging Face hub; see `omnialign.sharing.push`."""
        from omnialign.sharing import push

        return push(self, name, private=private, run=run)


def _as_list(items: Items | str | Path) -> list[Any]:
    """One item alone is a list of one: only lists, tuples and the like hold several.

    A tuple of an array and a number is one item with its rate.
    """
    if isinstance(items, tuple) and len(items) == 2 and isinstance(items[1], int | float):
        return [items]
    if isinstance(items, Sequence) and not isinstance(items, str | bytes | bytearray | memoryview):
        return list(items)
    return [items]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
