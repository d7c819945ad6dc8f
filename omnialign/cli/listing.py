"""`plugins` and `recipes`: what is installed and what is shipped."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from omnialign.cli.output import Json, note, out, print_json, table

recipes = typer.Typer(
    help="List the shipped recipes, show one, or print the JSON Schema.\n\n"
    "Example: `omnialign recipes show image-text > mine.toml`",
    invoke_without_command=True,
)


def plugins(json: Json = False) -> None:
    """List installed plugins, what they provide, and why one is broken.

    Example: `omnialign plugins`
    """
    from omnialign.registry import registry

    found = registry()
    listed: list[dict[str, Any]] = [
        {
            **vars(plugin),
            "state": "broken" if plugin.problem else "ok",
            "modalities": [
                {
                    "name": name,
                    "encoders": list(found.encoders(name)),
                    "augmentations": list(found.modalities[name].augmentations),
                    "suffixes": sorted(found.modalities[name].suffixes),
                }
                for name in plugin.modalities
            ],
        }
        for plugin in found.plugins
    ]
    if json:
        print_json({"plugins": listed})
        return
    rows: list[list[str]] = []
    for plugin in listed:
        for m in plugin["modalities"]:
            suffixes = " ".join(m["suffixes"])
            rows.append([m["name"], plugin["name"], ", ".join(m["encoders"]), suffixes])
        rows += [[f"source {name}", plugin["name"], "", ""] for name in plugin["sources"]]
        rows += [[f"models {name}:…", plugin["name"], "", ""] for name in plugin["formats"]]
    table("", ["provides", "plugin", "encoders", "files"], rows)
    for plugin in listed:
        if plugin["problem"]:
            note(f"broken: {plugin['name']} ({plugin['distribution']}): {plugin['problem']}")


@recipes.callback()
def list_recipes(context: typer.Context, json: Json = False) -> None:
    import tomllib

    from omnialign.recipe import shipped_recipes

    if context.invoked_subcommand:
        return
    listed = [
        {
            "name": name,
            "description": tomllib.loads(path.read_text("utf-8")).get("description", ""),
            "path": str(path),
        }
        for name, path in shipped_recipes().items()
    ]
    if json:
        print_json({"recipes": listed})
    else:
        table("", ["recipe", "description"], [[r["name"], r["description"]] for r in listed])


@recipes.command()
def show(
    name: Annotated[str, typer.Argument(help="A shipped recipe, or a file.")],
    resolved: Annotated[bool, typer.Option(help="Write out every default.")] = False,
) -> None:
    """Print a recipe, to read or to start from.

    Example: `omnialign recipes show audio-text --resolved`
    """
    from omnialign.overrides import read_toml
    from omnialign.recipe import find_recipe, load_recipe, to_toml

    file = find_recipe(name)
    read_toml(file)
    text = to_toml(load_recipe(file)) if resolved else file.read_text("utf-8")
    out.file.write(text)


@recipes.command()
def schema() -> None:
    """Print the JSON Schema of recipes, with all that is installed, for editors.

    Example: `omnialign recipes schema > recipe.schema.json`
    """
    from omnialign.recipe.schema import recipe_schema
    from omnialign.registry import registry

    print_json(recipe_schema(registry()))
