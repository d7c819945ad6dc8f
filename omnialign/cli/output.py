"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="Folder of a run or saved model, or hub:USER/NAME.",
        show_default=False,
    ),
]
Dim = Annotated[
    int | None,
    typer.Option(help="Cut embeddings to a size that the model was trained for; default: none."),
]

out = Console()
err = Console(stderr=True)

SECONDS_FOR_THE_MAIN_PROCESS = 10.0
"""To say an error that all have: then the launcher ends the others before they repeat it."""


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def is_main_process() -> bool:
    """False in the other processes of `accelerate launch`, which print nothing."""
    return os.environ.get("RANK", "0") == "0"


def fail(message: str, status: int = 1) -> NoReturn:
    """Prints an error on standard error and exits.

    Of several processes the main one speaks first, and another only of an error that is its own.
    """
    if not is_main_process():
        time.sleep(SECONDS_FOR_THE_MAIN_PROCESS)
    err.print(f"[bold red]error:[/] {_escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(status)


def note(message: str) -> None:
    """Something worth knowing, on standard error."""
    err.print(_escape(message), highlight=False, soft_wrap=True)


def linked(path: str, name: str | None = None) -> str:
    """A path that a terminal opens when it is clicked, as markup."""
    uri = Path(path).absolute().as_uri()
    return f"[link={uri}]{_escape(name or path)}[/link]"


def table(
    title: str, columns: list[str], rows: Sequence[Sequence[Any]], *, markup: bool = False
) -> None:
    """A table on standard output; with `markup`, what looks like it in cells is meant."""
    grid = Table(title=title or None, title_justify="left", header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(_escape(cell) if not markup else cell for cell in row))
    out.print(grid)


@contextmanager
def progress(what: str) -> Generator[Callable[[int, int], None]]:
    """A bar on standard error; the value is called with items done and of all."""
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
