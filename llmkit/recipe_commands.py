"""``llmkit recipe``: parsing and printing only. Nothing heavy is imported here."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Recipes: check one, print the schema.", no_args_is_help=True)

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="key=value", help="Replace values, e.g. training.epochs=2."),
]


@app.command("check")
def recipe_check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Validate a recipe without running it.

    Looks at its keys and values, and whether the files, models and templates that it names are
    there; no rows are read and no model is loaded.
    """
    from llmkit.recipe_check import check_recipe

    for line in check_recipe(recipe, overrides or []):
        typer.echo(f"{recipe}: {line}")
    typer.echo(f"{recipe}: ok")


@app.command("schema")
def recipe_schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    import json

    from llmkit.recipe import recipe_schema as schema

    typer.echo(json.dumps(schema(), indent=2))
