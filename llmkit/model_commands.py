"""``llmkit models``: parsing and printing only. Nothing heavy is imported here."""

from typing import Annotated

import typer

app = typer.Typer(help="Models: list the catalogue, fetch one.", no_args_is_help=True)


@app.command("list")
def models_list() -> None:
    """List the catalogue."""
    from llmkit.models.catalog import CATALOG, cache_folder

    wide = max(map(len, CATALOG))
    for entry in CATALOG.values():
        folder = cache_folder() / "models" / entry.name
        state = f"in {folder}" if (folder / "config.json").is_file() else "not fetched yet"
        what = f"{entry.kind}, {entry.source}, {entry.licence}, {state}"
        typer.echo(f"{entry.name:<{wide}}  {what}")
    typer.echo("Any other model: a local folder, or an id on the hub (owner/name).", err=True)


@app.command("pull")
def models_pull(name: Annotated[str, typer.Argument(help="A catalogue name or hub id.")]) -> None:
    """Fetch a model into the cache and print its folder."""
    from llmkit.models.catalog import resolve

    typer.echo(str(resolve(name, lambda text: typer.echo(text, err=True)).folder))
