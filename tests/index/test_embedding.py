"""Files to vectors: the same as alone, whatever dies on the way, in memory that stays flat."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build
from omnialign.errors import ModalityError, OmniAlignError
from omnialign.index import reading
from omnialign.index.embedding import POOL_BATCHES, EmbeddedFile, embed_files
from omnialign.recipe import parse_recipe
from omnialign.space import SharedSpace
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")

WINDOW_SECONDS = 4.0
HOSTILE = """
import os, signal, time
from pathlib import Path
from omnialign.testing.toy import ToySignal, ToyWords

class WordFiles(ToyWords):
    def read(self, source):
        return super().read(source.read_text())

class HostileSignal(ToySignal):
    def read_segments(self, source, window):
        found = list(super().read_segments(source, window))
        yield found[0]
        if "killed" in Path(source).name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "exits" in Path(source).name:
            os._exit(3)
        if "hangs" in Path(source).name:
            time.sleep(60)
        if "prints" in Path(source).name:
            print("a decoder prints what it likes", flush=True)
        yield from found[1:]
"""


@pytest.fixture
def space() -> SharedSpace:
    table = toy.recipe()
    encoder = {"name": "mlp", "window_seconds": WINDOW_SECONDS}
    table["towers"] = {"toy_signal": {"encoder": encoder}}
    torch.manual_seed(0)
    return build(parse_recipe(table))


@pytest.fixture
def hostile(space: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SharedSpace:
    """With a reader that dies, hangs or prints, as a file is called, and with words in files."""
    (tmp_path / "hostile_signal.py").write_text(HOSTILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "hostile_signal", raising=False)
    hostile_signal = import_module("hostile_signal")
    space.tower("toy_signal").modality = hostile_signal.HostileSignal()
    space.tower("toy_words").modality = hostile_signal.WordFiles()
    return space


def signals(folder: Path, *names: str, seconds: int = 10) -> list[tuple[str, Path, str]]:
    return [
        (
            name,
            toy.write_signal(folder / f"{name}.toy", torch.linspace(-1, place, seconds)),
            "toy_signal",
        )
        for place, name in enumerate(names)
    ]


def words(folder: Path, *counts: int) -> list[tuple[int, Path, str]]:
    """Files of so many words."""
    found: list[tuple[int, Path, str]] = []
    for count in counts:
        path = folder / f"{count}.words"
        path.write_text("high " * count)
        found.append((count, path, "toy_words"))
    return found


def embedded(space: SharedSpace, files: Any, **settings: Any) -> dict[Any, EmbeddedFile]:
    found = list(embed_files(space, files, **settings))
    by_key = {file.key: file for file in found}
    assert len(by_key) == len(found)
    return by_key


def check_same(found: EmbeddedFile, space: SharedSpace, item: Any, modality: str) -> None:
    """As `SharedSpace.embed_segments` has it, but for rounding."""
    wanted = space.embed_segments(item, modality)
    assert found.problem is None
    assert found.segments is not None
    assert [(s, e) for s, e, _ in found.segments] == [(s, e) for s, e, _ in wanted]
    for mine, theirs in zip(found.segments, wanted, strict=True):
        torch.testing.assert_close(mine.vector, theirs.vector, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 4), (0, 64), (1, 4), (2, 4)])
def test_mixed_files_give_what_each_gives_alone(
    hostile: SharedSpace, tmp_path: Path, workers: int, batch_size: int
) -> None:
    pairs = zip(signals(tmp_path, *"abcdefg"), words(tmp_path, 3, 1, 9, 2, 7, 4, 0), strict=True)
    files: list[tuple[Any, Path, str]] = [file for pair in pairs for file in pair]
    found = embedded(hostile, iter(files), workers=workers, batch_size=batch_size)
    for key, path, modality in files:
        check_same(found[key], hostile, path, modality)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_file_comes_with_its_reason(
    space: SharedSpace, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "broken.toy").write_bytes(b"no signal")
    files = [
        *signals(tmp_path, "a"),
        ("broken", tmp_path / "broken.toy", "toy_signal"),
        ("gone", tmp_path / "gone.toy", "toy_signal"),
        *signals(tmp_path, "b"),
    ]
    found = embedded(space, files, workers=workers, batch_size=2)
    assert found["broken"].segments is None
    assert found["broken"].problem == "toy_signal wants a file that begins with 'toy-signal'"
    assert "No such file" in (found["gone"].problem or "")
    for name in "ab":
        check_same(found[name], space, tmp_path / f"{name}.toy", "toy_signal")


def test_what_fails_behind_the_reader_costs_its_file_alone(
    space: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resample = toy.Resample.__call__

    def fails_on_flat(self: toy.Resample, sample: torch.Tensor) -> torch.Tensor:
        if sample.eq(0).all():
            raise RuntimeError("division\nby zero")
        return resample(self, sample)

    monkeypatch.setattr(toy.Resample, "__call__", fails_on_flat)
    toy.write_signal(tmp_path / "flat.toy", [0, 0, 0])
    flat = ("flat", tmp_path / "flat.toy", "toy_signal")
    found = embedded(space, [*signals(tmp_path, "a"), flat])
    assert found["flat"].problem == (
        "the toy_signal preprocessing failed: RuntimeError: division by zero"
    )
    assert found["a"].problem is None


def test_an_embedding_that_is_no_number_is_a_problem(space: SharedSpace, tmp_path: Path) -> None:
    toy.write_signal(tmp_path / "huge.toy", [3e38] * 5 + [-3e38] * 5)
    huge = ("huge", tmp_path / "huge.toy", "toy_signal")
    found = embedded(space, [*signals(tmp_path, "a"), huge])
    assert found["huge"].problem == "its embedding has values that are not finite"
    assert found["a"].problem is None


def test_what_fails_in_the_forward_costs_its_file_alone(
    space: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = space.tower("toy_signal")
    forward = tower.forward

    def fails_on_flat(batch: torch.Tensor) -> torch.Tensor:
        if batch.flatten(1).eq(0).all(1).any():
            raise RuntimeError("out of\nmemory")
        return forward(batch)

    monkeypatch.setattr(tower, "forward", fails_on_flat)
    toy.write_signal(tmp_path / "flat.toy", [0] * 10)
    flat = ("flat", tmp_path / "flat.toy", "toy_signal")
    found = embedded(space, [*signals(tmp_path, "a"), flat, *signals(tmp_path, "b")], batch_size=4)
    assert found["flat"].segments is None
    assert found["flat"].problem == "the toy_signal encoder failed: RuntimeError: out of memory"
    for name in "ab":
        check_same(found[name], space, tmp_path / f"{name}.toy", "toy_signal")


def test_a_worker_that_cannot_be_replaced_ends_it(
    hostile: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = 0
    popen = subprocess.Popen

    def once(*args: Any, **options: Any) -> Any:
        nonlocal started
        started += 1
        if started > 1:
            raise OSError("Cannot allocate memory")
        return popen(*args, **options)

    monkeypatch.setattr(reading.subprocess, "Popen", once)
    with pytest.raises(OmniAlignError, match="OSError: Cannot allocate memory"):
        embedded(hostile, signals(tmp_path, "exits", "a", "b"), workers=1)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("killed", "its reader was killed by SIGKILL (out of memory?)"),
        ("exits", "its reader ended with exit code 3"),
    ],
)
def test_a_dead_worker_costs_the_file_that_it_held(
    hostile: SharedSpace, tmp_path: Path, name: str, reason: str
) -> None:
    files = signals(tmp_path, "a", "b", name, "c", "prints", "d")
    found = embedded(hostile, files, workers=1, batch_size=4)
    assert found.pop(name).problem == reason
    assert found.keys() == {"a", "b", "c", "prints", "d"}
    for key, file in found.items():
        check_same(file, hostile, tmp_path / f"{key}.toy", "toy_signal")


def test_a_hanging_reader_is_killed(
    hostile: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PATIENCE_SECONDS", 1.0)
    found = embedded(hostile, signals(tmp_path, "a", "hangs", "b"), workers=1)
    assert found["hangs"].problem == "its reader took longer than 1 s over one segment"
    assert found["a"].problem is found["b"].problem is None


def test_a_worker_that_cannot_start_says_so(
    hostile: SharedSpace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "hostile_signal.py").unlink()
    with pytest.raises(OmniAlignError, match="could not start: its reader ended with exit code 1"):
        embedded(hostile, signals(tmp_path, "a"), workers=2)
    assert "hostile_signal" in capfd.readouterr().err


def counted(
    space: SharedSpace, monkeypatch: pytest.MonkeyPatch, live: Callable[[int], None]
) -> None:
    """Calls `live` with the number of inputs that were read here and not yet embedded."""
    held = 0
    resample, tower = toy.Resample.__call__, space.tower("toy_signal")
    forward = tower.forward

    def read(self: toy.Resample, sample: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held += 1
        live(held)
        return resample(self, sample)

    def embed(batch: torch.Tensor) -> torch.Tensor:
        nonlocal held
        held -= len(batch)
        return forward(batch)

    monkeypatch.setattr(toy.Resample, "__call__", read)
    monkeypatch.setattr(tower, "forward", embed)


@pytest.mark.parametrize("num_files", [1, 300])
def test_no_more_than_a_batch_is_held_however_much_there_is(
    space: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_files: int
) -> None:
    most = 0

    def live(held: int) -> None:
        nonlocal most
        most = max(most, held)

    counted(space, monkeypatch, live)
    seconds = 1200 // num_files
    ((_, path, _),) = signals(tmp_path, "a", seconds=seconds)
    files = ((number, path, "toy_signal") for number in range(num_files))
    found = embedded(space, files, batch_size=8)
    assert sum(len(file.segments or []) for file in found.values()) == 300
    assert most == 8


@pytest.mark.parametrize("workers", [0, 1])
def test_files_are_taken_as_work_goes_on(space: SharedSpace, tmp_path: Path, workers: int) -> None:
    ((_, path, _),) = signals(tmp_path, "a")
    taken = 0

    def files() -> Iterator[tuple[int, Path, str]]:
        nonlocal taken
        while True:
            yield taken, path, "toy_signal"
            taken += 1

    found = embed_files(space, files(), workers=workers, batch_size=4)
    for number in range(20):
        next(found)
        assert taken <= number + 4 * POOL_BATCHES
    found.close()


def test_inputs_of_unequal_length_go_in_sorted(
    hostile: SharedSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower, widths = hostile.tower("toy_words"), list[int]()
    forward = tower.forward

    def embed(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        widths.append(batch["values"].shape[1])
        return forward(batch)

    monkeypatch.setattr(tower, "forward", embed)
    files = words(tmp_path, *(1 + 7 * n % 32 for n in range(32)))
    found = embedded(hostile, files, batch_size=4)
    assert widths == sorted(widths, reverse=True)
    assert widths == [32, 28, 24, 20, 16, 12, 8, 4]
    for key, path, modality in files:
        check_same(found[key], hostile, path, modality)


def test_mistakes_of_the_caller_are_errors(space: SharedSpace) -> None:
    with pytest.raises(OmniAlignError, match="batch_size is 0"):
        embed_files(space, [], batch_size=0)
    with pytest.raises(OmniAlignError, match="workers is -1"):
        embed_files(space, [], workers=-1)
    with pytest.raises(ModalityError, match="no modality 'smell'"):
        list(embed_files(space, [(1, "a", "smell")]))
    assert list(embed_files(space, [], workers=1)) == []


def test_gradients_and_training_mode_are_as_before(space: SharedSpace, tmp_path: Path) -> None:
    space.train()
    for _ in embed_files(space, signals(tmp_path, "a", "b"), batch_size=1):
        assert torch.is_grad_enabled()
        assert all(module.training for module in space.modules())


INTERRUPTED = """
import sys, time
from omnialign.index.embedding import embed_files
from omnialign.testing import toy
from omnialign.building import build
from omnialign.recipe import parse_recipe

with toy.installed():  # and no main guard
    space = build(parse_recipe(toy.recipe()))
    try:
        for file in embed_files(
            space, ((n, sys.argv[1], "toy_signal") for n in range(10**9)), workers=2
        ):
            if file.key == 0:
                print("going", flush=True)
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def test_an_interrupt_ends_it_at_once_without_a_word(tmp_path: Path) -> None:
    ((_, path, _),) = signals(tmp_path, "a")
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert len(children) == 2
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert time.monotonic() - started < 5
    assert (output, errors, process.returncode) == ("stopped\n", "", 0)
    assert not any(Path("/proc", child).exists() for child in children)
