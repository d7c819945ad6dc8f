"""The toys of `omnialign.testing.toy`, installed for one test; scripts on several processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # tests start many interpreters
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared bit by bit, so all on the CPU

from omnialign.registry import Registry
from omnialign.testing import toy


@pytest.fixture
def toys() -> Iterator[Registry]:
    with toy.installed() as plugins:
        yield plugins


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds features of another, or of the user."""
    monkeypatch.setenv("OMNIALIGN_CACHE", str(tmp_path_factory.mktemp("cache", numbered=True)))


@pytest.fixture
def start_script() -> Callable[..., subprocess.Popen[str]]:
    """Starts a script on one or several CPU processes, in a process group of their own."""

    def start(script: str, *arguments: str, num_processes: int) -> subprocess.Popen[str]:
        command = [sys.executable]
        if num_processes > 1:  # with --cpu accelerate would launch them through MPI alone
            command += ["-m", "accelerate.commands.launch", "--multi_gpu", "--main_process_port=0"]
            command += [f"--num_processes={num_processes}", "--num_machines=1"]
            command += ["--mixed_precision=no", "--dynamo_backend=no"]
        return subprocess.Popen(
            [*command, script, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
            start_new_session=True,
        )

    return start


@pytest.fixture
def run_script(start_script: Callable[..., subprocess.Popen[str]]) -> Callable[..., None]:
    """Runs a script to a good end."""

    def run(script: str, *arguments: str, num_processes: int) -> None:
        process = start_script(script, *arguments, num_processes=num_processes)
        try:
            output, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            pytest.fail(f"hangs: {process.communicate()[0][-3000:]}")
        assert process.returncode == 0, output[-3000:]

    return run


@pytest.fixture
def real_data() -> Path:
    """The folder of openly licensed sets that lies beside the checkout."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not here")
    return folder
