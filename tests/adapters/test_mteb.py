"""mteb runs a space on tasks that are made here, of real data, and writes its results."""

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import mteb
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from datasets import Image as ImageColumn
from mteb.abstasks.classification import AbsTaskClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from omnialign.adapters.mteb import OmniAlignEncoder
from omnialign.building import build
from omnialign.cli import main
from omnialign.errors import ModalityError, OmniAlignError
from omnialign.evaluation.metrics import best_ranks
from omnialign.recipe import load_recipe, parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy


def metadata(**about: Any) -> TaskMetadata:
    return TaskMetadata(
        description="Noto's emoji and their names.",
        reference=None,
        dataset={"path": "noto_emoji", "revision": "1"},
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        date=None,
        domains=[],
        task_subtypes=[],
        license=None,
        annotations_creators="derived",
        dialect=[],
        sample_creation="found",
        bibtex_citation="",
        **about,
    )


class EmojiByName(AbsTaskRetrieval):
    """Which picture has this name?"""

    rows: ClassVar[list[dict[str, Any]]]
    metadata = metadata(
        name="EmojiByName",
        type="Any2AnyRetrieval",
        category="t2i",
        modalities=["text", "image"],
        main_score="recall_at_10",
    )

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        ids = [row["file_name"] for row in self.rows]
        pictures = Dataset.from_dict({"id": ids, "image": [row["path"] for row in self.rows]})
        names = Dataset.from_dict({"id": ids, "text": [row["text"] for row in self.rows]})
        split = RetrievalSplitData(
            corpus=pictures.cast_column("image", ImageColumn()),
            queries=names,
            relevant_docs={name: {name: 1} for name in ids},
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


class EmojiGroups(AbsTaskClassification):
    """To which group does a name belong?"""

    rows: ClassVar[list[dict[str, Any]]]
    n_experiments = 3
    metadata = metadata(
        name="EmojiGroups",
        type="Classification",
        category="t2c",
        modalities=["text"],
        main_score="accuracy",
    )

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        columns = {key: [row[key] for row in self.rows] for key in ("text", "label")}
        rows = Dataset.from_dict(columns)
        rows = rows.cast_column("label", ClassLabel(names=sorted(set(columns["label"]))))
        halves = rows.train_test_split(0.5, seed=0)
        self.dataset = DatasetDict(train=halves["train"], test=halves["test"])
        self.data_loaded = True


@pytest.fixture
def by_name(emoji: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> EmojiByName:
    monkeypatch.setattr(EmojiByName, "rows", emoji[:80], raising=False)
    return EmojiByName()


@pytest.fixture
def groups(emoji: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> EmojiGroups:
    monkeypatch.setattr(EmojiGroups, "rows", emoji, raising=False)
    return EmojiGroups()


def spoken_digits() -> SharedSpace:
    """Of the recipe, never trained."""
    return build(load_recipe("fsdd")).eval()


def evaluate(space: SharedSpace, task: Any, folder: Path) -> dict[str, Any]:
    found = mteb.evaluate(OmniAlignEncoder(space), task, cache=mteb.ResultCache(folder))
    return found.task_results[0].scores["test"][0]


def test_retrieval_scores_are_ours(
    space: SharedSpace, by_name: EmojiByName, tmp_path: Path
) -> None:
    scores = evaluate(space, by_name, tmp_path)
    names = space.embed([row["text"] for row in by_name.rows], "text")
    pictures = space.embed([row["path"] for row in by_name.rows], "image")
    ranks = best_ranks(names, pictures, [[i] for i in range(len(names))])
    for k in (1, 5, 10, 20):
        ours = (ranks <= k).double().mean().item()
        assert scores[f"recall_at_{k}"] == pytest.approx(ours, abs=1e-4)
    assert 0 < scores["recall_at_20"] < 1


def test_names_tell_groups_by_a_real_sentence_encoder(
    space: SharedSpace, groups: EmojiGroups, tmp_path: Path
) -> None:
    assert evaluate(space, groups, tmp_path)["accuracy"] > 0.5


def test_the_model_says_what_it_is(space: SharedSpace) -> None:
    encoder = OmniAlignEncoder(space, "someone/emoji")
    about = encoder.mteb_model_meta
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert (about.name, about.revision) == ("someone/emoji", space.fingerprint())
    assert (about.modalities, about.embed_dim) == (["text", "image"], 384)


def encode(encoder: OmniAlignEncoder, *batches: dict[str, Any]) -> Any:
    return encoder.encode(batches, task_metadata=EmojiGroups.metadata)


def test_an_empty_document_is_passed_over_and_counted(
    space: SharedSpace, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = encode(OmniAlignEncoder(space), {"text": ["a cat", ""]}, {"text": ["a dog"]})
    assert vectors.shape == (3, 384)
    assert [bool(vector.any()) for vector in vectors] == [True, False, True]
    assert "passed over 1 of 3 items, first: cannot read ''" in caplog.text


def test_two_modalities_of_one_item_are_averaged(
    space: SharedSpace, emoji: list[dict[str, Any]]
) -> None:
    batch = {"text": [emoji[0]["text"]], "image": [emoji[0]["path"]], "id": ["0"]}
    (vector,) = encode(OmniAlignEncoder(space), batch)
    mean = space.embed(batch["text"], "text") + space.embed(batch["image"], "image")
    assert vector == pytest.approx((mean / mean.norm())[0].numpy(), abs=1e-5)


def test_recordings_as_mteb_holds_them() -> None:
    space = spoken_digits()
    sound, rate = torch.sin(torch.arange(8000) / 20).numpy(), 8000
    (vector,) = encode(
        OmniAlignEncoder(space), {"audio": [{"array": sound, "sampling_rate": rate}]}
    )
    assert vector == pytest.approx(space.embed([(sound, rate)], "audio")[0].numpy(), abs=1e-5)


@pytest.mark.usefixtures("toys")
def test_what_nothing_can_be_made_of_is_an_error(space: SharedSpace) -> None:
    with pytest.raises(OmniAlignError, match="nothing can be read: 2 of 2 items"):
        encode(OmniAlignEncoder(space), {"text": ["", " "]})
    toys = OmniAlignEncoder(build(parse_recipe(toy.recipe())))
    with pytest.raises(ModalityError, match="gives text; this model has: toy_"):
        encode(toys, {"text": ["a cat"]})


def command(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["omnialign", "mteb", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def test_the_command_runs_tasks_by_name(
    folder: Path,
    space: SharedSpace,
    groups: EmojiGroups,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = sys.modules["mteb.get_tasks"]._TASKS_REGISTRY
    monkeypatch.setitem(known, "EmojiGroups", type(groups))
    arguments = ["--model", str(folder), "--output", str(tmp_path), "--task", "EmojiGroups"]
    assert command(*arguments, "--name", "someone/emoji", "--json") == 0
    score = json.loads(capsys.readouterr().out)["scores"]["EmojiGroups"]
    written = tmp_path / "results" / "someone__emoji" / space.fingerprint() / "EmojiGroups.json"
    (scores,) = json.loads(written.read_text())["scores"]["test"]
    assert scores["main_score"] == pytest.approx(score, abs=1e-5)
    assert (written.parent / "model_meta.json").is_file()

    def fails(*_: Any, **__: Any) -> None:
        raise ConnectionError("no hub")

    monkeypatch.setitem(known, "EmojiByName", EmojiByName)
    monkeypatch.setattr(EmojiByName, "load_data", fails)
    assert command(*arguments, "--task", "EmojiByName", "--name", "someone/emoji") == 1
    shown = capsys.readouterr()
    assert f"{score:.4f}" in shown.out
    assert "1 of 2 tasks have no score; EmojiByName: no hub" in shown.err


def test_the_command_names_mistakes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", str(folder), "--output", str(tmp_path)]
    assert command(*arguments) == 1
    assert "mteb wants --task NAME" in capsys.readouterr().err
    assert command(*arguments, "--task", "Banking77Clasification") == 1
    assert "Did you mean: 'Banking77Classification'" in capsys.readouterr().err
    assert command(*arguments, "--benchmark", "MTEB(nowhere)") == 1
    assert "mteb has no such task or benchmark" in capsys.readouterr().err
