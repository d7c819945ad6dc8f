"""All commands. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

from typing import Annotated

import typer

from omnialign.cli.benchmarks import mteb
from omnialign.cli.cache import cache
from omnialign.cli.comparison import compare
from omnialign.cli.copying import copy
from omnialign.cli.demo import demo
from omnialign.cli.exporting import export
from omnialign.cli.indexing import duplicates, index
from omnialign.cli.interpolation import interpolate
from omnialign.cli.listing import plugins, recipes
from omnialign.cli.output import out
from omnialign.cli.packing import pack
from omnialign.cli.query import classify, embed
from omnialign.cli.searching import search
from omnialign.cli.serving import serve
from omnialign.cli.sharing import card, push
from omnialign.cli.training import evaluate, train

app = typer.Typer(
    name="omnialign",
    help="Bring any kind of data into one embedding space with language.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        from omnialign import __version__

        out.print(__version__, highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    del version


app.command()(demo)
app.command()(pack)
app.command()(train)
app.command()(evaluate)
app.command()(index)
app.command()(search)
app.command()(duplicates)
app.command()(classify)
app.command()(embed)
app.command()(copy)
app.command()(serve)
app.command()(compare)
app.command()(interpolate)
app.command()(card)
app.command()(push)
app.command()(mteb)
app.command()(export)
app.command()(cache)
app.command()(plugins)
app.add_typer(recipes, name="recipes")
