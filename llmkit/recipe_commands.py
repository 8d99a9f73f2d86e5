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

Generation = Annotated[
    bool, typer.Option("--generation", help="Of recipes for `llmkit generate`, not for training.")
]


@app.command("check")
def recipe_check(recipe: RecipeFile, overrides: Overrides = None) -> None:
    """Validate a recipe without running it.

    Looks at its keys and values, and whether the files, models and templates that it names are
    there; no rows are read and no model is loaded.
    """
    from llmkit.recipe_reading import GENERATES, looks_like

    if looks_like(recipe, *GENERATES):
        from llmkit.generation.checking import check_generation as check
    else:
        from llmkit.recipe_check import check_recipe as check
    for line in check(recipe, overrides or []):
        typer.echo(f"{recipe}: {line}")
    typer.echo(f"{recipe}: ok")


@app.command("schema")
def recipe_schema(generation: Generation = False) -> None:
    """Print the JSON schema of recipes, for editors."""
    import json

    if generation:
        from llmkit.generation.recipe import generation_schema as schema
    else:
        from llmkit.recipe import recipe_schema as schema
    typer.echo(json.dumps(schema(), indent=2))
