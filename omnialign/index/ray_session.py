"""A Ray cluster to work on: one that is there, or this machine; quiet, and without telemetry."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import ModuleType
from typing import Any

from omnialign.errors import OmniAlignError

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # it would send the current folder to every node
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


def import_ray() -> ModuleType:
    """Ray, set to send nothing anywhere; raises `OmniAlignError` where it is not installed."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        importlib.import_module("lance")
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise OmniAlignError(
            f"engine 'ray' wants {error.name}, which is not installed: pip install 'omnialign[ray]'"
        ) from None


@contextmanager
def connected(address: str | None) -> Generator[ModuleType]:
    """Ray, connected to the cluster at an address, or at `RAY_ADDRESS`; else to this machine alone.

    A program that is connected already stays so.

    Raises:
        OmniAlignError: Ray is not installed, or there is no cluster.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        with _silence():
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise OmniAlignError(
            f"no Ray cluster at '{address}': {in_one_line(error)}; `ray start --head` begins one, "
            "and without an address this machine is one"
        ) from None
    try:
        yield ray
    finally:
        with _silence():
            ray.shutdown()


@contextmanager
def _silence() -> Generator[None]:
    """Nothing on the standard error, where Ray's processes and libraries write as they start."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def check_nodes(ray: ModuleType, paths: Sequence[str]) -> None:
    """Raises `OmniAlignError` where a node lacks OmniAlign or does not see one of `paths`."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_look)
    asked: list[tuple[str, Any]] = []
    for node in ray.nodes():
        if node["Alive"]:
            here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            asked.append(
                (
                    node["NodeManagerAddress"],
                    look.options(scheduling_strategy=here).remote(list(paths)),
                )
            )
    for name, answer in asked:
        try:
            found, missing = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise OmniAlignError(
                f"node {name} of the cluster cannot run OmniAlign, which must be installed on all "
                f"of them: {in_one_line(error)}"
            ) from None
        if found != _installed():
            raise OmniAlignError(
                f"node {name} of the cluster has {found}, this machine {_installed()}; install "
                "the same on all of them"
            )
        if missing:
            raise OmniAlignError(
                f"node {name} of the cluster does not see {missing[0]}: files, model and library "
                "must lie under the same path on every node, as on a shared file system"
            )


def _look(paths: list[str]) -> tuple[str, list[str]]:
    return _installed(), [path for path in paths if not os.path.exists(path)]


def _installed() -> str:
    return f"OmniAlign {version('omnialign')} on Python {sys.version_info[0]}.{sys.version_info[1]}"


def node_name() -> str:
    """Of the machine that this runs on."""
    return socket.gethostname()


def in_one_line(error: BaseException) -> str:
    """What went wrong, without the traceback of a worker."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return in_one_line(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
