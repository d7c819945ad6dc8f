"""The card of a real run: whole, parseable, and of that run alone."""

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from huggingface_hub import ModelCard

import omnialign as oa
from omnialign.building import build
from omnialign.engine import train
from omnialign.errors import HubError, ModelError
from omnialign.evaluation import evaluate_run
from omnialign.model_card import model_card
from omnialign.model_folder import load
from omnialign.overrides import read_toml
from omnialign.recipe import parse_recipe, shipped_recipes
from omnialign.registry import registry
from omnialign.testing import toy

GOLDEN = Path(__file__).with_name("model_card.md")
ESTIMATE = re.compile(r"[\d.]+ % \([\d.]+–[\d.]+\)")


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = toy.recipe(num_steps=3)
    table["description"] = "Signals and words."
    table["space"]["matryoshka"] = [8]
    table["data"]["rows"]["licence"] = "CC-BY-SA-4.0"
    table["data"]["echoes"] = {"source": {"name": "toy_pairs"}, "licence": "MIT"}
    echoes = {"data": "echoes", "where": {"trend": ["rising", "flat"]}}
    table["pairs"].append({"modalities": ["toy_echo", "toy_words"], "train": echoes})
    zero_shot = {"task": "zero_shot", "modality": "toy_signal", "label": "trend", "rows": "unseen"}
    table["evaluations"] = [
        {"modalities": ["toy_echo", "toy_signal"], "rows": "unseen", "task": "retrieval"},
        zero_shot,
    ]
    run = tmp_path_factory.mktemp("card") / "run"
    train(parse_recipe(table), run)
    evaluate_run(run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def card_of(run: Path) -> ModelCard:
    return ModelCard(model_card(load(run, "cpu"), "hub:ada/toys", run))


def restate(run: Path, **changes: Any) -> None:
    """Changes the recipe that a run states, key by key."""
    table = read_toml(run / "recipe.toml")
    for dotted, value in changes.items():
        *places, last = dotted.split("__")
        holder = table
        for place in places:
            holder = holder[place]
        if value is None:
            del holder[last]
        else:
            holder[last] = value
    (run / "recipe.toml").write_text(tomli_w.dumps(table))


def test_it_is_as_it_was_agreed(run: Path) -> None:
    """Beside figures and versions, and the recipe, which has tests of its own."""
    (run / "environment.json").write_text('{"python": "3.11", "platform": "secret"}')
    text = card_of(run).text
    text = re.sub(r"<details>.*</details>", "<details>…</details>", text, flags=re.DOTALL)
    text = text.replace(load(run, "cpu").fingerprint(), "FINGERPRINT")
    text = re.sub(r"\d+ of (\d+) \|", r"RANK of \1 |", ESTIMATE.sub("ESTIMATE", text))
    assert text.strip() == GOLDEN.read_text("utf-8").strip()


def test_front_matter_has_the_results_of_the_run(run: Path) -> None:
    data = card_of(run).data
    assert data.library_name == "omnialign"
    assert data.license == "cc-by-sa-4.0"
    assert {"toy_signal", "toy_words", "toy_echo"} <= set(data.tags)
    results = json.loads((run / "results.json").read_text())["tasks"]
    found = {(r.dataset_name, r.metric_name): r for r in data.eval_results}
    assert len(found) == 2 * 2 * 3 + 1
    recall = results[0]["toy_words_to_toy_signal"]["recall@5"]
    told = found["unseen", "recall@5, toy_words → toy_signal"]
    assert told.metric_value == recall["mean"]
    assert told.metric_args == {key: recall[key] for key in ("low", "high", "chance")}
    shot = found["unseen", "accuracy, toy_signal-by-trend"]
    assert shot.metric_value == results[2]["accuracy"]["mean"]
    low, high = 100 * recall["low"], 100 * recall["high"]
    assert f"{100 * recall['mean']:.1f} % ({low:.1f}–{high:.1f}), chance" in card_of(run).text


def test_the_recipe_is_whole_and_tells_no_folders(run: Path) -> None:
    restate(run, data__unseen__source={"name": "manifest", "path": str(run / "private.jsonl")})
    text = card_of(run).text
    found = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert found is not None
    table = tomllib.loads(found[1])
    assert table["data"]["unseen"]["source"]["path"] == "private.jsonl"
    table["data"]["unseen"]["source"]["path"] = str(run / "private.jsonl")
    assert parse_recipe(table) == parse_recipe(read_toml(run / "recipe.toml"))
    assert str(run) not in text
    assert "unseen: not counted" in text


@pytest.mark.parametrize(
    ("stated", "told"),
    [
        ("hf:/users/ada/secret/clip", "hf:clip"),
        ("file:///users/ada/clip", "file://clip"),
        ("../../users/ada/x", "x"),
        ("./secret/x", "x"),
        ("~/x/y", "y"),
        ("//server/ada/x", "x"),
        ("hf:ada/clip@v1", "hf:ada/clip@v1"),
        ("https://host/ada/x", "https://host/ada/x"),
        ("left and/or right", "left and/or right"),
    ],
)
def test_no_folder_of_the_machine_is_told(run: Path, stated: str, told: str) -> None:
    restate(run, data__rows__source={"name": "manifest", "path": stated})
    text = card_of(run).text
    assert f"path {told} |" in text
    assert f'path = "{told}"' in text
    assert "/users" not in text


class TestLicences:
    def test_unknown_is_loud(self, run: Path) -> None:
        restate(run, data__echoes__licence=None)
        card = card_of(run)
        assert card.data.license == "unknown"
        loud = "> **Licence: unknown.** Nothing states the licence of data `echoes`."
        assert loud in card.text
        assert "stated is CC-BY-SA-4.0 (share-alike), of data `rows`." in card.text
        assert "| data `echoes` | toy_pairs, split train | **unknown** | unknown |" in card.text

    def test_test_rows_are_no_part(self, run: Path) -> None:
        restate(run, data__unseen__licence="CC-BY-NC-4.0")
        assert card_of(run).data.license == "cc-by-sa-4.0"

    def test_beside_the_data(self, run: Path, tmp_path: Path) -> None:
        folder = tmp_path / "set"
        folder.mkdir()
        (folder / "README.md").write_text("---\nlicense: [cc-by-nc-4.0, mit]\n---\n")
        (folder / "rows.jsonl").write_text("{}\n")
        source = {"name": "manifest", "path": str(folder / "rows.jsonl")}
        restate(run, data__rows={"source": source})
        card = card_of(run)
        assert card.data.license == "cc-by-nc-4.0"
        told = "| data `rows` | manifest, path rows.jsonl | cc-by-nc-4.0 AND mit | non-commercial |"
        assert told in card.text
        restate(run, data__rows={"source": source, "licence": "MIT"})
        assert card_of(run).data.license == "mit"
        restate(run, data__rows={"source": source})
        (folder / "README.md").write_text("---\nlicense: [\n---\n")
        with pytest.raises(HubError, match=r"README\.md: its front matter cannot be read"):
            card_of(run)

    def test_of_what_it_began_from(self, run: Path, tmp_path: Path) -> None:
        before = shutil.copytree(run, tmp_path / "before")
        restate(before, data__echoes__licence="CC-BY-ND-4.0")
        restate(run, start_from=str(before))
        card = card_of(run)
        assert card.data.license == "cc-by-nd-4.0"
        (before / "recipe.toml").unlink()
        assert "| the model it began from | before | **unknown** | unknown |" in card_of(run).text
        (before / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
        assert card_of(run).data.license == "cc-by-nc-4.0"

    def test_of_a_pretrained_encoder(self, run: Path) -> None:
        restate(run, towers__toy_words__licence="GPL-3.0-only")
        card = card_of(run)
        assert card.data.license == "gpl-3.0-only"
        assert "| pretrained toy_words encoder |" in card.text

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"backbone": "resnet18", "weights": "IMAGENET1K_V1"}, ["resnet18, IMAGENET1K_V1"]),
            ({"model": "vit", "weights": "~/models/vit.pt"}, ["vit, vit.pt"]),
            ({"model": "vit", "pretrained": True}, ["vit"]),
            ({"model": "vit", "pretrained": False}, []),
            ({"model": "vit"}, []),
            ({"image_encoder": "timm", "image_options": {"model": "vit"}}, ["vit"]),
            ({"image_options": {"width": 8}}, []),
        ],
    )
    def test_what_counts_as_pretrained(
        self, run: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], told: list[str]
    ) -> None:
        class Several(toy.HashedWords):
            def __init__(
                self,
                backbone: str = "",
                model: str = "",
                weights: str | None = None,
                pretrained: bool = False,
                image_encoder: str = "",
                image_options: dict[str, Any] | None = None,
            ) -> None:
                super().__init__()

        def ask(name: str, *_: object) -> None:
            raise AssertionError(f"the hub has no {name}")

        monkeypatch.setattr("omnialign.hub.stated_licence", ask)
        words = registry().modality("toy_words")
        monkeypatch.setattr(words, "encoders", {**words.encoders, "several": Several})
        encoder = {"name": "several", **options}
        space = load(run, "cpu")
        restate(run, towers={"toy_words": {"encoder": encoder}})
        table = toy.recipe() | {"towers": {"toy_words": {"encoder": encoder}}}
        built = model_card(build(parse_recipe(table)), "hub:ada/toys")
        for text in (model_card(space, "hub:ada/toys", run), built):
            found = re.findall(r"pretrained toy_words encoder \| (.*?) \| \*\*unknown", text)
            assert found == told

    def test_the_description_stands_apart_from_the_unknown(self, run: Path) -> None:
        restate(run, data__rows__licence=None, data__echoes__licence=None)
        assert re.search(r"\n> .*\n\nSignals and words\.", card_of(run).text)
        restate(run, data__rows__licence="MIT")
        assert re.search(r"\n> .*of data `rows`\.\n\nSignals and words\.", card_of(run).text)

    def test_shipped_recipes_of_files_state_theirs(self) -> None:
        for path in shipped_recipes().values():
            for name, data in read_toml(path)["data"].items():
                if "path" in data["source"]:
                    assert "licence" in data, f"{path}: data.{name}"


class TestHonesty:
    def test_not_measured(self, run: Path) -> None:
        (run / "results.json").unlink()
        card = card_of(run)
        assert "**None: this model was not measured.**" in card.text
        assert card.data.eval_results is None

    def test_results_of_another_model(self, run: Path) -> None:
        results = json.loads((run / "results.json").read_text())
        (run / "results.json").write_text(json.dumps({**results, "fingerprint": "other"}))
        with pytest.raises(ModelError, match=r"is of another model; measure this one: omnialign"):
            card_of(run)
        (run / "results.json").write_text("{")
        with pytest.raises(ModelError, match=r"results\.json cannot be read"):
            card_of(run)

    def test_of_a_model_without_a_run(self, run: Path, tmp_path: Path) -> None:
        space = oa.load(run, "cpu", modalities=["toy_signal", "toy_echo"])
        text = model_card(space, str(tmp_path))
        assert ModelCard(text).data.license == "unknown"
        assert "Not recorded: the model was saved without its run." in text
        assert 'vectors = space.embed(["a/file"], "toy_signal")' in text
