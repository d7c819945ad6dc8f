"""`omnialign serve`: what it refuses to begin."""

import socket
import sys

import pytest
from typer.testing import CliRunner

from omnialign.cli import serving
from omnialign.cli.app import app
from omnialign.errors import OmniAlignError


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["serve", *arguments], env={"OMNIALIGN_TOKEN": ""})
    assert isinstance(result.exception, OmniAlignError), result.exception
    return str(result.exception)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_other_machines_want_a_token(host) -> None:
    assert f"--host {host} lets other machines in" in refused("library", "--host", host)


def test_a_port_that_is_taken(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}: Address already in use" in refused("x", "--port", str(port))


@pytest.mark.parametrize(("most_open", "most"), [(256, 64), (2**20, 1024), (-1, 1024)])
def test_there_are_descriptors_for_more_than_connections(monkeypatch, most_open, most) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (most_open, most_open))
    assert serving._most_connections() == most


def test_no_library(tmp_path) -> None:
    assert "no library at" in refused(str(tmp_path), "--port", "0")


def test_without_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "pip install 'omnialign[serve]'" in refused("library")
