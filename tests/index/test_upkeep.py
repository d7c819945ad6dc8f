"""A library and its model, and what keeps a library sound."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import omnialign as oa
from omnialign.errors import ModelError, OmniAlignError
from omnialign.index import Index
from omnialign.testing import toy
from tests.index.conftest import save_model, table


class TestModel:
    def test_another_model_is_refused_with_both_fingerprints(
        self, index: Index, tmp_path: Path
    ) -> None:
        other = save_model(tmp_path / "other", seed=1)
        mine = index.model.record.towers["toy_words"]
        theirs = oa.load(other).tower("toy_words").fingerprint()
        with pytest.raises(ModelError, match=f"{theirs}.*{mine}"):
            Index.open(index.uri, model=other).search("a")

    def test_another_preprocessing_is_refused(self, index: Index, tmp_path: Path) -> None:
        other = save_model(tmp_path / "other", policy="truncate")
        with pytest.raises(ModelError, match="toy_signal tower has the fingerprint"):
            Index.open(index.uri, model=other).search(torch.ones(3), query_modality="toy_signal")

    def test_a_model_that_was_moved(self, index: Index, model: Path, tmp_path: Path) -> None:
        shutil.move(model, tmp_path / "elsewhere")
        with pytest.raises(ModelError, match="no model folder"):
            Index.open(index.uri).search("a")
        assert Index.open(index.uri, model=tmp_path / "elsewhere").search("a")

    def test_rebuild_embeds_everything_again(self, index: Index, tmp_path: Path) -> None:
        other = save_model(tmp_path / "other", seed=1)
        before = table(index)
        report = index.rebuild(other)
        assert report.added == 8
        assert len(index) == 10
        after = table(Index.open(index.uri))
        assert after.keys() == before.keys()
        assert not np.allclose(after[min(after)], before[min(before)])
        assert Index.open(index.uri).model.record.source == str(other)
        assert len(list(Path(index.uri).glob("rows_*.lance"))) == 1

    def test_a_rebuild_goes_on_where_it_was(
        self, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from omnialign.index import adding

        other = save_model(tmp_path / "other", seed=1)
        real = adding.embed_files

        def stopped(space: Any, files: Any, **options: Any) -> Any:
            for n, done in enumerate(real(space, files, **options)):
                if n == 3:
                    raise KeyboardInterrupt
                yield done

        monkeypatch.setattr(adding, "embed_files", stopped)
        with pytest.raises(KeyboardInterrupt):
            index.rebuild(other)
        monkeypatch.setattr(adding, "embed_files", real)
        again = Index.open(index.uri)
        assert len(again.search("a", 20)) == 8
        report = again.rebuild(other)
        assert (report.unchanged, report.added) == (3, 5)

    def test_a_rebuild_loses_nothing_unless_it_is_told_to(
        self, index: Index, signals: Path, tmp_path: Path
    ) -> None:
        other = save_model(tmp_path / "other", seed=1)
        (signals / "0.toy").rename(tmp_path / "away.toy")
        before = table(index).keys()
        with pytest.raises(OmniAlignError, match=r"1 files .* cannot .*0\.toy: it is g"):
            index.rebuild(other)
        assert table(Index.open(index.uri)).keys() == before
        assert index.rebuild(other, prune=True).unchanged == 7
        assert len(index) == 7

    def test_a_rebuild_that_was_cut_after_its_switch_can_be_called_again(
        self, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from omnialign.index import index as module

        other = save_model(tmp_path / "other", seed=1)
        monkeypatch.setattr(module, "drop_others", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            index.rebuild(other)
        monkeypatch.undo()
        again = Index.open(index.uri)
        assert len(again) == 10
        again.rebuild(other)
        assert len(Index.open(index.uri)) == 10
        assert len(list(Path(index.uri).glob("rows_*.lance"))) == 1

    def test_who_has_it_open_while_it_is_rebuilt_is_told(
        self, index: Index, tmp_path: Path
    ) -> None:
        reader = Index.open(index.uri)
        reader.search("a")
        index.rebuild(save_model(tmp_path / "other", seed=1))
        with pytest.raises(OmniAlignError, match="was made anew since it was opened"):
            reader.search("a")

    def test_files_removed_before_a_rebuild_goes_on_stay_out(
        self, index: Index, signals: Path, tmp_path: Path
    ) -> None:
        other = save_model(tmp_path / "other", seed=1)
        (signals / "0.toy").rename(tmp_path / "away.toy")
        with pytest.raises(OmniAlignError):
            index.rebuild(other)
        index.remove(paths=[signals / "0.toy", signals / "1.toy"])
        index.rebuild(other)
        assert len(index) == 6


class TestUpkeep:
    def test_duplicates_exact_and_near(self, index: Index, signals: Path) -> None:
        assert index.duplicates(1.0) == []
        shutil.copy(signals / "5.toy", signals / "copy.toy")
        toy.write_signal(signals / "near.toy", torch.linspace(-1, 3.0001, 3))
        index.add(signals)
        near, exact = index.duplicates(0.99999)
        assert (exact.kind, paths_of(exact)) == ("exact", ["5.toy", "copy.toy"])
        assert (near.kind, paths_of(near)) == ("near", ["2.toy", "near.toy"])
        assert 0.99999 <= near.cosine <= 1
        with pytest.raises(OmniAlignError, match="threshold is 98"):
            index.duplicates(98)

    def test_groups_are_linked_over_blocks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from omnialign.index import upkeep

        monkeypatch.setattr(upkeep, "_BLOCK", 7)
        torch.manual_seed(0)
        angles = torch.cat([torch.linspace(0, 0.5, 20), torch.linspace(2, 3, 20)])
        order = torch.randperm(40)
        vectors = torch.stack([angles.cos(), angles.sin()], 1)[order]
        found = upkeep._near(vectors, float(np.cos(0.04)))
        assert [sorted(order[own].tolist()) for own, _ in found] == [list(range(20))]
        assert found[0][1] == pytest.approx(np.cos(0.5 / 19), abs=1e-6)
        ((everything, least),) = upkeep._near(vectors, -1.0)
        assert everything == list(range(40))
        assert least == pytest.approx(np.cos(3), abs=1e-6)

    def test_verify_is_content_with_a_sound_library(self, index: Index) -> None:
        found = index.verify()
        assert (found.rows, found.files, found.embedded_again) == (10, 8, 8)
        assert found.problems == []

    def test_verify_finds_what_is_wrong(self, index: Index, signals: Path) -> None:
        rows = index.rows.find("path", [str(signals / "1.toy")], ["id"]).to_pylist()
        index.rows._table.update(where=f"id = '{rows[0]['id']}'", values={"vector": [0.5] * 16})
        toy.write_signal(signals / "2.toy", torch.zeros(4))
        (signals / "3.toy").unlink()
        problems = "\n".join(index.verify().problems)
        assert "1.toy: the vector of" in problems
        assert "1.toy: embedded again" in problems
        assert "2.toy: has changed" in problems
        assert "3.toy: No such file" in problems

    def test_export_holds_everything(self, index: Index, tmp_path: Path) -> None:
        import pyarrow.parquet as pq

        assert index.export(tmp_path / "vectors.parquet") == 10
        exported = pq.read_table(tmp_path / "vectors.parquet")
        assert set(exported.column("id").to_pylist()) == set(table(index))
        with pytest.raises(OmniAlignError, match="cannot write"):
            index.export(tmp_path / "no" / "vectors.parquet")

    def test_remove_by_filter_takes_whole_files(self, index: Index) -> None:
        assert index.remove(where="start_seconds = 4") == 3
        assert len(index) == 7
        with pytest.raises(OmniAlignError, match="either where"):
            index.remove()

    def test_create_and_open_say_what_is_there(self, index: Index, tmp_path: Path) -> None:
        with pytest.raises(OmniAlignError, match="already holds a library"):
            Index.create(index.uri, tmp_path / "model")
        with pytest.raises(OmniAlignError, match="no library at"):
            Index.open(tmp_path / "nothing")


def paths_of(group: Any) -> list[str]:
    return sorted(Path(path).name for path in group.paths)


def test_in_16_bits_vectors_are_nearly_the_same(
    index: Index, model: Path, signals: Path, tmp_path: Path
) -> None:
    quick = Index.create(tmp_path / "quick", model, bf16=True)
    quick.add(signals)
    exact, found = table(index), table(Index.open(quick.uri))
    cosines = [float(exact[row_id] @ found[row_id]) for row_id in exact]
    assert 0.999 < min(cosines) < 1 - 1e-7
    assert quick.verify().problems == []
