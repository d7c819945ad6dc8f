"""Every code block and command of the documentation, executed as a reader would.

The blocks of one file share a temporary folder and a Python session, in order. Each command of a
console has a shell of its own, or runs in this process where it is ours and needs none. A comment
on the line before a block says what is different about it:

    <!-- not run: REASON -->    it is not executed
    <!-- slow -->               `pytest -m slow` alone executes it; mark what builds on it too

A block with a `title="name"` is written to that file instead. `toml`, `json` and `jsonl` are
parsed, `text` is output and nothing is done with it; any other language is an error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from omnialign.cli import main
from omnialign.registry import registry

ROOT = Path(__file__).parents[1]
OUTSIDE_DOCS = sorted([*ROOT.glob("*.md"), *ROOT.glob("plugins/*/README.md")])
PAGES = sorted([*OUTSIDE_DOCS, *ROOT.glob("docs/**/*.md")])
SECONDS_PER_COMMAND = 1500

FENCE = re.compile(r"^(?P<indent>\s*)(?P<ticks>`{3,})(?P<language>[\w-]*)(?P<rest>.*)$")
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*) -->")
SLOW = "<!-- slow -->"
OURS = re.compile(r"omnialign [^|<>&;$*?`]*")
"""A command of ours that wants nothing of a shell but quotes."""


@dataclass(frozen=True)
class Block:
    """A fenced block, and the number of the line that its content begins on."""

    line: int
    language: str
    content: str
    title: str | None = None
    slow: bool = False
    not_run: str | None = None


def blocks(text: str) -> Iterator[Block]:
    lines = text.splitlines()
    before = ""
    number = 0
    while number < len(lines):
        fence = FENCE.match(lines[number])
        if fence is None:
            before = lines[number].strip() or before
            number += 1
            continue
        indent, ticks = fence["indent"], fence["ticks"]
        end = next(i for i in range(number + 1, len(lines)) if lines[i].strip() == ticks)
        content = [line.removeprefix(indent) for line in lines[number + 1 : end]]
        title = re.search(r'title="([^"]+)"', fence["rest"])
        skipped = NOT_RUN.fullmatch(before)
        yield Block(
            line=number + 2,
            language=fence["language"],
            content="\n".join(content) + "\n",
            title=title[1] if title else None,
            slow=before == SLOW,
            not_run=skipped["reason"] if skipped else None,
        )
        before = ""
        number = end + 1


def commands(block: Block) -> list[str]:
    """All of `bash` as one; of `console`, what stands after each `$`."""
    if block.language == "bash":
        return [block.content]
    found: list[str] = []
    for line in block.content.splitlines():
        if line.startswith("$ "):
            found.append(line[2:])
        elif line.startswith("> ") or (found and found[-1].endswith("\\")):
            found[-1] += "\n" + line.removeprefix("> ")
    return found


class Session:
    """Where the blocks of one page run."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.folder = folder
        self.installed = provided()
        self.module = ModuleType(f"page_{re.sub(r'[^a-z0-9]', '_', page.stem.lower())}")
        sys.modules[self.module.__name__] = self.module

    def run(self, block: Block) -> None:
        where = f"{self.page.relative_to(ROOT)}:{block.line}"
        if block.language == "toml":
            tomllib.loads(block.content)
        elif block.language == "json":
            json.loads(block.content)
        elif block.language == "jsonl":
            for line in block.content.splitlines():
                json.loads(line)
        elif block.language not in ("python", "bash", "console", "text"):
            pytest.fail(f"{where}: a block of '{block.language}' can be neither run nor checked")
        if block.title:
            file = self.folder / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.content, "utf-8")
        elif block.language == "python":
            padded = "\n" * (block.line - 1) + block.content
            exec(compile(padded, str(self.page), "exec", dont_inherit=True), vars(self.module))
        elif block.language in ("bash", "console"):
            found = [re.sub(r"\buv run (?=\w)", "", command) for command in commands(block)]
            assert found, f"{where}: no command; commands of a console block begin with '$ '"
            for command in found:
                (self.omnialign if OURS.fullmatch(command) else self.shell)(command, where)

    def omnialign(self, command: str, where: str) -> None:
        """In this process, which has imported torch, with none but the installed plugins."""
        _, *arguments = shlex.split(command, comments=True)
        on_the_page = provided()
        provide(self.installed)
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            warnings.simplefilter("default")
            patch.setattr(sys, "argv", ["omnialign", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
        provide(on_the_page)
        assert not ended.value.code, f"{where}: exit {ended.value.code}: {command}"

    def shell(self, commands: str, where: str) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_COMMAND,
            check=False,
        )
        assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout}{done.stderr}"


Provided = tuple[list[Any], dict[str, Any], dict[str, Any]]


def provided() -> Provided:
    """What the registry knows: plugins, modalities, sources."""
    plugins = registry()
    return plugins.plugins[:], plugins.modalities.copy(), plugins.sources.copy()


def provide(known: Provided) -> None:
    plugins = registry()
    plugins.plugins, plugins.modalities, plugins.sources = known


@pytest.fixture
def _restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A page may register plugins, import modules that it wrote, and write where it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before, modules = provided(), set(sys.modules)
    yield
    provide(before)
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if name.startswith("page_") or (file and Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]


def _pages() -> list[Any]:
    params: list[Any] = []
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        found = list(blocks(page.read_text("utf-8")))
        if any(not block.slow for block in found):
            params.append(pytest.param(page, False, id=name))
        if any(block.slow for block in found):
            marks = [pytest.mark.slow, pytest.mark.timeout(2 * SECONDS_PER_COMMAND)]
            params.append(pytest.param(page, True, id=f"{name}-slow", marks=marks))
    return params


@pytest.mark.usefixtures("_restored")
@pytest.mark.parametrize(("page", "slow"), _pages())
def test_the_page_runs(page: Path, slow: bool, tmp_path: Path) -> None:
    session = Session(page, tmp_path)
    for block in blocks(page.read_text("utf-8")):
        if not block.not_run and (slow or not block.slow):
            session.run(block)


@pytest.mark.parametrize("page", OUTSIDE_DOCS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    targets = [link.partition("#")[0] for link in links if not re.match(r"[a-z]+:|#", link)]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_blocks_are_found_with_their_markers() -> None:
    page = (
        "# Title\n<!-- not run: installs -->\n```console\n$ pip install uv\nout\n```\n"
        '- list\n\n  <!-- slow -->\n  ```python title="a.py"\n  x = 1\n  ```\n```bash\nls\n```\n'
    )
    assert list(blocks(page)) == [
        Block(4, "console", "$ pip install uv\nout\n", not_run="installs"),
        Block(11, "python", "x = 1\n", title="a.py", slow=True),
        Block(14, "bash", "ls\n"),
    ]


def test_commands_continue_over_lines_and_output_is_left_out() -> None:
    content = "$ omnialign train \\\n    mine.toml\nstep 1\n$ ls\nfile\n"
    assert commands(Block(1, "console", content)) == ["omnialign train \\\n    mine.toml", "ls"]


@pytest.mark.usefixtures("_restored")
def test_a_failing_block_is_reported_with_its_place(tmp_path: Path) -> None:
    session = Session(ROOT / "README.md", tmp_path)
    with pytest.raises(AssertionError, match=r"README\.md:7: exit 3\s+seen"):
        session.run(Block(7, "bash", "echo seen; exit 3; echo unseen\n"))
    with pytest.raises(AssertionError, match=r"README\.md:7: exit 1: omnialign recipes show none"):
        session.run(Block(7, "console", "$ uv run omnialign recipes show none\n"))
    with pytest.raises(pytest.fail.Exception, match="a block of 'yaml'"):
        session.run(Block(7, "yaml", "a: 1\n"))
    with pytest.raises(ZeroDivisionError) as caught:
        session.run(Block(7, "python", "1 / 0\n"))
    assert caught.traceback[-1].lineno + 1 == 7
