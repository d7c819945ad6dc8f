"""Plugins that fail in every way, and who claims what."""

import io
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omnialign.contract import Claim, hookimpl
from omnialign.errors import ModalityError, ModelError, PluginError, RecipeError
from omnialign.registry import Plugin, Registry, imported
from omnialign.testing import toy


@pytest.fixture
def plugins() -> Registry:
    found = Registry()
    found.add(toy, "toy")
    return found


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; modules imported from it are forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def load(plugins: Registry, folder: Path, **sources: str) -> dict[str, Plugin]:
    """Writes modules and loads them as entry points."""
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    plugins.load(EntryPoint(name, name, "omnialign") for name in sources)
    return {plugin.name: plugin for plugin in plugins.plugins}


SOUND = """
from omnialign import hookimpl
from omnialign.testing import toy

class Late(toy.ToySignal):
    name = "late"
    suffixes = frozenset({".late"})

@hookimpl
def omnialign_modalities():
    return [Late()]
"""


def test_failing_imports_are_reported_and_stop_nothing(plugins: Registry, modules: Path) -> None:
    found = load(
        plugins,
        modules,
        lacking="import module_that_is_not_there",
        raising="raise RuntimeError('no antenna')",
        leaving="raise SystemExit('bye')",
        slipped="def f(:",
        sound=SOUND,
    )
    assert found["lacking"].problem == (
        "import failed (ModuleNotFoundError: No module named 'module_that_is_not_there')"
    )
    assert found["raising"].problem == "import failed (RuntimeError: no antenna)"
    assert found["leaving"].problem == "it exits on import (SystemExit: bye)"
    assert "SyntaxError" in str(found["slipped"].problem)
    assert found["sound"].problem is None
    assert found["sound"].modalities == ["late"]
    with pytest.raises(ModalityError) as caught:
        plugins.modality("smell")
    message = str(caught.value)
    assert message.startswith(
        "no installed plugin provides modality 'smell'; "
        "installed: late, toy_echo, toy_signal, toy_words; failed to load: lacking (import failed"
    )
    assert "raising (import failed (RuntimeError: no antenna))" in message


def test_an_interrupt_is_no_broken_plugin(plugins: Registry, modules: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(plugins, modules, stopped="raise KeyboardInterrupt")


class Misspelt:
    @hookimpl
    def omnialign_modalitys(self) -> list[Any]:
        return []


class Unmarked:
    def omnialign_modalities(self) -> list[Any]:
        return []


class Leaving:
    @hookimpl
    def omnialign_modalities(self) -> list[Any]:
        raise SystemExit("bye")


class Raising:
    @hookimpl
    def omnialign_modalities(self) -> list[Any]:
        raise KeyError("antenna")


def giving(value: Any) -> object:
    class Giving:
        @hookimpl
        def omnialign_modalities(self) -> Any:
            return value

    return Giving()


class Nameless(toy.ToyWords):
    pass


Nameless.default_encoder = "hashedd"


@pytest.mark.parametrize(
    ("module", "causes"),
    [
        (Misspelt(), ["omnialign_modalitys", "valid hooks: omnialign_encoders"]),
        (Unmarked(), ["no hook", "mark omnialign_modalities with @omnialign.hookimpl"]),
        (SimpleNamespace(), ["no hook; valid: omnialign_encoders, omnialign_formats"]),
        (Raising(), ["a hook failed (KeyError: 'antenna')"]),
        (Leaving(), ["a hook failed (SystemExit: bye)"]),
        (giving(None), ["omnialign_modalities gave NoneType; it wants a Sequence"]),
        (giving(toy.ToyWords()), ["omnialign_modalities gave ToyWords; it wants a Sequence"]),
        (giving([toy.ToyWords]), ["<class 'omnialign.testing.toy.ToyWords'>", "instances"]),
        (giving([toy.ToyWords()]), ["'toy_words' is already provided by plugin 'toy'"]),
        (giving([Nameless()]), ["'hashedd'; did you mean 'hashed'?"]),
    ],
)
def test_a_broken_plugin_is_listed_with_its_cause(
    plugins: Registry, module: object, causes: list[str]
) -> None:
    broken = plugins.add(module, "broken")
    for cause in causes:
        assert cause in str(broken.problem)
    assert "\n" not in str(broken.problem)
    assert plugins.add(SoundSource(), "sound").problem is None
    assert plugins.modality("toy_signal").name == "toy_signal"


class SoundSource:
    @hookimpl
    def omnialign_sources(self) -> dict[str, Any]:
        return {"lazy": "omnialign.testing.toy:ToyPairs"}


def test_a_source_may_be_lazy_and_is_taken_once(plugins: Registry) -> None:
    plugins.add(SoundSource(), "first")
    second = plugins.add(SoundSource(), "second")
    assert plugins.source("lazy") is toy.ToyPairs
    assert second.problem == "source 'lazy' is already provided by plugin 'first' (not installed)"


def test_names_that_nobody_provides(plugins: Registry) -> None:
    with pytest.raises(RecipeError, match="did you mean 'toy_pairs'"):
        plugins.source("toy_pair")
    with pytest.raises(RecipeError, match="toy_signal has no encoder 'mpl'; did you mean 'mlp'"):
        plugins.encoder("toy_signal", "mpl")
    with pytest.raises(RecipeError, match="no augmentation 'blur'; valid: noise"):
        plugins.augmentation("toy_signal", "blur")
    with pytest.raises(RecipeError, match="unknown key 'widht'; did you mean 'width'"):
        plugins.encoder_options("toy_signal", "mlp", {"widht": 3})
    with pytest.raises(PluginError, match="cannot import 'omnialign:Nothing'"):
        imported("omnialign:Nothing")


def test_a_file_belongs_to_the_modality_of_its_suffix(plugins: Registry, tmp_path: Path) -> None:
    path = toy.write_signal(tmp_path / "rising one.toy", [0, 1])
    assert plugins.decide(path) == ("toy_signal", path)
    assert plugins.decide(str(path)) == ("toy_signal", path)
    assert plugins.decide(path.read_bytes())[0] == "toy_signal"


def test_words_are_words(plugins: Registry) -> None:
    for words in ("a dog", "what is rising.toy like", "x" * 100_000, "a\n.toy", "y" * 300 + ".md"):
        assert plugins.decide(words) == ("toy_words", words)


def test_a_missing_file_is_not_taken_for_words(plugins: Registry, tmp_path: Path) -> None:
    for missing in ("missing.toy", tmp_path / "missing.xyz"):
        with pytest.raises(ModalityError, match=r"not an existing file; .* pass modality=..."):
            plugins.decide(missing)
    with pytest.raises(ModalityError, match="is a folder"):
        plugins.decide(tmp_path)


def test_a_file_of_unknown_kind_is_not_taken_for_words(plugins: Registry, tmp_path: Path) -> None:
    path = tmp_path / "recording.xyz"
    path.write_bytes(b"?")
    with pytest.raises(ModalityError, match=r"no modality claims .*recording.xyz"):
        plugins.decide(str(path))


@pytest.mark.parametrize(
    "item", [np.zeros((4, 3)), torch.zeros(3, 8, 8), io.BytesIO(b"\x00"), b"\x00", 7]
)
def test_raw_data_is_claimed_by_nobody(plugins: Registry, item: Any) -> None:
    with pytest.raises(ModalityError, match=r"no modality claims .* one of: toy_echo, toy_signal"):
        plugins.decide(item)


def test_two_claims_are_an_error_that_names_both(plugins: Registry) -> None:
    class Other(toy.ToyWords):
        name = "other_words"

        def claim(self, source: Any) -> Claim:
            return Claim.COULD

    plugins.add(giving([Other()]), "other")
    with pytest.raises(ModalityError) as caught:
        plugins.decide("a dog")
    assert str(caught.value) == (
        "'a dog' could be other_words or toy_words; "
        "pass modality='other_words' or modality='toy_words'"
    )
    assert plugins.decide("a dog", ["toy_words"]) == ("toy_words", "a dog")


def test_owning_beats_could(plugins: Registry, tmp_path: Path) -> None:
    class Greedy(toy.ToyWords):
        name = "greedy"

        def claim(self, source: Any) -> Claim:
            return Claim.COULD

    plugins.add(giving([Greedy()]), "greedy")
    path = toy.write_signal(tmp_path / "a.toy", [0, 1])
    assert plugins.decide(path)[0] == "toy_signal"


def test_a_modality_outside_of_the_model_is_named(plugins: Registry, tmp_path: Path) -> None:
    path = toy.write_signal(tmp_path / "a.toy", [0, 1])
    with pytest.raises(ModalityError, match="toy_signal would, but is not in this model"):
        plugins.decide(path, ["toy_words"])


def test_content_decides_where_no_suffix_does(plugins: Registry, tmp_path: Path) -> None:
    signal = toy.write_signal(tmp_path / "rising.toy", [0, 1])
    for name in ("recording", "rising.toy.bak"):
        path = tmp_path / name
        path.write_bytes(signal.read_bytes())
        assert plugins.decide(str(path)) == ("toy_signal", path)


def test_a_claim_that_fails_stops_no_other(plugins: Registry, tmp_path: Path) -> None:
    class Failing(toy.ToySignal):
        name = "failing"

        def claim(self, source: Any) -> Claim:
            raise KeyError("oops")

    class Module:
        @hookimpl
        def omnialign_modalities(self) -> list[Any]:
            return [Failing()]

    added = plugins.add(Module(), "failing")
    path = toy.write_signal(tmp_path / "a.toy", [0, 1])
    assert plugins.decide(path) == ("toy_signal", path)
    assert added.problem is not None
    assert "failing.claim failed (KeyError: 'oops')" in added.problem


class Guest:
    """Gives an encoder to somebody else's modality, and reads a format."""

    def __init__(self, encoders: Any, formats: Any) -> None:
        self._encoders, self._formats = encoders, formats

    @hookimpl
    def omnialign_encoders(self) -> Any:
        return self._encoders

    @hookimpl
    def omnialign_formats(self) -> Any:
        return self._formats


def test_a_plugin_gives_an_encoder_to_a_modality_of_another(plugins: Registry) -> None:
    guest = Guest({"toy_signal": {"guest": toy.Mlp}}, {"made": "omnialign.testing.toy:recipe"})
    added = plugins.add(guest, "guest")
    assert (added.encoders, added.formats, added.problem) == (
        {"toy_signal": ["guest"]},
        ["made"],
        None,
    )
    assert plugins.encoder("toy_signal", "guest") is toy.Mlp
    assert list(plugins.encoders("toy_signal")) == ["mlp", "guest"]
    assert plugins.format("made") is toy.recipe
    with pytest.raises(ModelError, match=r"no installed plugin reads models 'other:…'; .*made:"):
        plugins.format("other")


def test_it_does_not_matter_which_plugin_comes_first() -> None:
    late = Registry()
    late.add(Guest({"toy_signal": {"guest": toy.Mlp}}, {}), "guest")
    late.add(toy, "toy")
    assert plugins_of(late) == [None, None]
    assert late.encoder("toy_signal", "guest") is toy.Mlp


def plugins_of(found: Registry) -> list[str | None]:
    return [plugin.problem for plugin in found.plugins]


def test_the_scheme_of_the_hub_is_taken(plugins: Registry) -> None:
    added = plugins.add(Guest({}, {"hub": "x:y"}), "a")
    assert added.problem == "format 'hub' is the core's own; take another name"


def test_an_encoder_or_a_format_is_provided_once(plugins: Registry) -> None:
    taken = Guest({"toy_signal": {"mlp": toy.Mlp}}, {})
    assert plugins.add(taken, "a").problem == "toy_signal encoder 'mlp' is already provided"
    plugins.add(Guest({"toy_signal": {"guest": toy.Mlp}}, {"made": "x:y"}), "b")
    again = plugins.add(Guest({"toy_signal": {"guest": toy.Mlp}}, {}), "c")
    assert again.problem == "toy_signal encoder 'guest' is already provided"
    assert "format 'made' is already provided by plugin 'b'" in str(
        plugins.add(Guest({}, {"made": "x:y"}), "d").problem
    )
    late = Registry()
    late.add(taken, "a")
    assert late.add(toy, "toy").problem == "toy_signal encoder 'mlp' is already provided"
