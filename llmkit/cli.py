"""Every command: parsing and printing only.

Nothing heavy is imported here; each command imports what it needs, so that ``--help`` is instant.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit import (
    adapter_commands,
    bench_commands,
    generate_commands,
    key_commands,
    model_commands,
    opening,
    recipe_commands,
    tokenizer_commands,
)
from llmkit.chat_command import chat
from llmkit.interruption import INTERRUPTED, heeding_sigterm
from llmkit.recipe_commands import Overrides, RecipeFile

app = typer.Typer(
    help="Raw rows in, a fine-tuned model behind an OpenAI-compatible endpoint out, and every "
    "stage proves what it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)
app.add_typer(adapter_commands.app, name="adapters")
app.add_typer(bench_commands.app, name="bench")
app.add_typer(generate_commands.app, name="generate")
app.add_typer(key_commands.app, name="keys")
app.add_typer(model_commands.app, name="models")
app.add_typer(recipe_commands.app, name="recipe")
app.add_typer(tokenizer_commands.app, name="tokenizer")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, runs/NAME.")]
Runs = Annotated[Path, typer.Option("--runs", help="Where run directories are.")]
ProcessCount = Annotated[
    int | None,
    typer.Option(
        "--processes", min=1, help="Train in so many processes, each on a GPU of its own."
    ),
]
AccelerateConfig = Annotated[
    str | None,
    typer.Option(
        "--accelerate",
        metavar="CONFIG",
        help="How they share the model: ddp, fsdp2, fsdp2_offload, deepspeed_zero2, "
        "deepspeed_zero3, or a configuration file of accelerate's.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

DEFAULT_RUNS = Path("runs")


@app.callback()
def _main(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Options for every command."""
    _settings["debug"] = debug
    if version:
        import llmkit

        typer.echo(f"llmkit {llmkit.__version__}")
        raise typer.Exit


_settings = {"debug": False}


@app.command()
def quickstart(
    overrides: Overrides = None,
    runs: Runs = DEFAULT_RUNS,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go the whole way on this machine, in minutes.

    Fine-tunes a 135M model on rows that ship with llmkit, merges, verifies it on a real server, and
    asks it and its base the same questions.
    """
    from llmkit.quickstart import run_quickstart

    run_quickstart(overrides or [], runs, opening.view_of(quiet, as_json))


@app.command()
def run(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = DEFAULT_RUNS,
    processes: ProcessCount = None,
    accelerate: AccelerateConfig = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Do every stage of a recipe.

    Prep, train, merge, verify, evaluate, report. Run it again to go on where it stopped; stages
    whose inputs have not changed are skipped.
    """
    from llmkit.pipeline import run_recipe, what_next

    view = opening.view_of(quiet, as_json)
    project = opening.checked_project(recipe, overrides, runs, view)
    together = opening.processes(project, processes, accelerate)
    if opening.helped_train(project, together):
        return
    path = run_recipe(project, together)
    view.say(f"report: {path}")
    view.say(what_next(project))


@app.command()
def prep(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE",
            help="The recipe, a YAML file; for --convert also a data file, a folder or a pattern.",
        ),
    ],
    overrides: Overrides = None,
    runs: Runs = DEFAULT_RUNS,
    audit: Annotated[
        bool,
        typer.Option(
            "--audit", help="Replay every certificate: of duplicates, and of evaluation texts."
        ),
    ] = False,
    convert: Annotated[
        str | None,
        typer.Option(
            "--convert",
            metavar="FORMAT",
            help="Write the rows as JSONL of this format (openai, sharegpt, ...) and stop.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="The new file that --convert writes; by default runs/NAME/FORMAT.jsonl, or of "
            "a data file NAME.FORMAT.jsonl here.",
        ),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Prepare the data.

    Reads, checks, renders, filters, deduplicates and packs it, accounts for every row and token,
    and writes a data report.
    """
    from llmkit import preparing

    view = opening.view_of(quiet, as_json)
    if convert is not None and audit:
        raise typer.BadParameter("is for preparing, not for --convert", param_hint="--audit")
    if convert is not None:
        from llmkit.conversion import convert as convert_data

        convert_data(recipe, overrides or [], convert, out, runs, view)
        return
    if out is not None:
        raise typer.BadParameter("is for --convert", param_hint="--out")
    with opening.checked_project(recipe, overrides, runs, view) as project:
        if audit:
            preparing.refuse_changed_evidence(project)
        preparing.prep(project)
        if audit:
            preparing.audit(project)


@app.command()
def preview(
    recipe: RecipeFile,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows to show.")] = 3,
) -> None:
    """Show rows as the model will see them.

    Tokens that carry loss are coloured. Rows are masked, filtered and cut as they are for training;
    those that are not trained on are shown with the reason. Nothing is written.
    """
    from llmkit.preview import show_rows
    from llmkit.recipe import load_recipe

    show_rows(load_recipe(recipe, overrides or []), rows)


@app.command()
def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = DEFAULT_RUNS,
    with_probe: Annotated[
        bool,
        typer.Option("--probe", help="Run the longest step too, in a process of its own."),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Say what a training will take, before it is paid for.

    Memory line by line, steps and time, and which machines it fits or what would make it fit. From
    the model's shapes: no weights are loaded, and the run directory is only read, also while a
    training holds it.
    """
    import json

    from llmkit.planning.command import plan_project
    from llmkit.planning.text import plan_lines

    view = opening.view_of(quiet or as_json, False)
    found = plan_project(opening.project(recipe, overrides, runs, view), with_probe=with_probe)
    if as_json:
        typer.echo(json.dumps(found.as_dict()))
    elif not quiet:
        for line in plan_lines(found):
            typer.echo(line)


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    runs: Runs = DEFAULT_RUNS,
    processes: ProcessCount = None,
    accelerate: AccelerateConfig = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train adapters, the last layers, or all weights.

    Prepares the data first if it changed. An interrupted training is resumed.
    """
    from llmkit import preparing, stages

    project = opening.checked_project(recipe, overrides, runs, opening.view_of(quiet, as_json))
    together = opening.processes(project, processes, accelerate)
    if opening.helped_train(project, together):
        return
    with project:
        stages.check_training_ahead(project)
        preparing.prep(project)
        stages.train(project, together)


@app.command()
def merge(run_folder: RunFolder, quiet: Quiet = False, as_json: Json = False) -> None:
    """Merge what a run trained into its base.

    Measures how far the merged model is from the trained one, and refuses when it is too far.
    """
    from llmkit import stages

    with opening.opened(run_folder, quiet, as_json) as project:
        stages.merge(project)


@app.command()
def verify(run_folder: RunFolder, quiet: Quiet = False, as_json: Json = False) -> None:
    """Check that trained = merged = served.

    Starts a server on the run's merged model for as long as the checks take.
    """
    from llmkit import stages

    with opening.opened(run_folder, quiet, as_json) as project, opening.servers(project) as servers:
        stages.verify(project, servers)


@app.command()
def evaluate(run_folder: RunFolder, quiet: Quiet = False, as_json: Json = False) -> None:
    """Ask base and tuned model the same questions.

    Both are served, one after the other; the answers go into the run's report.
    """
    from llmkit import stages

    with opening.opened(run_folder, quiet, as_json) as project, opening.servers(project) as servers:
        stages.evaluate(project, servers)


@app.command()
def serve(
    what: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_MODEL", help="A run directory, a model folder, or a name."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Server settings, e.g. max_model_len=2048."),
    ] = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port; 0 picks a free one.")] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Serve a run although verification did not pass.")
    ] = False,
) -> None:
    """Serve a model behind an OpenAI-compatible endpoint.

    A run is served only when its verification passed, is about this model, and was made with these
    settings.
    """
    from llmkit.serving import serve_run_or_model

    serve_run_or_model(what, overrides or [], host, port, unverified)


app.command()(chat)


@app.command()
def doctor() -> None:
    """Say what this machine can do."""
    from llmkit.doctor import examine

    found = examine()
    wide = max(map(len, found))
    for name, value in found.items():
        typer.echo(f"{name:<{wide}} {value}")


def main() -> None:
    """Run the command line; errors become messages and exit codes."""
    sys.exit(_guarded(app))


def _guarded(command: Callable[..., Any]) -> int:
    with heeding_sigterm() as stop:
        code = _code_of(command)
    if code == INTERRUPTED:
        typer.echo("stopped; the same command goes on where it was", err=True)
        return stop.exit_code
    return code


def _code_of(command: Callable[..., Any]) -> int:
    try:
        # Answers the code of a typer.Exit, or what the command returns.
        done = command(prog_name="llmkit", standalone_mode=False)
    except KeyboardInterrupt:  # before typer listens, or when it no longer does
        return INTERRUPTED
    except Exception as error:
        if _settings["debug"]:
            import traceback

            traceback.print_exception(error)
        return _explain(error)
    return done if isinstance(done, int) else 0


def _explain(error: Exception) -> int:
    code = getattr(error, "exit_code", None)
    show = getattr(error, "show", None)
    if callable(show) and isinstance(code, int):  # typer's own, for a wrong command line
        show()
        return code
    if isinstance(code, int):
        typer.echo(f"error: {error}", err=True)
        return code
    if isinstance(error, ModuleNotFoundError):
        typer.echo(f"error: {error.name} is not installed here. Run: make install", err=True)
        return 1
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"error: {where}{error.strerror}", err=True)
        return 1
    typer.echo(
        f"error: unexpected {type(error).__name__}: {error}\n"
        "This is a defect of llmkit; run again with `llmkit --debug ...` and report the traceback.",
        err=True,
    )
    return 1
