"""`llmkit serve`: a run's merged model, if it was verified, or any model."""

import json
import sys
from pathlib import Path

import pydantic
from ruamel.yaml import YAML

from llmkit.errors import CheckFailed, UsageError
from llmkit.models.catalog import resolve
from llmkit.recipe import load_recipe
from serve.model import ServedModel, open_model
from serve.settings import ServeSettings


def serve_run_or_model(
    what: str,
    overrides: list[str],
    host: str | None,
    port: int | None,
    unverified: bool,  # noqa: FBT001 (a command line switch, passed on)
) -> None:
    """Serve until a signal comes.

    Args:
        what: a run directory, a model folder, a catalogue name or a hub id.
        overrides: ``key=value`` words for the server's settings.
        host: address to listen on, instead of the settings'.
        port: port to listen on, instead of the settings'.
        unverified: serve a run although its verification did not pass.

    Raises:
        CheckFailed: a run whose verification failed or was not done.
        UsageError: an unknown setting, or nothing of that name.
    """
    from serve.app import run_server

    folder = Path(what)
    if (folder / "manifest.json").is_file():
        settings = load_recipe(folder / "recipe.yaml").serve
        if not unverified:
            refuse_unverified(folder)
        model = open_model(folder / "merged", name=folder.resolve().name)
    else:
        settings = ServeSettings()
        model = _plain_model(what)
    words = [*overrides]
    words += [f"host={host}"] if host else []
    words += [f"port={port}"] if port is not None else []
    settings = with_overrides(settings, words)
    run_server(model, settings, on_ready=lambda url: _say_ready(url, model.name))


def refuse_unverified(run: Path) -> None:
    """Refuse a run that is not proven to serve what it trained.

    Raises:
        CheckFailed: there is no verdict, it says no, or the merged model is newer than it.
    """
    path = run / "verification.json"
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]
    if not path.is_file() or "verify" not in manifest:
        raise CheckFailed(
            f"{run}: was not verified. Run `llmkit verify {run}`, or serve it --unverified."
        )
    merged = manifest.get("merge", {}).get("outputs", {}).get("merged", {}).get("sha256")
    if manifest["verify"]["inputs"].get("merged") != merged:
        raise CheckFailed(f"{run}: was merged again since it was verified: llmkit verify {run}")
    verdict = json.loads(path.read_text(encoding="utf-8"))
    if not verdict["passed"]:
        failed = ", ".join(check["name"] for check in verdict["checks"] if not check["passed"])
        raise CheckFailed(
            f"{run}: verification failed ({failed}); see {path}. It would not serve what was "
            "trained. To serve it all the same: --unverified"
        )


def with_overrides(settings: ServeSettings, words: list[str]) -> ServeSettings:
    """Settings with ``key=value`` words applied.

    Raises:
        UsageError: an unknown key, or a value that does not fit.
    """
    values = settings.model_dump()
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in ServeSettings.model_fields:
            allowed = ", ".join(ServeSettings.model_fields)
            raise UsageError(f"{word!r}: not a server setting. Write key=value; keys: {allowed}.")
        values[key] = YAML(typ="safe").load(text)
    try:
        return ServeSettings.model_validate(values)
    except pydantic.ValidationError as error:
        problems = (f"{e['loc'][0]}: {e['msg']} (found {e['input']!r})" for e in error.errors())
        raise UsageError("; ".join(problems)) from None


def _plain_model(what: str) -> ServedModel:
    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    found = resolve(what, say)
    return open_model(found.folder, name=Path(found.name).name)


def _say_ready(url: str, name: str) -> None:
    sys.stdout.write(
        f"serving {name} at {url}\n"
        f"  curl {url}/chat/completions -H 'Content-Type: application/json' -d "
        f'\'{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}\'\n'
        "  Ctrl-C ends it; requests in flight are finished first.\n"
    )
    sys.stdout.flush()
