"""`serve`: the service over a library, and its page."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from omnialign.cli.output import note


def serve(
    library: Annotated[str, typer.Argument(help="Where the library lies.")],
    host: Annotated[
        str, typer.Option(help="The address to listen at; other than loopback wants a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="OMNIALIGN_TOKEN", help="What whoever asks has to know."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the library's model lies now.")
    ] = None,
) -> None:
    """Serve a library: a page for people at `/`, and an API beside it.

    Example: `omnialign serve library --port 8000`
    """
    import omnialign as oa

    try:
        import uvicorn

        from omnialign.index import Index
        from omnialign.serve.app import create_app
        from omnialign.serve.guard import is_loopback
    except ModuleNotFoundError as error:
        raise oa.OmniAlignError(
            f"serve wants {error.name}, which is not installed: pip install 'omnialign[serve]'"
        ) from None
    token = token or None
    if token is None and not is_loopback(host):
        raise oa.OmniAlignError(
            f"--host {host} lets other machines in, so it wants a token: --token, or the "
            "environment variable OMNIALIGN_TOKEN"
        )
    with _listen(host, port) as listening:
        app = create_app(Index.open(library, model), token=token)
        address = f"[{host}]" if ":" in host else host
        note(f"{library}: http://{address}:{listening.getsockname()[1]} (Ctrl-C ends it)")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            limit_concurrency=_most_connections(),
        )
        uvicorn.Server(config).run(sockets=[listening])


def _most_connections() -> int:
    """So few that files, the table and the pipes of decoders can be opened too."""
    from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit

    most_open, _ = getrlimit(RLIMIT_NOFILE)
    return 1024 if most_open == RLIM_INFINITY else min(1024, most_open // 4)


def _listen(host: str, port: int) -> socket.socket:
    import omnialign as oa

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise oa.OmniAlignError(
            f"cannot listen at {host}, port {port}: {error.strerror}; choose another --port"
        ) from None
