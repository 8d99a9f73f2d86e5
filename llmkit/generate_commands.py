"""``llmkit generate``: parsing and printing only. Nothing heavy is imported here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit import opening
from llmkit.recipe_commands import Overrides, RecipeFile

if TYPE_CHECKING:
    from llmkit.generation.recipe import Method

app = typer.Typer(
    help="Have a teacher write training rows: Evol-Instruct, Self-Instruct, Alpaca, or answers.",
    no_args_is_help=True,
)

Out = Annotated[
    Path, typer.Option("--out", metavar="FOLDER", help="Where folders of generations are.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

DEFAULT_OUT = Path("generated")


@app.command("evol-instruct")
def evol_instruct(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make instructions harder, or others like them, round by round, and answer them.

    Run it again to go on where it stopped: no call that was answered is made twice.
    """
    _generate("evol-instruct", recipe, overrides, out, quiet, as_json)


@app.command("self-instruct")
def self_instruct(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make new tasks from a few, each unlike all before, with inputs and outputs.

    self_instruct.variant=alpaca makes them in one call a batch. Run it again to go on where it
    stopped: no call that was answered is made twice.
    """
    _generate("self-instruct", recipe, overrides, out, quiet, as_json)


@app.command("answers")
def answers(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = DEFAULT_OUT,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Answer instructions that are there: the best of several, judged.

    Run it again to go on where it stopped: no call that was answered is made twice.
    """
    _generate("answers", recipe, overrides, out, quiet, as_json)


def _generate(
    method: "Method",
    recipe: Path,
    overrides: list[str] | None,
    out: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    from llmkit.generation.recipe import read_for
    from llmkit.generation.running import generate
    from llmkit.generation.telling import tell

    view = opening.view_of(quiet, as_json)
    read = read_for(method, recipe, overrides or [])
    try:
        done = generate(method, read, out / read.name, view)
    finally:
        view.close()
    if as_json:
        import json

        typer.echo(json.dumps(done.figures))
    elif not quiet:
        typer.echo(tell(done))
    if done.stopped:
        typer.echo(str(done.stopped), err=True)
        raise typer.Exit(done.stopped.exit_code)
