"""All commands. Each imports what it needs when it runs, so that `--help` is quick."""

from __future__ import annotations

import typer

from omnialign.cli.demo import demo
from omnialign.cli.listing import plugins, recipes
from omnialign.cli.query import classify, embed, search
from omnialign.cli.training import evaluate, train

app = typer.Typer(
    name="omnialign",
    help="Bring any kind of data into one embedding space with language.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)
app.command()(demo)
app.command()(train)
app.command()(evaluate)
app.command()(search)
app.command()(classify)
app.command()(embed)
app.command()(plugins)
app.add_typer(recipes, name="recipes")
