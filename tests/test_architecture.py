"""What the design promises about the source, held by reading it or by importing it afresh."""

from __future__ import annotations

import ast
import json
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import omnialign
from omnialign.contract import ENTRY_POINT_GROUP, Hooks
from omnialign.registry import registry

ROOT = Path(__file__).parents[1]
CORE = sorted((ROOT / "omnialign").rglob("*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("omnialign-*"))
MAX_LINES = 400

MODALITIES = {"audio", "image", "pointcloud", "protein", "text", "timeseries", "video"}
"""Those that the repository brings; what else is installed here is added to them."""
ENGLISH = {"text"}
"""Names that are also Python's own word for a `str`: `read_text`, `TextColumn`."""
HEAVY = ("torch", "torchaudio", "torchvision", "transformers", "accelerate", "av", "scipy")
HEAVY_IN_HELP = (*HEAVY, "numpy", "pyarrow", "matplotlib", "PIL")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def fresh(code: str) -> str:
    """Standard output of `code` in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def repository_files() -> list[Path]:
    """Everything that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [file for file in files if file.is_file()]


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of string nodes that document: a statement of their own, or an example in a help."""
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {id(n) for n in constants if id(n) in alone or "Example: `" in str(n.value)}


DRAWING = {"textual_image.renderable", "Image", "HalfcellImage", "UnicodeImage"}
"""Names that packages for pictures in a terminal give their classes."""


def words_of(identifier: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", identifier)}


def named_modalities(tree: ast.Module, names: set[str]) -> Iterator[tuple[int, str]]:
    """The line and the name of each modality in an identifier or a string of the code.

    A MIME type (`image/jpeg`) is nobody's special case, nor is documentation.
    """
    documentation = docstrings(tree)
    for node in ast.walk(tree):
        found: set[str] = set()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documentation:
                found = set(re.findall(r"[a-z0-9]+(?![a-z0-9/])", node.value)) & names
        else:
            fields = ("name", "id", "attr", "arg", "asname")
            written = [getattr(node, field, None) for field in fields]
            own = [w for w in written if isinstance(w, str) and w not in DRAWING]
            if getattr(node, "module", None) in DRAWING:
                continue
            found = set().union(*(words_of(w) for w in own))
            found &= names - ENGLISH
        yield from ((getattr(node, "lineno", 0), name) for name in sorted(found))


def test_the_core_names_no_modality() -> None:
    names = MODALITIES | set(registry().modalities)
    found = [
        f"{relative(path)}:{line}: {name}"
        for path in CORE
        for line, name in named_modalities(parsed(path), names)
    ]
    assert not found, "the core treats a modality as special:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("if name == 'audio': pass", ["audio"]),
        ("def embed_image(x): ...", ["image"]),
        ("class VideoTower: ...", ["video"]),
        ("x = f'the {y} of an image'", ["image"]),
        ("mime = 'image/png'", []),
        ("text = path.read_text()", []),
        ("def f():\n    '''An image, for example.'''", []),
    ],
)
def test_a_named_modality_is_seen(code: str, expected: list[str]) -> None:
    assert [name for _, name in named_modalities(ast.parse(code), MODALITIES)] == expected


def test_the_core_names_no_plugin_module() -> None:
    modules = {entry.module.partition(".")[0] for entry in entry_points(group=ENTRY_POINT_GROUP)}
    modules |= {path.name.replace("-", "_") for path in PLUGINS}
    modules.discard("omnialign")
    found = [
        f"{relative(path)}: {name}"
        for path in CORE
        for name in sorted(modules)
        if name in path.read_text("utf-8")
    ]
    assert not found


def imports(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, module and imported name (`*` for the module itself) of every absolute import."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "*") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((node.lineno, module, alias.name) for alias in node.names)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_import_public_names_of_the_core_only(plugin: Path) -> None:
    wrong: list[str] = []
    for path in sorted(plugin.rglob("*.py")):
        in_tests = "tests" in path.relative_to(plugin).parts
        for line, module, name in imports(path):
            if module.partition(".")[0] != "omnialign":
                continue
            public = module == "omnialign" and name in {"*", "__version__", *omnialign.__all__}
            allowed_in_tests = in_tests and (public or module.startswith("omnialign"))
            if not (public or allowed_in_tests):
                wrong.append(f"{relative(path)}:{line}: {module}.{name}")
    assert not wrong, "only names of `omnialign.__all__` are public:\n" + "\n".join(wrong)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_import_only_what_they_declare_of_each_other(plugin: Path) -> None:
    table = tomllib.loads((plugin / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {re.split(r"[^\w-]", d)[0].replace("-", "_") for d in table["dependencies"]}
    own = plugin.name.replace("-", "_")
    others = {path.name.replace("-", "_") for path in PLUGINS} - {own} - declared
    wrong = [
        f"{relative(path)}:{line}: {module}"
        for path in sorted((plugin / own).rglob("*.py"))
        for line, module, _ in imports(path)
        if module.partition(".")[0] in others
    ]
    assert not wrong


def test_importing_omnialign_imports_nothing_else() -> None:
    loaded = json.loads(
        fresh(
            "import sys; before = set(sys.modules); import omnialign, json;"
            "print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    installed = [name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names]
    assert installed == ["omnialign"]


def test_every_public_name_is_there() -> None:
    for name in omnialign.__all__:
        assert getattr(omnialign, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'smell'"):
        _ = omnialign.smell  # type: ignore[attr-defined]


def test_no_public_name_is_hidden_by_a_submodule() -> None:
    """Importing `omnialign.x` sets the attribute `x`, which would then be a module."""
    submodules = {module.name for module in pkgutil.iter_modules(omnialign.__path__)}
    assert submodules & set(omnialign.__all__) == set()


@pytest.mark.parametrize("command", [[], ["train"], ["search"], ["demo"], ["recipes", "show"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    found = fresh(
        "import contextlib, io, sys\n"
        f"sys.argv = {['omnialign', *command, '--help']!r}\n"
        "from omnialign.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
        "assert 'typer' in sys.modules\n"
        f"print(*(name for name in {HEAVY_IN_HELP!r} if name in sys.modules))"
    )
    assert found.split() == []


def test_plugins_import_without_their_heavy_dependencies() -> None:
    entries = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name)
    modules = [entry.module for entry in entries]
    found = fresh(
        "import sys, importlib\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = [m for m in {HEAVY!r} if m in sys.modules]\n"
        "    if heavy:\n"
        "        print(name, 'imports', *heavy); break"
    )
    assert not found


def test_every_hook_is_documented() -> None:
    page = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    hooks = [name for name in vars(Hooks) if name.startswith("omnialign_")]
    assert [name for name in hooks if f"`{name}`" not in page] == []


def test_the_documented_layers_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert "\n".join(layers).replace("|", "│") in page


def test_every_file_is_read_in_one_sitting() -> None:
    lengths = {
        relative(path): len(path.read_text("utf-8").splitlines())
        for path in repository_files()
        if path.suffix == ".py"
    }
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_no_machine_and_no_registry_is_named() -> None:
    # written in halves, so that this file does not find itself
    hosts = "|".join(("py" + r"pi\.org", "pythonho" + "sted", "npm" + "js", r"deb\.deb" + "ian"))
    forbidden = re.compile(rf"{hosts}|(?<![\w.~$}}/-])/(?:work|farm|root|home|Users)/[a-zA-Z]")
    found: list[str] = []
    for path in repository_files():
        try:
            lines = path.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}:{i}" for i, x in enumerate(lines, 1) if forbidden.search(x)]
    assert not found


def test_no_lock_file_is_kept() -> None:
    names = {relative(path) for path in repository_files()}
    assert not {name for name in names if os.path.basename(name).endswith(".lock")}


def test_all_distributions_have_one_version() -> None:
    versions = {
        relative(path): tomllib.loads(path.read_text("utf-8"))["project"]["version"]
        for path in [ROOT / "pyproject.toml", *(p / "pyproject.toml" for p in PLUGINS)]
    }
    assert set(versions.values()) == {omnialign.__version__}, versions


def test_every_plugin_is_an_extra_and_a_workspace_member() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    extras = project["project"]["optional-dependencies"]
    names = {path.name.removeprefix("omnialign-") for path in PLUGINS}
    libraries = {"datasets", "lora"}
    elsewhere = {"onnx", "openvino", "sentence-transformers", "langchain", "lancedb", "mteb"}
    elsewhere |= {"index", "milvus", "ray", "serve"}
    assert set(extras) == names | libraries | elsewhere | {"all"}
    assert set(re.findall(r"[\w-]+", extras["all"][0])) == {
        *names,
        *libraries,
        *("omnialign", "index", "serve"),
    }
    assert {f"omnialign-{name}" for name in names} <= set(project["tool"]["uv"]["sources"])
    developed = {name.partition("[")[0] for name in project["dependency-groups"]["dev"]}
    assert {f"omnialign-{name}" for name in names} <= developed
