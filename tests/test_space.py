"""The shared space: vectors are a function of the item, whatever stands beside it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from omnialign.building import build
from omnialign.errors import ModalityError, ModelError, OmniAlignError, ReadError, RecipeError
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")

SIGNALS = [torch.linspace(-1, k, 3 + 4 * k) for k in range(7)]


def make(seed: int = 0, **signal_tower: Any) -> SharedSpace:
    table = toy.recipe()
    table["towers"] = {"toy_signal": signal_tower}
    torch.manual_seed(seed)
    return build(parse_recipe(table))


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=0, atol=1e-6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, signal in enumerate(SIGNALS):
        toy.write_signal(tmp_path / f"{i}.toy", signal)
    return tmp_path


class TestEmbed:
    def test_unit_float32_vectors_on_the_cpu_that_can_be_trained_on(self) -> None:
        vectors = make().embed(SIGNALS, "toy_signal")
        assert vectors.shape == (7, 16)
        assert vectors.dtype == torch.float32
        assert not vectors.is_inference()
        assert not vectors.requires_grad
        close(vectors.norm(dim=1), torch.ones(7))

    def test_nothing_gives_nothing(self) -> None:
        assert make().embed([]).shape == (0, 16)

    @pytest.mark.parametrize("tower", [{}, {"encoder": {"name": "mlp", "window_seconds": 5.0}}])
    @pytest.mark.parametrize("batch_size", [1, 2, 64])
    def test_alone_or_in_any_batch(self, tower: dict[str, Any], batch_size: int) -> None:
        space = make(**tower)
        together = space.embed(SIGNALS, "toy_signal", batch_size=batch_size)
        alone = torch.cat([space.embed([signal], "toy_signal") for signal in SIGNALS])
        close(together, alone)
        close(together.flip(0), space.embed(SIGNALS[::-1], "toy_signal"))
        words = ["one", "a much longer caption of a signal", ""]
        alone = torch.cat([space.embed(w) for w in words])
        close(space.embed(words, batch_size=batch_size), alone)

    def test_mixed_modalities_keep_their_order(self, folder: Path) -> None:
        space = make()
        path = folder / "3.toy"
        mixed = ["a rising signal", path, str(folder / "1.toy"), "flat", path.read_bytes()]
        vectors = space.embed(mixed, batch_size=1)
        for i, item in enumerate(mixed):
            close(vectors[i : i + 1], space.embed([item]))
        close(vectors[1], vectors[4])

    @pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "tensor", "bytearray"])
    def test_one_item_alone(self, folder: Path, kind: str) -> None:
        path = folder / "2.toy"
        forms: dict[str, Callable[[], Any]] = {
            "str": lambda: str(path),
            "path": lambda: path,
            "bytes": path.read_bytes,
            "bytearray": lambda: bytes(path.read_bytes()),
            "file": lambda: io.BytesIO(path.read_bytes()),
            "tensor": lambda: SIGNALS[2],
        }
        vectors = make().embed(forms[kind](), "toy_signal")
        close(vectors, make().embed([path]))

    def test_modality_by_name(self) -> None:
        space = make()
        with pytest.raises(
            ModalityError, match=r"no modality 'smell'; it has: toy_signal, toy_wor"
        ):
            space.embed(["x"], "smell")
        with pytest.raises(ModalityError, match=r"no modality claims a torch.Tensor of shape"):
            space.embed([torch.zeros(3)])

    def test_what_cannot_be_read_raises(self, tmp_path: Path) -> None:
        (tmp_path / "bad.toy").write_text("words")
        with pytest.raises(ReadError, match=r"bad\.toy"):
            make().embed([tmp_path / "bad.toy"])

    def test_progress(self) -> None:
        seen: list[tuple[int, int]] = []
        make().embed(
            SIGNALS, "toy_signal", batch_size=3, progress=lambda done, n: seen.append((done, n))
        )
        assert seen == [(3, 7), (6, 7), (7, 7)]

    def test_it_evaluates_and_returns_to_the_mode_before(self) -> None:
        space = make(encoder={"name": "mlp", "dropout": 0.5})
        space.train()
        first = space.embed(SIGNALS, "toy_signal")
        assert space.training
        assert first.equal(space.embed(SIGNALS, "toy_signal"))
        space.eval()
        space.embed(SIGNALS, "toy_signal")
        assert not space.training


class TestLongInput:
    def long(self, policy: str, window_seconds: float | None = 4.0) -> SharedSpace:
        window = {} if window_seconds is None else {"window_seconds": window_seconds}
        return make(encoder={"name": "mlp", **window}, long_input=policy)

    signal = torch.linspace(-1, 1, 10).square()

    def test_windows_are_averaged(self) -> None:
        space = self.long("windows")
        pieces = space.embed([self.signal[i : i + 4] for i in (0, 4, 8)], "toy_signal")
        mean = torch.nn.functional.normalize(pieces.sum(0), dim=0)
        close(space.embed([self.signal], "toy_signal")[0], mean)

    def test_truncate_keeps_the_first(self) -> None:
        space = self.long("truncate")
        first, whole = space.embed([self.signal[:4], self.signal], "toy_signal")
        close(first, whole)

    def test_native_takes_the_whole(self) -> None:
        native, windows = self.long("native", None), self.long("windows")
        vector = native.embed([self.signal], "toy_signal")
        close(vector, self.long("windows", 100.0).embed([self.signal], "toy_signal"))
        assert not torch.allclose(vector, windows.embed([self.signal], "toy_signal"), atol=1e-3)

    def test_native_refuses_an_encoder_with_a_window(self) -> None:
        with pytest.raises(RecipeError, match="choose 'windows' or 'truncate'"):
            self.long("native")


class TestQueries:
    def test_similarity_is_the_cosine(self, folder: Path) -> None:
        space = make()
        x, y = space.embed([folder / "0.toy", "rising"])
        assert space.similarity(folder / "0.toy", "rising") == pytest.approx(float(x @ y), abs=1e-6)
        assert space.similarity("rising", "rising") == pytest.approx(1, abs=1e-6)
        same = space.similarity(
            SIGNALS[0], SIGNALS[0], x_modality="toy_signal", y_modality="toy_signal"
        )
        assert same == pytest.approx(1, abs=1e-6)

    def test_classify(self, folder: Path) -> None:
        space = make()
        labels = ["rising", "falling", "flat"]
        chances = space.classify(folder / "3.toy", labels)
        assert sum(chances.values()) == pytest.approx(1)
        assert list(chances.values()) == sorted(chances.values(), reverse=True)
        assert set(chances) == set(labels)
        cosines = {label: space.similarity(folder / "3.toy", label) for label in labels}
        assert list(chances) == sorted(labels, key=lambda label: -cosines[label])
        scale = space.logit_scale("toy_signal", "toy_words").item()
        first, second = list(chances)[:2]
        odds = torch.tensor(scale * (cosines[first] - cosines[second])).exp().item()
        assert chances[first] / chances[second] == pytest.approx(odds, rel=1e-3)
        with pytest.raises(OmniAlignError, match="two or more different labels"):
            space.classify(folder / "3.toy", [])

    def test_labels_that_are_independent(self, folder: Path) -> None:
        table = toy.recipe()
        table["pairs"][0]["loss"] = "sigmoid"
        space, item = build(parse_recipe(table)), folder / "3.toy"
        with torch.no_grad():
            space.logit_biases["toy_signal-toy_words"].fill_(-2)
        chances = space.classify(item, ["rising", "falling"], independent=True)
        scale = space.logit_scale("toy_signal", "toy_words").item()
        for label, chance in chances.items():
            logit = scale * space.similarity(item, label) - 2
            assert chance == pytest.approx(torch.tensor(logit).sigmoid().item(), abs=1e-5)
        with pytest.raises(OmniAlignError, match="toy_signal and toy_words have no bias"):
            make().classify(item, ["rising", "falling"], independent=True)

    def test_prompts_are_averaged(self) -> None:
        space = make()
        templates = ["a {}", "the {} signal"]
        prompts = space.embed(["a flat", "the flat signal"])
        expected = torch.nn.functional.normalize(prompts.mean(0), dim=0)
        close(space.embed_prompts(["flat", "high"], templates)[0], expected)

    def test_labels_have_descriptions_and_synonyms(self, folder: Path) -> None:
        space = make()
        item, words = folder / "3.toy", {"up": ["rising", "a rise"], "down": "falling"}
        templates = ["a {}", "{}!"]
        chances = space.classify(item, words, templates=templates)
        assert set(chances) == {"up", "down"}
        prompts = space.embed(["a rising", "rising!", "a a rise", "a rise!"])
        up = torch.nn.functional.normalize(prompts.mean(0), dim=0)
        close(space.embed_prompts([["rising", "a rise"], "falling"], templates)[0], up)
        plain = space.classify(item, ["rising", "falling"], templates=templates)
        renamed = space.classify(item, {"up": "rising", "down": ["falling"]}, templates=templates)
        assert list(renamed.values()) == list(plain.values()) != list(chances.values())
        with pytest.raises(OmniAlignError, match="label 'down' wants a description"):
            space.classify(item, {"up": "rising", "down": []})

    def test_rank_over_a_folder_with_odd_files(self, folder: Path) -> None:
        (folder / "bad.toy").write_text("these are words")
        (folder / "notes.xyz").write_text("no modality")
        (folder / ".hidden.toy").write_text("x")
        (folder / "below").mkdir()
        toy.write_signal(folder / "below" / "deep.toy", [1, 2, 3])
        space = make()
        hits = space.rank("a rising signal", folder)
        assert len(hits) == 8
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        for hit in hits:
            assert hit.modality == "toy_signal"
            assert space.similarity(hit.item, "a rising signal") == pytest.approx(
                hit.score, abs=1e-6
            )
        assert {hit.item.name for hit in hits} >= {"deep.toy", "0.toy"}

    def test_rank_over_a_list(self, folder: Path) -> None:
        gallery = ["flat", folder / "1.toy", "a rising signal"]
        hits = make().rank("a rising signal", gallery)
        assert (hits[0].item, hits[0].index) == ("a rising signal", 2)
        assert hits[0].score == pytest.approx(1, abs=1e-6)
        only = make().rank("a rising signal", gallery, gallery_modality="toy_signal")
        assert [hit.item for hit in only] == [folder / "1.toy"]

    def test_words_need_a_modality_that_takes_them(self) -> None:
        assert make().words == "toy_words"
        table = toy.recipe()
        table["pairs"] = [{"modalities": ["toy_signal", "toy_echo"], "train": "rows"}]
        with pytest.raises(ModalityError, match="takes words; it has: toy_signal, toy_echo"):
            build(parse_recipe(table)).words  # noqa: B018


class TestFingerprint:
    def test_it_is_equal_for_equal_embeddings(self) -> None:
        assert make().fingerprint() == make().fingerprint()
        space = make()
        before = space.fingerprint()
        space.train()
        space.embed(SIGNALS, "toy_signal")
        assert space.fingerprint() == before

    def test_it_changes_with_weights(self) -> None:
        space = make()
        before = space.fingerprint(), space.preprocessing_fingerprint()
        with torch.no_grad():
            space.tower("toy_signal").encoder.layers[0].bias[0] += 1e-6  # type: ignore[index]
        assert space.fingerprint() != before[0]
        assert space.preprocessing_fingerprint() == before[1]
        assert make(seed=1).fingerprint() != make().fingerprint()

    def test_it_changes_with_preprocessing_and_policy(self) -> None:
        kept = make(encoder={"name": "mlp", "window_seconds": 4.0})
        other_policy = make(encoder={"name": "mlp", "window_seconds": 4.0}, long_input="truncate")
        other_window = make(encoder={"name": "mlp", "window_seconds": 5.0})
        spaces = [kept, other_policy, other_window]
        assert len({space.preprocessing_fingerprint() for space in spaces}) == 3
        assert len({space.fingerprint() for space in spaces}) == 3
        kept.tower("toy_signal").encoder.preprocess = toy.Resample(11)
        assert (
            kept.fingerprint() != make(encoder={"name": "mlp", "window_seconds": 4.0}).fingerprint()
        )


class TestTruncation:
    @pytest.fixture
    def space(self) -> SharedSpace:
        table = toy.recipe()
        table["space"]["matryoshka"] = [4, 8]
        table["towers"] = {"toy_signal": {"encoder": {"name": "mlp", "window_seconds": 5.0}}}
        return build(parse_recipe(table))

    def test_an_embedding_is_the_prefix_of_the_whole_one(self, space: SharedSpace) -> None:
        """Also where it is the mean over windows: what is stored can be cut later."""
        whole = space.embed(SIGNALS, "toy_signal")
        space.truncate(4)
        assert space.dim == 4
        close(space.embed(SIGNALS, "toy_signal"), normalize(whole[:, :4], dim=1))
        assert space.embed_prompts(["up", "down"], ["{}", "a {}"]).shape == (2, 4)
        assert len(space.classify(SIGNALS[1], ["up", "down"], modality="toy_signal")) == 2
        space.truncate(16)
        assert space.embed(SIGNALS, "toy_signal").equal(whole)

    def test_every_size_has_its_own_fingerprint(self, space: SharedSpace) -> None:
        found: set[str] = set()
        for dim in (4, 8, 16):
            space.truncate(dim)
            found.add(space.fingerprint())
        assert len(found) == 3

    @pytest.mark.parametrize("dim", [5, 17, 0, -4])
    def test_only_to_what_was_trained(self, space: SharedSpace, dim: int) -> None:
        with pytest.raises(ModelError, match=rf"to {dim} dimensions; .* for: 4, 8, 16; for others"):
            space.truncate(dim)
        with pytest.raises(ModelError, match=r"trained for: 16; for others train with space\.matr"):
            make().truncate(4)
