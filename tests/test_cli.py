"""The command line as its users meet it: people, and scripts that read `--json`."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from omnialign.cli import main
from omnialign.recipe import parse_recipe, shipped_recipes
from omnialign.registry import registry
from omnialign.testing import toy

COMMANDS = ["demo", "pack", "train", "evaluate", "index", "search", "duplicates", "classify"]
COMMANDS += ["embed", "compare", "interpolate", "export", "card", "push", "mteb", "cache"]
COMMANDS += ["plugins", "recipes"]
SUBCOMMANDS = [["recipes", "show"], ["recipes", "schema"]]


@dataclass(frozen=True)
class Result:
    """What a command printed, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, with the arguments given."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["omnialign", *map(str, arguments)])
        capsys.readouterr()
        status: Any = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code
        printed = capsys.readouterr()
        return Result(status or 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a recipe of the toys, a run of it, and a gallery of signals."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "toy.toml").write_text(tomli_w.dumps(toy.recipe(num_steps=40)), "utf-8")
    gallery = folder / "gallery"
    gallery.mkdir()
    for trend, slope in toy.TRENDS.items():
        numbers = np.linspace(-slope, slope, 16).tolist()
        toy.write_signal(gallery / f"{trend}.toy", numbers)
    (gallery / "notes.doc").write_bytes(b"\x00of nobody")
    with toy.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["omnialign", "train", "toy.toml", "--output", "run"])
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        yield folder


@pytest.fixture
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(home)
    return home


def failure(result: Result) -> str:
    """The message of a user's mistake: one, on standard error, with status 1."""
    assert result.status == 1
    assert result.out == ""
    assert result.err.count("error:") == 1
    assert result.err.startswith("error:")
    assert "Traceback" not in result.err
    return result.err.removeprefix("error:").strip()


class TestHelp:
    def test_lists_every_command(self, run: Run) -> None:
        result = run("--help")
        assert result.status == 0
        assert [name for name in COMMANDS if name not in result.out] == []

    @pytest.mark.parametrize("command", [*([name] for name in COMMANDS), *SUBCOMMANDS])
    def test_shows_an_example(self, run: Run, command: list[str]) -> None:
        result = run(*command, "--help")
        assert result.status == 0
        assert f"Example: omnialign {' '.join(command)}" in " ".join(result.out.split())

    @pytest.mark.parametrize("command", [["train"], ["evaluate"], ["search"], ["classify", "x"]])
    def test_a_missing_argument_is_named(self, run: Run, command: list[str]) -> None:
        result = run(*command)
        assert result.status == 2
        assert "Missing" in result.err
        assert result.out == ""


class TestPack:
    def test_a_folder_into_shards(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "words.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
        result = run("pack", tmp_path / "words.jsonl", "--output", tmp_path / "out", "--json")
        shard = str(tmp_path / "out" / "shard-000000.tar")
        expected = {"shards": [shard], "num_rows": 2, "num_bytes": 0, "left_out": {}}
        assert result.json == expected
        assert Path(shard).is_file()

    def test_a_missing_file_is_named(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"file_name": "none.x"}\n{"text": "two"}\n')
        result = run("pack", tmp_path / "a.jsonl", "-o", tmp_path / "out", "--format=parquet")
        assert result.status == 1
        assert "none.x': No such file or directory" in result.err
        options = ("-o", tmp_path / "out", "--format=parquet", "--skip-unreadable")
        result = run("pack", tmp_path / "a.jsonl", *options)
        assert result.status == 0
        assert f'source = {{ name = "manifest", path = "{tmp_path / "out"}" }}' in result.err
        assert "left out: " in result.err


class TestModule:
    def test_python_m_omnialign(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "omnialign", "recipes", "--json"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert {r["name"] for r in json.loads(done.stdout)["recipes"]} == set(shipped_recipes())

    def test_a_mistake_has_no_traceback(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "omnialign", "train", "nothing", "--output", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        message = failure(Result(done.returncode, done.stdout, done.stderr))
        assert message.startswith("no recipe file 'nothing'")


class TestListing:
    def test_plugins(self, run: Run) -> None:
        listed = run("plugins", "--json").json["plugins"]
        assert {"core"} <= {plugin["name"] for plugin in listed}
        assert all(plugin["state"] == "ok" for plugin in listed), [p["problem"] for p in listed]

    def test_a_broken_plugin_is_listed_with_its_cause(self, run: Run) -> None:
        plugins = registry()
        before = plugins.plugins[:]
        plugins.add(object(), "hollow")
        try:
            result = run("plugins")
        finally:
            plugins.plugins = before
        assert result.status == 0
        assert "broken: hollow" in result.err
        assert "it implements no hook" in result.err

    def test_recipes(self, run: Run) -> None:
        result = run("recipes")
        assert [name for name in shipped_recipes() if name not in result.out] == []

    @pytest.mark.parametrize("name", shipped_recipes())
    def test_a_shown_recipe_is_the_file(self, run: Run, name: str) -> None:
        assert run("recipes", "show", name).out == shipped_recipes()[name].read_text("utf-8")

    def test_a_resolved_recipe_has_every_default(self, run: Run, at_home: Path) -> None:
        shown = run("recipes", "show", "toy.toml", "--resolved").out
        assert "min_temperature" in shown
        assert 'name = "mlp"' in shown

    def test_schema(self, run: Run, at_home: Path) -> None:
        schema = run("recipes", "schema").json
        assert "toy_signal" in schema["properties"]["towers"]["properties"]


@pytest.mark.usefixtures("at_home")
class TestTrain:
    def test_leaves_a_run(self, home: Path) -> None:
        for name in ("config.json", "model.safetensors", "recipe.toml", "checkpoints"):
            assert (home / "run" / name).exists()

    def test_json_is_all_of_standard_output(self, run: Run, tmp_path: Path) -> None:
        result = run(
            *("train", "toy.toml", "--output", tmp_path / "run", "--json"),
            *("--set", "train.num_steps=4", "--set", "train.log_every=2"),
        )
        assert result.status == 0
        assert result.json["run"] == str(tmp_path / "run")
        assert result.json["last_step"]["step"] == 4
        assert "step 4/4" in result.err

    def test_resumes(self, run: Run, tmp_path: Path) -> None:
        output = tmp_path / "run"
        assert run("train", "toy.toml", "-o", output, "--set", "train.num_steps=3").status == 0
        assert "--resume" in failure(run("train", "toy.toml", "-o", output))
        longer = run(*("train", "toy.toml", "-o", output, "--resume", "--set", "train.num_steps=5"))
        assert longer.status == 0
        changed = run("train", "toy.toml", "-o", output, "--resume", "--set", "seed=1")
        assert "seed" in failure(changed)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ("train.num_step=3", "did you mean 'num_steps'"),
            ("train.num_steps=many", "train.num_steps"),
            ("train.num_steps=0", "greater than or equal to 1"),
            ("towers.toy_signal.encoder=lstm", "valid: mlp"),
            ("towers.toy_signal.encoder={name = 'mlp', depth = 3}", "unknown key 'depth'"),
            ("pairs.0.modalities=['toy_signal', 'smell']", "no installed plugin provides"),
            ("data.rows.source=files", "manifest"),
            ("nothing", "--set wants key=value"),
        ],
    )
    def test_a_slip_is_answered_with_what_is_valid(
        self, run: Run, tmp_path: Path, change: str, message: str
    ) -> None:
        result = run("train", "toy.toml", "--output", tmp_path / "run", "--set", change)
        assert message in failure(result)
        assert not (tmp_path / "run").exists()

    def test_a_broken_file_and_an_unknown_recipe(self, run: Run, tmp_path: Path) -> None:
        broken = tmp_path / "broken.toml"
        broken.write_text("pairs = [")
        assert "not valid TOML" in failure(run("train", broken, "--output", tmp_path / "run"))
        misspelt = run("train", "image-txt", "--output", tmp_path / "run")
        assert "did you mean 'image-text'" in failure(misspelt)

    def test_brackets_in_a_message_are_kept(self, run: Run, tmp_path: Path) -> None:
        result = run("train", tmp_path / "[bold]", "--output", tmp_path / "run")
        assert "[bold]" in failure(result)


@pytest.mark.usefixtures("at_home")
class TestCache:
    def test_features_are_told_of_listed_and_cleared(self, run: Run, tmp_path: Path) -> None:
        frozen = ("--set", "towers.toy_signal.frozen=true", "--set", "train.num_steps=2")
        told = [run("train", "toy.toml", "-o", tmp_path / name, *frozen).err for name in "ab"]
        assert "frozen toy_signal tower: 0 found in the cache, 54 computed" in told[0]
        assert "frozen toy_signal tower: 54 found in the cache, 0 computed" in told[1]
        listed = run("cache").out
        assert "toy_signal" in listed
        assert "mlp" in listed
        (kept,) = run("cache", "--json").json["kept"]
        assert Path(kept["folder"]).is_dir()
        assert "0.0 MiB deleted" in run("cache", "--clear").err
        assert "no features in" in run("cache").err
        assert not Path(kept["folder"]).exists()


class TestInterpolate:
    def test_saves_a_model_between(self, run: Run, home: Path, tmp_path: Path) -> None:
        after = tmp_path / "after"
        tuned = ("--set", "train.num_steps=5", "--set", f"start_from={home / 'run'}")
        assert run("train", "toy.toml", "-o", after, *tuned).status == 0
        made = run("interpolate", "run", after, "--alpha", "0.3", "-o", tmp_path / "between")
        assert made.status == 0
        assert run("classify", "rising", "up", "down", "-m", tmp_path / "between").status in (0, 1)
        assert (tmp_path / "between" / "config.json").is_file()
        alphas = ("--alpha", "0", "--alpha", "1", "--evaluate", "run")
        measured = run("interpolate", "run", after, *alphas, "--json").json["measured"]
        assert [m["alpha"] for m in measured] == [0, 1]
        assert "run: toy_signal-toy_words recall@1" in measured[0]
        table = run("interpolate", "run", after, *alphas).out
        assert all(word in table for word in ("alpha", "recall@1"))

    def test_mistakes(self, run: Run, tmp_path: Path) -> None:
        assert "wants --output" in failure(run("interpolate", "run", "run"))
        two = run("interpolate", "run", "run", "--alpha=0", "--alpha=1", "-o", tmp_path)
        assert "takes the model of one --alpha; got 2" in failure(two)
        assert "no model folder" in failure(run("interpolate", "run", "x", "-o", tmp_path))
        assert "holds a model already" in failure(run("interpolate", "run", "run", "-o", "run"))


class TestEvaluate:
    def test_prints_tables(self, run: Run) -> None:
        result = run("evaluate", "run")
        assert "toy_signal → toy_words" in result.out
        assert "chance" in result.out

    def test_json(self, run: Run, home: Path) -> None:
        results = run("evaluate", "run", "--json").json
        assert results == json.loads((home / "run" / "results.json").read_text("utf-8"))
        (task,) = results["tasks"]
        recall = task["toy_signal_to_toy_words"]["recall@10"]
        assert recall["mean"] > recall["chance"]

    def test_no_run(self, run: Run, tmp_path: Path) -> None:
        assert "no model folder" in failure(run("evaluate", tmp_path / "nothing"))
        assert "config.json is missing" in failure(run("evaluate", tmp_path))


@pytest.mark.usefixtures("at_home")
class TestQueries:
    def test_search(self, run: Run) -> None:
        result = run("search", "gallery", "rising", "--model", "run", "-k", "2", "--json")
        assert result.json["query"] == "rising"
        assert result.json["num_searched"] == 3
        assert list(result.json["skipped"]) == [str(Path("gallery/notes.doc"))]
        hits = result.json["hits"]
        assert len(hits) == 2
        assert hits[0]["score"] >= hits[1]["score"]
        assert {hit["modality"] for hit in hits} == {"toy_signal"}

    def test_search_prints_a_table_and_what_was_passed_over(self, run: Run) -> None:
        result = run("search", "gallery", "rising", "--model", "run")
        assert "rising.toy" in result.out
        assert "notes.doc" in result.err

    def test_an_unreadable_file_is_passed_over(self, run: Run, tmp_path: Path) -> None:
        toy.write_signal(tmp_path / "good.toy", [0.0, 1.0])
        (tmp_path / "bad.toy").write_text("no signal")
        result = run("search", tmp_path, "rising", "--model", "run", "--json")
        assert [Path(hit["path"]).name for hit in result.json["hits"]] == ["good.toy"]
        assert "begins with 'toy-signal'" in result.json["skipped"][str(tmp_path / "bad.toy")]

    def test_nothing_that_can_be_read(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "bad.toy").write_text("no signal")
        message = failure(run("search", tmp_path, "rising", "--model", "run"))
        assert "can be read; the first:" in message
        assert "begins with 'toy-signal'" in message

    def test_nothing_to_search(self, run: Run, tmp_path: Path) -> None:
        assert "holds no file" in failure(run("search", tmp_path, "rising", "--model", "run"))
        missing = run("search", tmp_path / "nothing", "rising", "--model", "run")
        assert "is not a folder" in failure(missing)

    def test_classify(self, run: Run) -> None:
        plain = ("classify", "gallery/rising.toy", "rising", "falling", "--model", "run")
        chances = run(*plain, "--json").json["labels"]
        assert set(chances) == {"rising", "falling"}
        assert sum(chances.values()) == pytest.approx(1)
        assert "probability" in run(*plain).out
        assert "have no bias" in failure(run(*plain, "--independent"))

    def test_classify_something_else(self, run: Run) -> None:
        nobody = run("classify", "gallery/notes.doc", "rising", "falling", "--model", "run")
        assert "notes.doc" in failure(nobody)
        missing = run("classify", "gallery/none.toy", "rising", "falling", "--model", "run")
        assert "not an existing file" in failure(missing)

    def test_embed(self, run: Run, tmp_path: Path) -> None:
        items = ["gallery/rising.toy", "gallery/flat.toy"]
        file = tmp_path / "vectors.npy"
        result = run("embed", *items, "--model", "run", "--output", file, "--json")
        vectors = np.load(file)
        assert vectors.dtype == np.float32
        assert vectors.shape == (2, 16)
        assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
        listed = result.json["items"]
        assert [entry["item"] for entry in listed] == items
        np.testing.assert_array_equal([entry["embedding"] for entry in listed], vectors)

    def test_a_size_that_was_not_trained(self, run: Run) -> None:
        commands = [
            ["search", "gallery", "rising", "--model", "run"],
            ["classify", "gallery/flat.toy", "rising", "flat", "--model", "run"],
            ["embed", "gallery/flat.toy", "--model", "run", "--json"],
            ["evaluate", "run"],
        ]
        for command in commands:
            assert "cannot be cut to 3 dimensions" in failure(run(*command, "--dim", "3"))

    def test_embed_wants_somewhere_to_put_it(self, run: Run) -> None:
        assert "--output" in failure(run("embed", "gallery/flat.toy", "--model", "run"))
        nowhere = run("embed", "gallery/flat.toy", "--model", "run", "-o", "no/such/folder.npy")
        assert "cannot write" in failure(nowhere)

    def test_a_damaged_model(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{")
        (tmp_path / "model.safetensors").write_bytes(b"")
        assert "damaged" in failure(run("embed", "flat", "--model", tmp_path, "--json"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_sound(run: Run, name: str) -> None:
    result = run("recipes", "show", name, "--resolved")
    assert result.status == 0, result.err
    assert parse_recipe(tomllib.loads(result.out)).description
