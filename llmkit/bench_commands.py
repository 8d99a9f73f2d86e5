"""``llmkit bench``: parsing and printing only. Nothing heavy is imported here."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit.errors import UsageError

if TYPE_CHECKING:
    from serve.bench.load import Load
    from serve.bench.workload import Ask

app = typer.Typer(
    help="Measure: a server under load, or what caches and batching save.", no_args_is_help=True
)

Out = Annotated[Path, typer.Option("--out", help="Folder for the plots and index.html.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@app.command("serve")
def bench_serve(
    url: Annotated[str, typer.Argument(help="Base URL of any OpenAI endpoint, ending in /v1.")] = (
        "http://127.0.0.1:8000/v1"
    ),
    model: Annotated[str | None, typer.Option(help="Default: the first that is listed.")] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Requests at once, such as 1,8,32. Default without --rate.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests a second (Poisson), such as 0.5,2.")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Requests of each load.")] = 64,
    input_tokens: Annotated[int, typer.Option(min=1, help="Words of each prompt.")] = 64,
    output_tokens: Annotated[
        str, typer.Option(help="Most tokens of an answer; 16,128 takes turns.")
    ] = "64",
    prefix_tokens: Annotated[int, typer.Option(min=0, help="Words all prompts begin with.")] = 0,
    file: Annotated[
        Path | None, typer.Option(help="JSONL of messages or prompt, instead of random words.")
    ] = None,
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Stream answers.")] = True,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Answers of full length (vLLM, SGLang, llmkit).")
    ] = False,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
    out: Out = Path("bench-serve"),
    as_json: Json = False,
) -> None:
    """Put load on a server and plot what clients would feel.

    TTFT, time per output token, latency and throughput for every concurrency and rate, against
    any OpenAI-compatible endpoint. A key is read from LLMKIT_API_KEY, or OPENAI_API_KEY.
    """
    from serve.bench.client import Target
    from serve.bench.measure import first_model, measure, row, write

    key = os.environ.get("LLMKIT_API_KEY") or os.environ.get("OPENAI_API_KEY")
    base = url.rstrip("/")
    lengths = _whole(output_tokens, "--output-tokens")
    asks = _asks(file, requests, input_tokens, lengths, prefix_tokens, seed)
    loads = _loads(concurrency, rate)
    target = Target(base, model or first_model(base, key), key, stream, ignore_eos)
    summaries = measure(
        target,
        asks,
        loads,
        on_round=lambda done: typer.echo(f"{done.load}: {done.seconds:.1f} s", err=True),
    )
    remark = f"{requests} requests a load; "
    if file is None:
        remark += f"answers end after {max(lengths)} tokens at most."
    else:
        remark += f"each from {file.name}: later ones may find their prompts cached."
    page = write(out, target, summaries, [remark])
    if as_json:
        typer.echo(json.dumps([each.as_json() for each in summaries]))
    else:
        _show([row(each) for each in summaries])
        typer.echo(f"plots: {page}")
    failed = sum(sum(each.errors.values()) for each in summaries)
    if failed:
        kinds = {kind for each in summaries for kind in each.errors}
        typer.echo(f"{failed} requests failed: {', '.join(sorted(kinds))}", err=True)
        raise typer.Exit(1)


@app.command("cache")
def bench_cache(
    what: Annotated[str, typer.Argument(metavar="MODEL", help="A model folder, or a name.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key=value", help="Server settings, e.g. max_model_len=2048."),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="Context that KV caching starts at.")
    ] = 128,
    new_tokens: Annotated[int, typer.Option(min=3, help="Tokens timed one by one.")] = 64,
    prefix_tokens: Annotated[int, typer.Option(min=1, help="Words that prompts share.")] = 512,
    requests: Annotated[
        int, typer.Option(min=2, help="Requests of a measurement, more than --batch.")
    ] = 16,
    batch: Annotated[int, typer.Option(min=1, help="Requests at once when batching.")] = 8,
    lengths: Annotated[str, typer.Option(help="Answers' lengths when batching.")] = "8,16,32,128",
    out: Out = Path("bench-cache"),
    as_json: Json = False,
) -> None:
    """Show what the KV cache, prefix caching and continuous batching save on this machine."""
    from dataclasses import asdict

    from llmkit.models.catalog import refuse_other_kind
    from llmkit.serving import plain_model, with_overrides
    from serve.bench.cache import measure_cache, rows, write_cache
    from serve.settings import ServeSettings

    if requests <= batch:
        raise UsageError(
            f"--requests {requests} is one batch of {batch}, in which continuous batching has "
            f"nothing to save: give more than --batch, such as {2 * batch}."
        )
    settings = with_overrides(ServeSettings(), overrides or [])
    model = plain_model(what)
    refuse_other_kind(what, "language model", model.path)
    figures = measure_cache(
        model,
        settings,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        prefix_tokens=prefix_tokens,
        requests=requests,
        batch=batch,
        lengths=_whole(lengths, "--lengths"),
        say=lambda text: typer.echo(text, err=True),
    )
    page = write_cache(out, model.name, figures)
    if as_json:
        typer.echo(json.dumps(asdict(figures)))
        return
    _show(rows(figures))
    typer.echo(f"plots: {page}")


def _asks(
    file: Path | None,
    requests: int,
    input_tokens: int,
    lengths: list[int],
    prefix_tokens: int,
    seed: int,
) -> "Callable[[int], list[Ask]]":
    """The requests of a load, by its number: a file's are the same for all."""
    from serve.bench.workload import from_file, made_up

    if file is None:
        # No load of this run, nor of one with another seed, asks the same.
        return lambda load: made_up(
            requests, input_tokens, lengths, prefix_tokens=prefix_tokens, seed=1000 * seed + load
        )
    asks = from_file(file, max(lengths))
    repeated = [asks[index % len(asks)] for index in range(requests)]
    return lambda _: repeated


def _loads(concurrency: str | None, rate: str | None) -> "list[Load]":
    from serve.bench.load import Load

    if concurrency is None and rate is None:
        concurrency = "1,2,4,8,16,32"
    loads = []
    if concurrency is not None:
        loads += [Load(concurrency=number) for number in _whole(concurrency, "--concurrency")]
    if rate is not None:
        loads += [Load(rate=number) for number in _numbers(rate, "--rate")]
    return loads


def _whole(text: str, option: str) -> list[int]:
    numbers = _numbers(text, option)
    if any(number != int(number) for number in numbers):
        raise UsageError(f"{option} {text!r}: give whole numbers, with commas: 1,8,32.")
    return [int(number) for number in numbers]


def _numbers(text: str, option: str) -> list[float]:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or any(not 0 < number < 1e9 for number in numbers):
        raise UsageError(f"{option} {text!r}: give numbers above 0, with commas: 1,8,32.")
    return numbers


def _show(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="left" if name == next(iter(rows[0])) else "right")
    for row in rows:
        table.add_row(*row.values())
    # Where the output is no terminal nothing is to be cut to the width of one.
    width = None if sys.stdout.isatty() else 200
    Console(width=width).print(table)
