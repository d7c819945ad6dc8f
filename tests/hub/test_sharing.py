"""Models pushed to a hub and loaded from it, through `huggingface_hub` and over HTTP."""

import json
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard, constants

import omnialign as oa
from omnialign.building import build
from omnialign.cli import main
from omnialign.engine import train
from omnialign.errors import HubError, ModalityError, ModelError
from omnialign.evaluation import evaluate_run
from omnialign.model_card import model_card
from omnialign.recipe import parse_recipe
from omnialign.registry import registry
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.filterwarnings(  # huggingface_hub's own, of how it puts large files
    "ignore:Use 'content=:DeprecationWarning"
)
SIGNALS = [torch.linspace(-1, k, 3 + 4 * k) for k in range(5)]


@pytest.fixture(scope="module", autouse=True)
def _toys() -> Iterator[None]:
    with toy.installed():
        yield


@pytest.fixture
def space() -> SharedSpace:
    torch.manual_seed(0)
    return build(parse_recipe(toy.recipe()))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("sharing") / "run"
    train(parse_recipe(toy.recipe(num_steps=3)), run)
    evaluate_run(run)
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_what_is_pushed_is_loaded(ada: Any, space: SharedSpace) -> None:
    pushed = space.push_to_hub("ada/toys")
    again = oa.load("hub:ada/toys")
    assert again.fingerprint() == space.fingerprint()
    assert again.embed(SIGNALS, "toy_signal").equal(space.embed(SIGNALS, "toy_signal"))
    assert again.embed(["a", "b"]).equal(space.embed(["a", "b"]))
    assert oa.load(pushed).fingerprint() == space.fingerprint()
    assert not ada.repositories["ada/toys"].private


def test_nothing_is_downloaded_that_is_not_wanted(ada: Any, space: SharedSpace) -> None:
    space.push_to_hub("ada/toys")
    words = oa.load("hub:ada/toys", modalities=["toy_words"])
    assert words.modalities == ["toy_words"]
    assert words.embed(["a"]).equal(space.embed(["a"]))
    wanted = ["config.json", "model.safetensors", "weights/toy_words.safetensors"]
    assert sorted(ada.downloaded) == wanted
    oa.load("hub:ada/toys")
    assert ada.downloaded[3:] == ["weights/toy_signal.safetensors"]
    with pytest.raises(ModalityError, match="no modality 'smell'; it has"):
        oa.load("hub:ada/toys", modalities=["toy_words", "smell"])


def test_a_revision_is_fixed(ada: Any, space: SharedSpace) -> None:
    first = space.push_to_hub("ada/toys")
    before = space.fingerprint()
    with torch.no_grad():
        space.log_scales["toy_signal-toy_words"].fill_(1.0)
    second = space.push_to_hub("ada/toys")
    assert first != second
    assert oa.load(first).fingerprint() == before
    assert oa.load("hub:ada/toys@main").fingerprint() == space.fingerprint()


def test_pushing_fewer_towers_leaves_none_behind(ada: Any, run: Path) -> None:
    whole = oa.load(run)
    whole.push_to_hub("ada/toys")
    oa.load(run, modalities=["toy_words"]).push_to_hub("ada/toys")
    found = ada.repositories["ada/toys"]
    names = sorted(found.commits[found.main])
    weights = ["model.safetensors", "weights/toy_words.safetensors"]
    assert names == ["README.md", "calibration.safetensors", "config.json", *weights]


def test_a_loaded_model_stays_loadable_without_the_hub(
    ada: Any, space: SharedSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    space.push_to_hub("ada/toys")
    oa.load("hub:ada/toys")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert oa.load("hub:ada/toys").fingerprint() == space.fingerprint()


class TestCard:
    def test_of_a_run(self, ada: Any, run: Path) -> None:
        oa.load(run).push_to_hub("ada/toys", run=run)
        files = ada.repositories["ada/toys"].commits[ada.repositories["ada/toys"].main]
        card = ModelCard(files["README.md"].decode())
        assert card.data.license == "unknown"
        assert 'oa.load("hub:ada/toys")' in card.text
        assert "rows: 54" in card.text
        assert not [name for name in files if "recipe" in name or "results" in name]

    def test_one_that_was_written_is_kept(self, ada: Any, run: Path) -> None:
        space = oa.load(run)
        mine = f"---\nlicense: mit\n---\nFingerprint `{space.fingerprint()}`. Mine.\n"
        (run / "README.md").write_text(mine)
        space.push_to_hub("ada/toys", run=run)
        found = ada.repositories["ada/toys"]
        assert found.commits[found.main]["README.md"].endswith(b"Mine.\n")

    def test_a_stale_one_is_not_pushed(self, ada: Any, run: Path) -> None:
        space = oa.load(run)
        (run / "README.md").write_text("---\nlicense: mit\n---\nFingerprint `of old`.\n")
        with pytest.raises(ModelError, match=r"README\.md lacks the fingerprint .* omnialign card"):
            space.push_to_hub("ada/toys", run=run)
        assert not ada.repositories

    def test_a_run_of_another_model(self, ada: Any, run: Path, space: SharedSpace) -> None:
        for _ in range(2):
            with pytest.raises(ModelError, match="the model is not that of the run in"):
                space.push_to_hub("ada/toys", run=run)
            (run / "README.md").touch()
        assert not ada.repositories

    def test_of_a_run_that_began_from_a_model_of_the_hub(
        self, ada: Any, run: Path, tmp_path: Path
    ) -> None:
        space = oa.load(run)
        stated = f"---\nlicense: cc-by-nc-4.0\n---\n{space.fingerprint()}\n"
        (run / "README.md").write_text(stated)
        pushed = space.push_to_hub("ada/toys", run=run)
        table = toy.recipe(num_steps=1) | {"start_from": pushed}
        table["data"]["rows"]["licence"] = "MIT"
        tuned = train(parse_recipe(table), tmp_path / "tuned")
        card = ModelCard(model_card(tuned, "hub:ada/tuned", tmp_path / "tuned"))
        assert card.data.license == "cc-by-nc-4.0"
        assert f"| the model it began from | {pushed} | cc-by-nc-4.0 | non-comm" in card.text

    def test_of_pretrained_parts(self, ada: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Pretrained(toy.HashedWords):
            def __init__(self, model: str, revision: str | None = None) -> None:
                super().__init__()

        ada.add("ada/words", {"README.md": b"---\nlicense: gpl-3.0\n---\n"})
        words = registry().modality("toy_words")
        monkeypatch.setattr(words, "encoders", {**words.encoders, "pretrained": Pretrained})
        table = toy.recipe()
        for model, told in (("ada/words", "gpl-3.0 | copyleft"), ("ada/none", "**unknown** | unk")):
            encoder = {"name": "pretrained", "model": model, "revision": "main"}
            table["towers"] = {"toy_words": {"encoder": encoder}}
            text = model_card(build(parse_recipe(table)), "hub:ada/toys")
            assert f"| pretrained toy_words encoder | {model}@main | {told}" in text

    def test_without_a_run_nothing_is_made_up(self, ada: Any, space: SharedSpace) -> None:
        space.push_to_hub("ada/toys")
        found = ada.repositories["ada/toys"]
        text = found.commits[found.main]["README.md"].decode()
        assert "**Licence: unknown.** Nothing states the licence of training data." in text
        assert "this model was not measured" in text


class TestPrivate:
    def test_a_private_model_is_for_its_owner(
        self, ada: Any, space: SharedSpace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        space.push_to_hub("ada/toys", private=True)
        assert ada.repositories["ada/toys"].private
        assert oa.load("hub:ada/toys").fingerprint() == space.fingerprint()
        monkeypatch.delenv("HF_TOKEN")
        constants.HF_HUB_CACHE += "-of-another"
        with pytest.raises(HubError, match=r"shows no hub:ada/toys; .* log in: hf auth login$"):
            oa.load("hub:ada/toys")
        monkeypatch.setenv("HF_TOKEN", "hf_bob")
        with pytest.raises(HubError, match=r"or if it is private, see who you are: hf auth whoami"):
            oa.load("hub:ada/toys")

    def test_what_is_public_is_not_pushed_to_as_private(self, ada: Any, space: SharedSpace) -> None:
        ada.add("ada/toys", {})
        with pytest.raises(HubError, match="is there and public"):
            space.push_to_hub("ada/toys", private=True)
        assert len(ada.repositories["ada/toys"].commits) == 1


class TestErrors:
    def test_no_such_revision(self, ada: Any, space: SharedSpace) -> None:
        space.push_to_hub("ada/toys")
        with pytest.raises(HubError, match="hub:ada/toys has no revision 'v2'; it wants a branch"):
            oa.load("hub:ada/toys@v2")

    @pytest.mark.parametrize("files", [{}, {"config.json": b'{"model_type": "bert"}'}])
    def test_a_repository_of_something_else(self, hub: Any, files: dict[str, bytes]) -> None:
        hub.add("ada/bert", {**files, "model.safetensors": b"large"})
        with pytest.raises(ModelError, match="hub:ada/bert holds no model of OmniAlign"):
            oa.load("hub:ada/bert")
        assert "model.safetensors" not in hub.downloaded

    @pytest.mark.parametrize("name", ["a/b/c", "", "toys", "ada/../toys", "ada/--toys"])
    def test_no_name(self, ada: Any, space: SharedSpace, name: str) -> None:
        for action in (space.push_to_hub, lambda name: oa.load(f"hub:{name}")):
            with pytest.raises(HubError, match="is no name of a model on the hub; it wants USER/"):
                action(name)
        assert not ada.repositories

    def test_a_gated_model(self, hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(handler: Any, *_: Any) -> None:
            handler.answer(403, X_Error_Code="GatedRepo")

        hub.add("ada/toys", {"config.json": b'{"preprocessing": ""}'})
        monkeypatch.setattr(hub.handler, "resolve", refuse)
        with pytest.raises(HubError, match=r"is gated; ask for access at .*/ada/toys, then log in"):
            oa.load("hub:ada/toys")

    def test_nobody_is_logged_in(self, hub: Any, space: SharedSpace) -> None:
        with pytest.raises(HubError, match=r"not push to hub:ada/toys .*log in: hf auth login$"):
            space.push_to_hub("ada/toys")
        assert not hub.repositories

    def test_no_right_to_write(self, ada: Any, space: SharedSpace) -> None:
        for _ in range(2):
            with pytest.raises(HubError, match=r"may not push to hub:bob/toys \(403\); it takes"):
                space.push_to_hub("bob/toys")
            ada.add("bob/toys", {})
        assert len(ada.repositories["bob/toys"].commits) == 1

    def test_offline_and_not_in_the_cache(
        self, hub: Any, space: SharedSpace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(HubError, match="cannot fetch hub:ada/toys: HF_HUB_OFFLINE is set"):
            oa.load("hub:ada/toys")
        with pytest.raises(HubError, match="cannot push to hub:ada/toys: HF_HUB_OFFLINE is set"):
            space.push_to_hub("ada/toys")

    def test_no_network(
        self, ada: Any, space: SharedSpace, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", nobody)
        with pytest.raises(HubError, match=r"does not answer \(ConnectError: .* in the cache; try"):
            oa.load("hub:ada/toys")
        with pytest.raises(HubError, match=r"cannot push to hub:ada/toys at http.*ConnectError"):
            space.push_to_hub("ada/toys")


class TestCommands:
    def command(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any
    ) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["omnialign", *map(str, words)])
        status: Any = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code or 0
        return (status, *capsys.readouterr())

    def test_push(self, ada: Any, run: Path, capsys: Any, monkeypatch: Any) -> None:
        arguments = ("push", run, "ada/toys", "--private", "--json")
        status, out, _ = self.command(capsys, monkeypatch, *arguments)
        assert status == 0
        assert ada.repositories["ada/toys"].private
        assert oa.load(json.loads(out)["model"]).fingerprint() == oa.load(run).fingerprint()

    def test_a_saved_model_goes_with_its_own_card(
        self, ada: Any, space: SharedSpace, capsys: Any, monkeypatch: Any, tmp_path: Path
    ) -> None:
        space.save(tmp_path)
        mine = f"---\nlicense: mit\n---\n{space.fingerprint()}. Mine.\n"
        (tmp_path / "README.md").write_text(mine)
        assert self.command(capsys, monkeypatch, "push", tmp_path, "ada/toys")[0] == 0
        found = ada.repositories["ada/toys"]
        assert found.commits[found.main]["README.md"].endswith(b"Mine.\n")

    def test_card(self, run: Path, capsys: Any, monkeypatch: Any) -> None:
        status, out, _ = self.command(capsys, monkeypatch, "card", run, "--name", "ada/toys")
        assert status == 0
        assert out == model_card(oa.load(run, "cpu"), "hub:ada/toys", run)
        assert ModelCard(out).data.library_name == "omnialign"

    def test_a_refusal_is_one_line(
        self, hub: Any, run: Path, capsys: Any, monkeypatch: Any
    ) -> None:
        status, out, err = self.command(capsys, monkeypatch, "push", run, "ada/toys")
        assert (status, out) == (1, "")
        assert err.strip().count("\n") == 0
        assert err.startswith("error: you may not push to hub:ada/toys (401)")
        assert not hub.repositories

    def test_questions_to_a_model_of_the_hub(
        self, ada: Any, run: Path, capsys: Any, monkeypatch: Any, tmp_path: Path
    ) -> None:
        oa.load(run).push_to_hub("ada/toys")
        toy.write_signal(tmp_path / "one.toy", [1.0, 2.0])
        arguments = ("search", tmp_path, "rising", "--model", "hub:ada/toys", "--json")
        status, out, _ = self.command(capsys, monkeypatch, *arguments)
        assert status == 0
        assert "one.toy" in out
