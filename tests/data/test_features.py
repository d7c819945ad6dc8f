"""Features on disk: found by content, whole or not at all."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omnialign.data.features import (
    FeatureStore,
    clear_features,
    content_key,
    kept_features,
    sample_key,
)
from omnialign.testing import toy

ABOUT = {"modality": "toy_signal", "encoder": "mlp"}
A, B, C = (bytes([i]) * 16 for i in range(3))


def store(folder: Path) -> FeatureStore:
    return FeatureStore(folder, 3, ABOUT)


def features(number: float, num_segments: int = 1) -> Tensor:
    return number + torch.arange(3.0 * num_segments).view(num_segments, 3)


class TestContentKey:
    def key(self, item: Any) -> bytes | None:
        return content_key(toy.ToySignal(), item)

    def test_a_file_is_its_bytes_whatever_its_name_size_and_times(self, tmp_path: Path) -> None:
        path = toy.write_signal(tmp_path / "a.toy", [1, 2])
        key, times = self.key(path), path.stat()
        assert self.key(toy.write_signal(tmp_path / "b.toy", [1, 2])) == key
        toy.write_signal(path, [1, 3])
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert path.stat().st_size == times.st_size
        assert path.stat().st_mtime_ns == times.st_mtime_ns
        assert self.key(path) != key

    def test_a_suffix_may_choose_the_reader(self, tmp_path: Path) -> None:
        paths = [toy.write_signal(tmp_path / name, [1]) for name in ("a.toy", "a.echo")]
        assert self.key(paths[0]) != self.key(paths[1])

    def test_a_folder_is_all_that_is_in_it(self, tmp_path: Path) -> None:
        toy.write_signal(tmp_path / "a.toy", [1])
        key = self.key(tmp_path)
        (tmp_path / "b").mkdir()
        assert self.key(tmp_path) == key
        toy.write_signal(tmp_path / "b" / "c.toy", [1])
        assert self.key(tmp_path) != key

    def test_companions_count(self, tmp_path: Path) -> None:
        class WithNotes(toy.ToySignal):
            def companions(self, path: Path) -> list[Path]:
                return [path.with_suffix(".notes")]

        path = toy.write_signal(tmp_path / "a.toy", [1])
        notes = tmp_path / "a.notes"
        notes.write_text("one")
        key = content_key(WithNotes(), path)
        notes.write_text("two")
        assert content_key(WithNotes(), path) != key

    def test_words_and_bytes(self) -> None:
        assert len({self.key("a"), self.key("b"), self.key(b"a")}) == 3
        assert self.key("\ud800") == self.key("\ud800")
        assert self.key(b"a") == self.key(bytearray(b"a"))

    def test_of_other_forms_the_reader_knows_the_content(self) -> None:
        assert self.key([1.0, 2.0]) is None
        assert self.key(torch.ones(2)) is None


def test_samples_are_known_by_their_values() -> None:
    @dataclass
    class Sample:
        values: Tensor
        rate: int

    x = torch.arange(6.0)
    assert sample_key({"x": x[:3]}) == sample_key({"x": x[:3].clone()})
    assert sample_key({"x": x[:3]}) != sample_key({"x": x[1:4]})
    assert sample_key(x) != sample_key(x.int())
    assert sample_key(x) != sample_key(x.view(2, 3))
    assert sample_key(np.ones(3)) == sample_key(np.ones(3))
    assert sample_key(torch.ones(2, dtype=torch.bfloat16))
    assert sample_key((x, 5)) != sample_key((x, 6))


class TestStore:
    def test_what_is_added_is_found(self, tmp_path: Path) -> None:
        store(tmp_path).add({A: features(0), B: features(10, 2)})
        store(tmp_path).add({C: features(20)})
        stored, places = store(tmp_path).open()
        assert {key: number for key, (_, number) in places.items()} == {A: 1, B: 2, C: 1}
        first, _ = places[B]
        assert torch.equal(stored[first + 1], features(10, 2)[1])
        copy = pickle.loads(pickle.dumps(stored))
        assert torch.equal(copy[places[C][0]], features(20)[0])
        assert len(pickle.dumps(stored)) < 2000

    def test_an_empty_folder_and_nothing_to_add(self, tmp_path: Path) -> None:
        store(tmp_path / "new").add({})
        assert store(tmp_path / "new").open()[1] == {}
        assert not (tmp_path / "new").exists()

    def test_of_two_that_wrote_at_once_the_older_counts(self, tmp_path: Path) -> None:
        for number, when in ((1, 100), (2, 50), (3, 200)):
            before = set(tmp_path.glob("*.npy"))
            store(tmp_path).add({A: features(number)})
            (new,) = set(tmp_path.glob("*.npy")) - before
            os.utime(new, (when, when))
        stored, places = store(tmp_path).open()
        assert torch.equal(stored[places[A][0]], features(2)[0])

    @pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "words", "another width"])
    def test_a_damaged_chunk_is_deleted(self, tmp_path: Path, damage: str) -> None:
        store(tmp_path).add({A: features(0)})
        (chunk,) = tmp_path.glob("*.npy")
        store(tmp_path).add({B: features(1)})
        content = bytearray(chunk.read_bytes())
        if damage == "flipped":
            content[-3] ^= 1
        changed = {"cut": content[:-5], "empty": b"", "words": b"these are words\n" * 99}
        chunk.write_bytes(changed.get(damage, content))
        if damage == "another width":
            np.save(chunk, np.zeros(3))
        assert set(store(tmp_path).open()[1]) == {B}
        assert not chunk.exists()

    def test_a_half_written_chunk_is_not_there(self, tmp_path: Path) -> None:
        store(tmp_path).add({A: features(0)})
        (tmp_path / "123.partial").write_bytes(b"half")
        assert set(store(tmp_path).open()[1]) == {A}

    def test_where_the_disk_is_full_memory_holds_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        made = store(tmp_path)
        made.add({A: features(0)})
        with monkeypatch.context() as patch:
            patch.setattr(np, "save", full)
            made.add({B: features(10, 2)})
        assert made.problem is not None
        assert "No space left on device" in made.problem
        assert "OMNIALIGN_CACHE" in made.problem
        stored, places = made.open()
        assert set(places) == {A, B}
        assert torch.equal(stored[places[B][0] + 1], features(10, 2)[1])
        assert set(store(tmp_path).open()[1]) == {A}
        assert not list(tmp_path.glob("*.partial"))

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        made = store(tmp_path / "file" / "inner")
        made.add({A: features(0)})
        assert made.problem is not None
        assert set(made.open()[1]) == {A}


def test_what_is_kept_is_listed_and_cleared() -> None:
    folder = Path(os.environ["OMNIALIGN_CACHE"]) / "features"
    assert kept_features() == []
    assert clear_features() == 0
    store(folder / "one").add({A: features(0)})
    store(folder / "two").add({A: features(0, 500)})
    kept = kept_features()
    assert [k.folder.name for k in kept] == ["two", "one"]
    assert (kept[0].modality, kept[0].encoder) == ("toy_signal", "mlp")
    assert kept[0].num_bytes > 500 * 28
    assert clear_features() == sum(k.num_bytes for k in kept)
    assert kept_features() == []
