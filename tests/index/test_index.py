"""A library from its making to its removal: what is embedded, what is kept, what is found."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omnialign.errors import ModalityError, OmniAlignError
from omnialign.index import Index
from omnialign.index.rows import vectors_of
from omnialign.testing import toy
from tests.index.conftest import table


def paths(hits: Any) -> list[str]:
    return [Path(hit.path).name for hit in hits]


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are embedded, in order."""
    from omnialign.index import adding

    names: list[str] = []
    real = adding.embed_files

    def counted(space: Any, files: Any, **options: Any) -> Any:
        for done in real(space, files, **options):
            names.append(Path(done.key.path).name)
            yield done

    monkeypatch.setattr(adding, "embed_files", counted)
    return names


class TestAdd:
    def test_one_row_a_segment_with_its_seconds(self, index: Index, signals: Path) -> None:
        assert len(index) == 10
        assert index.modalities == {"toy_signal": 10}
        rows = index.rows.find(
            "path", [str(signals / "0.toy")], ["segment", "start_seconds", "end_seconds", "vector"]
        ).sort_by("segment")
        assert rows.column("start_seconds").to_pylist() == [0, 4, 8]
        assert rows.column("end_seconds").to_pylist() == [4, 8, 10]
        wanted = [segment.vector for segment in index.space.embed_segments(signals / "0.toy")]
        np.testing.assert_allclose(vectors_of(rows), torch.stack(wanted).numpy(), atol=1e-6)

    def test_again_nothing_is_embedded(
        self, index: Index, signals: Path, embedded: list[str]
    ) -> None:
        version = index.version
        report = Index.open(index.uri).add(signals)
        assert (report.unchanged, report.added, report.rows) == (8, 0, 0)
        assert embedded == []
        assert Index.open(index.uri).version == version

    def test_only_what_is_new_or_changed(
        self, index: Index, signals: Path, embedded: list[str]
    ) -> None:
        toy.write_signal(signals / "3.toy", torch.linspace(5, -5, 9))
        toy.write_signal(signals / "new.toy", torch.linspace(0, -5, 3))
        report = index.add(signals)
        assert (report.unchanged, report.added, report.changed) == (7, 1, 1)
        assert sorted(embedded) == ["3.toy", "new.toy"]
        assert len(index) == 10 - 1 + 3 + 1
        assert paths(index.search(signals / "3.toy", 1)) == ["3.toy"]

    def test_touched_but_not_changed(
        self, index: Index, signals: Path, embedded: list[str]
    ) -> None:
        before = table(index)
        os.utime(signals / "3.toy", (1, 1))
        report = index.add(signals)
        assert (report.unchanged, report.changed) == (7, 1)
        assert embedded == []
        assert table(index).keys() == before.keys()
        assert index.add(signals).unchanged == 8

    def test_a_file_that_moved_keeps_its_vectors(
        self, index: Index, signals: Path, embedded: list[str]
    ) -> None:
        before = sorted(map(tuple, table(index).values()))
        shutil.move(signals / "0.toy", signals / "moved.toy")
        report = index.add(signals)
        assert (report.moved, report.gone, embedded) == (1, [], [])
        assert sorted(map(tuple, table(index).values())) == before
        assert "0.toy" not in paths(index.search("a", 20))
        assert "moved.toy" in paths(index.search("a", 20))

    def test_a_copy_is_not_embedded_either(
        self, index: Index, signals: Path, embedded: list[str]
    ) -> None:
        shutil.copy(signals / "0.toy", signals / "copy.toy")
        index.add(signals)
        assert embedded == []
        assert {"0.toy", "copy.toy"} <= set(paths(index.search("a", 20)))

    def test_deleted_files_are_reported_and_leave_when_asked(
        self, index: Index, signals: Path
    ) -> None:
        (signals / "0.toy").unlink()
        assert index.add(signals).gone == [str(signals / "0.toy")]
        assert len(index) == 10
        index.add(signals, prune=True)
        assert len(index) == 7
        assert index.add(signals).gone == []

    def test_files_elsewhere_are_not_gone(self, index: Index, signals: Path) -> None:
        (signals / "0.toy").unlink()
        assert index.add(signals / "1.toy").gone == []
        assert index.add(str(signals / "*.toy")).gone == [str(signals / "0.toy")]

    def test_unreadable_files_are_set_aside_and_listed(self, index: Index, signals: Path) -> None:
        (signals / "bad.toy").write_bytes(b"no signal")
        report = index.add(signals)
        assert list(report.set_aside) == [str(signals / "bad.toy")]
        listed = Index.open(index.uri).set_aside
        assert list(listed) == [str(signals / "bad.toy")]
        assert "begins with 'toy-signal'" in listed[str(signals / "bad.toy")]
        toy.write_signal(signals / "bad.toy", torch.ones(3))
        assert index.add(signals).added == 1
        assert Index.open(index.uri).set_aside == {}

    def test_a_file_that_became_unreadable_is_not_found_any_more(
        self, index: Index, signals: Path
    ) -> None:
        (signals / "0.toy").write_bytes(b"no signal")
        index.add(signals)
        assert "0.toy" not in paths(index.search("a", 20))

    def test_of_an_interrupted_add_at_most_a_batch_is_lost(
        self,
        model: Path,
        signals: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        embedded: list[str],
    ) -> None:
        from omnialign.index import adding

        monkeypatch.setattr(adding, "_ROWS_AT_ONCE", 2)
        whole = adding.embed_files

        def interrupted(space: Any, files: Any, **options: Any) -> Any:
            for n, done in enumerate(whole(space, files, **options)):
                if n == 5:
                    raise KeyboardInterrupt
                yield done

        monkeypatch.setattr(adding, "embed_files", interrupted)
        index = Index.create(tmp_path / "library", model)
        with pytest.raises(KeyboardInterrupt):
            index.add(signals)
        monkeypatch.setattr(adding, "embed_files", whole)
        embedded.clear()
        index = Index.open(tmp_path / "library")
        assert len(index) == 7
        report = index.add(signals)
        assert (report.unchanged, report.added) == (5, 3)
        assert embedded == ["5.toy", "6.toy", "7.toy"]
        assert len(index) == 10

    def test_metadata_lies_beside_the_files(self, index: Index, signals: Path) -> None:
        rows = [{"file_name": f"{i}.toy", "label": "up", "year": 2000 + i} for i in range(8)]
        manifest = signals / "metadata.jsonl"
        manifest.write_text("\n".join(map(json.dumps, rows)))
        report = index.add(signals)
        assert report.changed == 8
        assert index.columns["label"] == "string"
        assert index.columns["year"] == "number"
        assert index.search("a", 1)[0].metadata["label"] == "up"
        rows[2]["label"] = "down"
        manifest.write_text("\n".join(map(json.dumps, rows)))
        assert index.add(signals).changed == 1
        assert paths(index.search("a", 9, where="label = 'down'")) == ["2.toy"]
        assert len(index.search("a", 9, where="label = 'up' and year >= 2005")) == 3

    def test_metadata_of_any_name_and_value(self, index: Index, signals: Path) -> None:
        rows: list[dict[str, Any]] = [{"place": "Paris", "signature": 1, "label": "a"}]
        rows += [{"place": "Rome", "label": ["b"], "big": 10**400, "path": "other"}]
        manifest = signals / "metadata.jsonl"
        lines = [{"file_name": f"{i}.toy", **row} for i, row in enumerate(rows)]
        manifest.write_text("\n".join(map(json.dumps, lines)))
        index.add(signals)
        assert paths(index.search("a", 9, where="place = 'Paris'")) == ["0.toy"]
        assert paths(index.search("a", 9, where="signature = 1")) == ["0.toy"]
        assert paths(index.search("a", 9, where="label = 'a'")) == ["0.toy"]
        assert index.search("a", 9, where="path = 'other'") == []
        assert "big" not in index.columns

    def test_a_malformed_manifest_names_its_line(self, index: Index, signals: Path) -> None:
        (signals / "metadata.jsonl").write_text('{"file_name": "0.toy"}\n{"label": "up"}\n')
        with pytest.raises(OmniAlignError, match=r"metadata.jsonl, line 2: .*file_name"):
            index.add(signals)

    def test_files_of_no_modality_are_passed_over(self, index: Index, signals: Path) -> None:
        (signals / "notes.xyz").write_text("?")
        report = index.add(signals)
        assert list(report.passed_over) == [str(signals / "notes.xyz")]

    def test_a_path_that_is_not_there(self, index: Index) -> None:
        with pytest.raises(OmniAlignError, match="'nowhere' is no file and no folder"):
            index.add("nowhere")
        with pytest.raises(OmniAlignError, match=r"no file matches 'x/\*\.toy'"):
            index.add("x/*.toy")

    def test_the_library_itself_is_not_among_its_files(self, index: Index, tmp_path: Path) -> None:
        report = index.add(tmp_path)
        assert report.added == 0
        assert not any(path.startswith(index.uri) for path in report.passed_over)

    def test_one_writes_at_a_time(self, index: Index, signals: Path) -> None:
        with (
            index._store.lock(),
            pytest.raises(OmniAlignError, match="another process is writing"),
        ):
            Index.open(index.uri).add(signals)

    def test_progress_counts_files(self, model: Path, signals: Path, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        index = Index.create(tmp_path / "library", model)
        index.add(signals, progress=lambda done, total: seen.append((done, total)))
        assert seen[0] == (0, 8)
        assert seen[-1] == (8, 8)


class TestSearch:
    def test_exactly_the_nearest_one_a_file(self, index: Index, signals: Path) -> None:
        query = index.space.embed("a rising signal")[0].numpy()
        best = {
            path.name: max(
                (float(s.vector.numpy() @ query), s.start_seconds)
                for s in index.space.embed_segments(path)
            )
            for path in signals.iterdir()
        }
        hits = index.search("a rising signal", 20)
        assert paths(hits) == sorted(best, key=lambda name: -best[name][0])
        for hit in hits:
            cosine, start = best[Path(hit.path).name]
            assert hit.cosine == pytest.approx(cosine, abs=1e-5)
            assert hit.start_seconds == start

    def test_every_segment(self, index: Index) -> None:
        hits = index.search("a rising signal", 20, segments=True)
        assert len(hits) == 10
        assert [hit.cosine for hit in hits] == sorted((h.cosine for h in hits), reverse=True)

    def test_k_files_although_one_has_the_best_rows(self, index: Index, signals: Path) -> None:
        toy.write_signal(signals / "long.toy", torch.linspace(-1, 1, 10).repeat(40))
        index.add(signals)
        assert len(index.search(torch.linspace(-1, 1, 10), 3, query_modality="toy_signal")) == 3

    def test_any_modality_asks(self, index: Index, signals: Path) -> None:
        hits = index.search(signals / "4.toy", 2)
        assert paths(hits)[0] == "4.toy"
        assert hits[0].cosine == pytest.approx(1, abs=1e-5)

    def test_sums_and_differences(self, index: Index, signals: Path) -> None:
        space = index.space
        plus = space.embed([signals / "1.toy", signals / "7.toy"]).mean(0)
        vector = plus - space.embed("snow")[0]
        wanted = (vector / vector.norm()).numpy()
        hits = index.search([signals / "1.toy", signals / "7.toy"], 20, minus="snow")
        direct = index.search_vectors(wanted[None], 20)[0]
        assert [hit.id for hit in hits] == [hit.id for hit in direct]
        with pytest.raises(OmniAlignError, match="are the same"):
            index.search("snow", minus="snow")

    def test_scores_are_probabilities_in_the_order_of_the_cosines(self, index: Index) -> None:
        hits = index.search("a rising signal", 20, segments=True)
        assert all(0 < hit.score < 1 for hit in hits)
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert index.scores.know("toy_signal")
        assert Index.open(index.uri).search("a rising signal", 20, segments=True) == hits

    def test_similar_leaves_out_the_file_itself(self, index: Index) -> None:
        first = index.search("a", 1)[0]
        others = index.similar(first.id, 20)
        assert len(others) == 7
        assert first.path not in [hit.path for hit in others]

    def test_modalities_are_named_or_refused(self, index: Index) -> None:
        assert index.search("a", modality="toy_words") == []
        with pytest.raises(ModalityError, match=r"no modality 'smell'; it has: .*toy_signal"):
            index.search("a", modality="smell")

    def test_slips(self, index: Index) -> None:
        with pytest.raises(OmniAlignError, match="k is 0"):
            index.search("a", 0)
        with pytest.raises(OmniAlignError, match="the query is empty"):
            index.search([])
        with pytest.raises(OmniAlignError, match="no row 'nothing'"):
            index.similar("nothing")

    def test_an_empty_library_finds_nothing(self, model: Path, tmp_path: Path) -> None:
        index = Index.create(tmp_path / "library", model)
        assert index.search("a") == []
        assert len(index) == 0

    def test_only_the_towers_of_the_query_are_loaded(self, index: Index) -> None:
        opened = Index.open(index.uri)
        opened.search("a rising signal")
        assert opened.model.space(["toy_words"]).modalities == ["toy_words"]

    def test_another_process_sees_what_was_added(self, index: Index, signals: Path) -> None:
        reader = Index.open(index.uri)
        assert len(reader.search("a", 20)) == 8
        toy.write_signal(signals / "new.toy", torch.ones(3))
        index.add(signals)
        assert len(reader.search("a", 20)) == 9
        index.remove(paths=signals / "new.toy")
        assert len(reader.search("a", 20)) == 8


def test_results_do_not_depend_on_how_the_snapshot_came_to_be(
    index: Index, signals: Path, tmp_path: Path
) -> None:
    """Appended to, thinned out and made anew, the scan finds the same."""
    index.search("a")
    for i in range(6):
        toy.write_signal(signals / f"more{i}.toy", torch.linspace(-i, i + 2, 3 + i))
        if i % 2:
            (signals / f"{i}.toy").unlink()
        index.add(signals, prune=True)
        index.search("a")
    hits = index.search("a falling signal", 50, segments=True)
    shutil.rmtree(Path(index.uri) / "snapshots")
    again = Index.open(index.uri).search("a falling signal", 50, segments=True)
    assert [hit.id for hit in again] == [hit.id for hit in hits]
    assert len(hits) == len(index)
