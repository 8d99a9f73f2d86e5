"""Chat templates as programs: compile one in a sandbox, and run it on messages."""

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from data_prep.errors import RowError
from data_prep.tokenizer import Tokenizer


class _Generation(jinja2.ext.Extension):
    """Accept ``{% generation %}`` blocks, which some templates carry, and render what they hold."""

    tags = {"generation"}  # noqa: RUF012 (jinja2's own interface)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (as transformers defines the filter)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """A value as JSON text, as the ``tojson`` filter of chat templates writes it."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Jinja's sandbox, remembering its verdicts: they follow from the type and the name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._verdicts: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        key = (type(obj), attr)
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = super().is_safe_attribute(obj, attr, value)
        return verdict


def _environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    environment = _Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_Generation, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _strftime_now
    # The same rows must become the same tokens, in training and in serving.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


def run_template(
    compiled: jinja2.Template,
    tokenizer: Tokenizer,
    messages: Sequence[dict[str, Any]],
    generation_prompt: bool,  # noqa: FBT001 (the templates' own word)
    tools: Sequence[Any] = (),
) -> str:
    """The text that a compiled template writes for some messages.

    Raises:
        RowError: the template refused them, or failed.
    """
    try:
        return compiled.render(
            messages=messages,
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=generation_prompt,
            **tokenizer.special,
        )
    except jinja2.TemplateError as error:
        raise RowError("refused by the chat template", str(error)) from None
    except Exception as error:  # a template is a program of its own: anything may come out of it
        raise RowError("refused by the chat template", f"{type(error).__name__}: {error}") from None


def dates_written(source: str) -> list[str]:
    """The formats in which a template writes today's date.

    One that is computed is answered as empty, and so is the function by another name.
    """
    tree = _environment().parse(source)
    calls = [call for call in tree.find_all(jinja2.nodes.Call) if _is_date(call.node)]
    tests = [test for test in tree.find_all(jinja2.nodes.Test) if _is_date(test.node)]
    arguments = [call.args[0] if call.args else None for call in calls]
    named = sum(map(_is_date, tree.find_all(jinja2.nodes.Name)))
    otherwise = [""] * (named - len(calls) - len(tests))  # `strftime_now is defined` is neither
    return [a.value if isinstance(a, jinja2.nodes.Const) else "" for a in arguments] + otherwise


def _is_date(node: jinja2.nodes.Node) -> bool:
    return isinstance(node, jinja2.nodes.Name) and node.name == "strftime_now"


def with_date(source: str, day: date) -> str:
    """A template that writes one day, whenever it is rendered, in place of today."""
    written = {pattern: day.strftime(pattern) for pattern in dates_written(source)}
    return (
        "{%- macro strftime_now(pattern) -%}{{- "
        + json.dumps(written)
        + "[pattern] -}}{%- endmacro -%}\n"
        + source
    )


def compile_template(source: str) -> jinja2.Template:
    """Compile a chat template in a sandbox: it can neither change what it is given nor reach out.

    Raises:
        jinja2.TemplateSyntaxError: the source is not a template.
    """
    template = _environment().from_string(source)
    # Copied for every rendering; jinja's chain of mappings is slow to copy.
    template.globals = dict(template.globals)
    return template
