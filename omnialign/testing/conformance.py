"""Checks that any modality plugin subclasses; each failure says what to do.

Axes: n samples, w width.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from omnialign.contract import Claim, Modality, Unread
from omnialign.encoder import Encoder
from omnialign.errors import ReadError
from omnialign.options import check_options
from omnialign.registry import imported

WINDOWS = (0.7, 3.0, 1e9)
"""Into which a file is cut, in the modality's own unit."""


def flatten(value: Any) -> list[Any]:
    """Leaves of a sample or batch, so that any two can be compared."""
    if isinstance(value, Mapping):
        return [leaf for key in sorted(value) for leaf in flatten(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in flatten(item)]
    if hasattr(value, "__dataclass_fields__"):
        return [
            leaf for name in value.__dataclass_fields__ for leaf in flatten(getattr(value, name))
        ]
    return [value]


def same(left: Any, right: Any) -> bool:
    """Whether two samples are equal, tensors and arrays by value."""
    pairs = list(zip(flatten(left), flatten(right), strict=False))
    return len(flatten(left)) == len(flatten(right)) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs
    )


def form(sample: Any) -> list[Any]:
    """What an augmentation must keep: types, dtypes and numbers of axes."""
    return [(type(x), getattr(x, "dtype", None), getattr(x, "ndim", None)) for x in flatten(sample)]


class ModalityConformance:
    """Subclass it, set `modality`, and pytest runs every check."""

    modality: ClassVar[Modality[Any]]
    encoder_options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Options by encoder that make it small and offline; an encoder that needs a checkpoint gets
    one made on the spot by `checkpoint_options`."""
    encoders: ClassVar[Mapping[str, Any] | None] = None
    """Those to test, where they are not the modality's own: what `omnialign_encoders` gives it."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Check name to the reason why it is switched off."""

    def files(self, folder: Path) -> Sequence[Path]:
        """Real files of this modality, written into `folder`; none where strings are the data."""
        del folder
        return []

    def checkpoint_options(self, encoder: str, folder: Path) -> Mapping[str, Any] | None:
        """Options of an encoder that starts from a checkpoint, which is made in `folder`."""
        del encoder, folder
        return None

    @pytest.fixture(autouse=True)
    def _exemptions(self, request: pytest.FixtureRequest) -> None:
        reason = self.exempt.get(request.node.name)
        assert reason != "", f"exempting {request.node.name} needs a reason"
        if reason:
            pytest.skip(reason)

    def _encoders(self, folder: Path) -> Iterator[tuple[str, Encoder, dict[str, Any]]]:
        tested = self.modality.encoders if self.encoders is None else self.encoders
        for name, target in tested.items():
            kind = imported(target)
            made = folder / name
            made.mkdir(exist_ok=True)
            given = self.checkpoint_options(name, made) or self.encoder_options.get(name, {})
            options = check_options(name, kind, given)
            torch.manual_seed(0)
            yield name, kind(**options), options

    def _segment(self, encoder: Encoder, sample: Any) -> Any:
        if encoder.window is None:
            return sample
        return self.modality.segments(sample, encoder.window)[0].sample

    def _inputs(self, encoder: Encoder, n: int) -> list[Any]:
        samples = self.modality.example_samples(n)
        return [encoder.preprocess(self._segment(encoder, sample)) for sample in samples]

    def test_documents_itself(self) -> None:
        modality = self.modality
        assert modality.name.islower(), "name: lower case, as users write it"
        assert modality.name.isidentifier(), "name: one word"
        assert type(modality).__doc__, "the class needs a docstring: units, axes, odd inputs"
        assert modality.default_encoder in modality.encoders
        assert all(s.startswith(".") and s == s.lower() for s in modality.suffixes)
        assert modality.templates, "templates: at least '{}'"
        assert all("{}" in t for t in modality.templates), "every template holds '{}'"

    def test_example_samples_are_deterministic_and_differ(self) -> None:
        first, second = self.modality.example_samples(3), self.modality.example_samples(3)
        assert len(first) == 3
        for a, b in zip(first, second, strict=True):
            assert same(a, b), "example_samples(n) must give the same samples at every call"
        assert not same(first[0], first[1]), "example samples must differ from each other"

    def test_samples_pickle(self) -> None:
        for sample in self.modality.example_samples(2):
            assert same(pickle.loads(pickle.dumps(sample)), sample)

    def test_preview(self) -> None:
        preview = self.modality.preview(self.modality.example_samples(1)[0])
        assert "/" in preview.mime, "preview.mime is a MIME type such as image/png"
        assert preview.data, "the preview is empty"
        interactive = self.modality.interactive_preview(self.modality.example_samples(1)[0])
        assert interactive is None or (interactive.data and "/" in interactive.mime)

    def test_segments_cover_in_order(self) -> None:
        sample = self.modality.example_samples(1)[0]
        segments = self.modality.segments(sample, 1e9)
        assert len(segments) == 1, "a window longer than the sample gives one segment"
        assert same(segments[0].sample, sample), "… which is the sample itself"

    def test_reads_its_files(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            sample = self.modality.read(path)
            assert path.suffix.lower() in self.modality.suffixes, f"{path.name}: not in suffixes"
            assert self.modality.claim(path) != Claim.NO, f"{path.name} is not claimed"
            assert same(sample, self.modality.read(path)), "two reads of one file differ"
            assert same(sample, self.modality.read(path.read_bytes())), f"{path.name}: bytes"
            with path.open("rb") as file:
                assert same(sample, self.modality.read(file)), f"{path.name}: open file"

    def test_opens_what_it_reads(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            sample, opened = self.modality.read(path), self.modality.open(path)
            if not isinstance(opened, Unread):
                assert same(sample, opened), f"{path.name}: open and read differ"
                fine = self.modality.open(path, 1e9)
                assert same(sample, fine), f"{path.name}: a high resolution must change nothing"
                continue
            assert opened.name == str(path), f"{path.name}: Unread.name is {opened.name}"
            assert same(sample, pickle.loads(pickle.dumps(opened)).read()), f"{path.name}: read"
            for window in WINDOWS:
                wanted = self.modality.segments(sample, window)
                found = opened.segments(window)
                times = [(s.start_seconds, s.end_seconds) for s in wanted]
                assert times == [(s.start_seconds, s.end_seconds) for s in found], (
                    f"{path.name}: Unread.segments({window}) cuts elsewhere than segments"
                )
                for cut, stretch in zip(wanted, found, strict=True):
                    assert same(cut.sample, stretch.sample.read()), (
                        f"{path.name}: the stretch from {cut.start_seconds} of windows of {window} "
                        "reads as other values than the whole has there"
                    )
            self._check_cuts(sample, opened)

    def test_reads_segments_one_by_one(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            sample = self.modality.read(path)
            for window in WINDOWS:
                wanted = self.modality.segments(sample, window)
                found = list(self.modality.read_segments(path, window))
                assert same(wanted, found), (
                    f"{path.name}: read_segments and segments of what read gives differ"
                )

    def _check_cuts(self, sample: Any, opened: Unread[Any]) -> None:
        for name, target in self.modality.augmentations.items():
            kind = imported(target)
            if getattr(kind, "cuts", False):
                augment = kind(**check_options(name, kind, {}))
                for seed in range(5):
                    whole, stretch = (
                        augment(given, torch.Generator().manual_seed(seed))
                        for given in (sample, opened)
                    )
                    assert isinstance(stretch, Unread), f"{name}: of an Unread it gives an Unread"
                    assert same(whole, stretch.read()), f"{name}: cuts an Unread elsewhere"

    def test_refuses_broken_files(self, tmp_path: Path) -> None:
        for path in self.files(tmp_path):
            data = path.read_bytes()
            broken = {"empty": b"", "words": b"these are only words\n" * 9, "head": data[:7]}
            for kind, content in broken.items():
                bad = tmp_path / f"{kind}{path.suffix}"
                bad.write_bytes(content)
                with pytest.raises(ReadError) as caught:
                    self.modality.read(bad)
                assert bad.name in str(caught.value), f"{kind}: the error must name the file"

    def test_missing_file(self, tmp_path: Path) -> None:
        if self.modality.suffixes:
            missing = tmp_path / f"missing{min(self.modality.suffixes)}"
            with pytest.raises(ReadError, match="missing"):
                self.modality.read(missing)

    def test_refuses_other_types(self) -> None:
        with pytest.raises(ReadError):
            self.modality.read(object())

    def test_augmentations_are_seeded_and_keep_the_form(self) -> None:
        sample = self.modality.example_samples(1)[0]
        for name, target in self.modality.augmentations.items():
            kind = imported(target)
            augment = kind(**check_options(name, kind, {}))
            pickle.loads(pickle.dumps(augment))
            state = torch.get_rng_state()
            results = [augment(sample, torch.Generator().manual_seed(s)) for s in (1, 1, *range(9))]
            assert torch.equal(state, torch.get_rng_state()), f"{name} uses global randomness"
            assert same(results[0], results[1]), f"{name}: one seed, two results"
            assert any(not same(results[0], r) for r in results[2:]), f"{name} changes nothing"
            assert form(results[0]) == form(sample), f"{name} changes the canonical form"
            assert same(sample, self.modality.example_samples(1)[0]), f"{name} works in place"

    def test_encoders_give_features_with_gradients(self, tmp_path: Path) -> None:
        for name, encoder, _ in self._encoders(tmp_path):
            features = encoder.train()(encoder.collate(self._inputs(encoder, 3)))
            assert features.shape == (3, encoder.width), f"{name}: wants (n, width)"
            assert features.isfinite().all(), f"{name}: non-finite features"
            features.float().square().sum().backward()
            without = [
                n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None
            ]
            assert not without, f"{name}: no gradient reaches {without}"

    @torch.no_grad()
    def test_features_are_a_function_of_the_sample(self, tmp_path: Path) -> None:
        for name, encoder, _ in self._encoders(tmp_path):
            encoder.eval()
            inputs = self._inputs(encoder, 3)
            batch = encoder(encoder.collate(inputs))
            again = encoder(encoder.collate(inputs))
            turned = encoder(encoder.collate(inputs[::-1])).flip(0)
            alone = torch.cat([encoder(encoder.collate([x])) for x in inputs])
            torch.testing.assert_close(batch, again, msg=f"{name}: not deterministic in eval mode")
            for other, what in ((turned, "order"), (alone, "batch-mates or padding")):
                torch.testing.assert_close(
                    batch, other, rtol=1e-4, atol=1e-5, msg=f"{name}: depends on {what}"
                )

    def test_padded_batches_are_what_their_mask_says(self, tmp_path: Path) -> None:
        for name, encoder, _ in self._encoders(tmp_path):
            batch = encoder.collate(self._inputs(encoder, 3))
            kinds = [
                k for k in ("mask", "attention_mask") if isinstance(batch, Mapping) and k in batch
            ]
            for kind in kinds:
                sizes = batch[kind].shape
                assert len(sizes) == 2, f"{name}: {kind} wants the sizes (n, L)"
                other = [k for k, t in batch.items() if t.shape[:2] != sizes[: t.ndim]]
                assert not other, (
                    f"{name}: a batch with a {kind} may be cut along its second axis, but {other} "
                    f"does not begin with the sizes (n, L) of the {kind}; give one of them "
                    "another name or other axes"
                )

    def test_preprocess_is_picklable_and_deterministic(self, tmp_path: Path) -> None:
        for name, encoder, _ in self._encoders(tmp_path):
            sample = self._segment(encoder, self.modality.example_samples(1)[0])
            copy = pickle.loads(pickle.dumps(encoder.preprocess))
            pickle.loads(pickle.dumps(encoder.collate))
            assert same(copy(sample), encoder.preprocess(sample)), f"{name}: preprocess varies"
            assert inspect.isfunction(encoder.preprocess) or " at 0x" not in repr(
                encoder.preprocess
            ), (
                f"{name}: repr(preprocess) must state its settings (use a frozen dataclass); it is "
                "part of the model's fingerprint"
            )

    @torch.no_grad()
    def test_rebuilds_from_options_and_files(self, tmp_path: Path) -> None:
        for name, encoder, options in self._encoders(tmp_path):
            folder = tmp_path / f"{name}-files"
            folder.mkdir()
            encoder.save_files(folder)
            rebuilt = type(encoder).from_files(folder, **options)
            rebuilt.load_state_dict(encoder.state_dict())
            inputs = self._inputs(encoder, 2)
            rebuilt_inputs = self._inputs(rebuilt, 2)
            torch.testing.assert_close(
                rebuilt.eval()(rebuilt.collate(rebuilt_inputs)),
                encoder.eval()(encoder.collate(inputs)),
                msg=f"{name}: rebuilt from its options and files it gives other features",
            )

    def test_a_step_lowers_a_loss(self, tmp_path: Path) -> None:
        for name, encoder, _ in self._encoders(tmp_path):
            encoder.eval()
            batch = encoder.collate(self._inputs(encoder, 4))
            optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3)
            target = torch.randn(4, encoder.width, generator=torch.Generator().manual_seed(0))
            losses: list[float] = []
            for _ in range(5):
                loss = (encoder(batch).float() - target).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            assert losses[-1] < losses[0], f"{name} does not learn: {losses}"
