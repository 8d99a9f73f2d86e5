"""``llmkit adapters``: parsing and printing only. Nothing heavy is imported here."""

import json
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Adapters of a running server: list, load, name, roll back, unload. A key with admin "
    "scope is read from LLMKIT_API_KEY.",
    no_args_is_help=True,
)

Url = Annotated[
    str, typer.Argument(metavar="URL", help="The server, such as http://127.0.0.1:8000/v1.")
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="What requests call it.")]
Json = Annotated[bool, typer.Option("--json", help="Print the server's answer as JSON.")]


@app.command("list")
def adapters_list(url: Url, as_json: Json = False) -> None:
    """List the versions, their aliases and the free slots."""
    from llmkit.adapter_client import ask

    found = ask(url, "GET", "")
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found["data"]:
        typer.echo(_line(each))
    slots = found["slots"]
    typer.echo(f"{slots['used']} of {slots['total']} slots are in use", err=True)


@app.command("load")
def adapters_load(
    url: Url,
    name: Name,
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="A run, relative to the server's adapters_folder.")
    ],
    version: Annotated[
        int | None, typer.Option("--version", min=1, help="Its number; the next if not given.")
    ] = None,
    alias: Annotated[
        bool | None,
        typer.Option(
            "--alias/--no-alias",
            help="Let NAME mean it. Not given: if NAME means nothing yet.",
            show_default=False,
        ),
    ] = None,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="Load it although nothing says which base it was trained on."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check an adapter and load it as the next version of NAME."""
    from llmkit.adapter_client import ask

    body = {
        "name": name,
        "path": path,
        "version": version,
        "alias": alias,
        "unverified": unverified,
    }
    _show(ask(url, "POST", "", body), as_json)


@app.command("alias")
def adapters_alias(
    url: Url,
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version's number.")],
    as_json: Json = False,
) -> None:
    """Let NAME mean a version, from the next request on."""
    from llmkit.adapter_client import ask

    _show(ask(url, "POST", f"/{name}/alias", {"version": version}), as_json)


@app.command("rollback")
def adapters_rollback(url: Url, name: Name, as_json: Json = False) -> None:
    """Let NAME mean the version that it meant before."""
    from llmkit.adapter_client import ask

    _show(ask(url, "POST", f"/{name}/rollback", {}), as_json)


@app.command("unload")
def adapters_unload(
    url: Url,
    what: Annotated[
        str,
        typer.Argument(metavar="NAME[@VERSION]", help="A version; without one, only the alias."),
    ],
    as_json: Json = False,
) -> None:
    """Unload a version once its requests are done, or remove an alias."""
    from llmkit.adapter_client import ask

    done = ask(url, "DELETE", f"/{what}")
    if as_json:
        typer.echo(json.dumps(done))
        return
    ended = done.get("requests_ended", 0)
    told = f"; {ended} requests were ended before they were done" if ended else ""
    typer.echo(f"{done['id']} is {'unloaded' if '@' in what else 'no alias any more'}{told}")


def _show(adapter: dict[str, Any], as_json: bool) -> None:
    typer.echo(json.dumps(adapter) if as_json else _line(adapter))


def _line(adapter: dict[str, Any]) -> str:
    alias = f" = {adapter['alias']}" if adapter["alias"] else ""
    verified = "verified" if adapter["verified"] else "unverified"
    return (
        f"{adapter['id']}{alias}  {adapter['status']}, {adapter['path']}, rank {adapter['rank']}, "
        f"{verified}, {adapter['requests']} requests under way"
    )
