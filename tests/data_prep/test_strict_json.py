"""The quick way to parse JSON finds what the careful one does."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.strict_json import Problem, find_problem, loads, parse, parse_at


def carefully(text: str) -> object:
    """What a decoder with every hook, made for this text alone, says: a value or a reason."""
    problems = []

    def note(problem: str) -> Problem:
        problems.append(Problem(problem))
        return problems[-1]

    def finite(digits: str) -> object:
        number = float(digits)
        return number if math.isfinite(number) else note(f"{digits} is too large for a number")

    def unrepeated(pairs: list[tuple[str, object]]) -> object:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        return note(f"the key {repeated!r} stands twice in one object")

    try:
        value = json.loads(
            text,
            parse_constant=lambda name: note(f"NaN and Infinity are not allowed, found {name}"),
            parse_float=finite,
            object_pairs_hook=unrepeated,
        )
    except (ValueError, RecursionError) as error:
        return str(error)
    found = find_problem(value)
    return found.text if found else repr(value)


def quickly(text: str) -> object:
    try:
        return repr(loads(text))
    except (ValueError, RecursionError) as error:
        return str(error)


PIECES = [
    '"a"',
    '"b"',
    '"\\ud83d\\ude00"',
    '"\\ud800"',
    '"\\uDC00x"',
    '"\\n"',
    "1",
    "-2.5",
    "1e999",
]
PIECES += ["NaN", "-Infinity", "true", "null", "{", "}", "[", "]", ":", ",", " ", "\t", "\\", '"']
leaves = st.sampled_from(PIECES[:13])
documents = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(PIECES[:6]), inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)


@settings(max_examples=400)
@given(
    text=documents | st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    around=st.sampled_from(["", " ", "\n", "\u00a0", "x"]),
)
def test_it_says_the_same_as_the_careful_way(text, around):
    for document in (text, around + text, text + around):
        assert quickly(document) == carefully(document)


@settings(max_examples=200)
@given(text=documents, before=st.text(max_size=4))
def test_a_value_inside_a_text_is_the_same_as_alone(text, before):
    value, end, suspect = parse_at(f"{before}{text}, {text}", len(before))
    alone, _ = parse(text)
    assert repr(value) == repr(alone)
    assert end == len(before) + len(text)
    assert suspect or find_problem(value) is None


def test_what_is_wrong_is_found_however_deep_it_lies():
    for half, least in (("\\ud83d\\ude00", 0), ("\\ud83d", 1)):
        value, suspect = parse("[" * 900 + f'"{half}"' + "]" * 900)
        assert suspect
        assert bool(find_problem(value)) == bool(least)


def test_a_key_that_stands_twice_among_many_is_found_at_once():
    keys = ",".join(f'"k{n}":1' for n in range(100_000))
    with pytest.raises(ValueError, match="the key 'k99999' stands twice"):
        loads(f'{{{keys},"k99999":2}}')  # comparing each with each would take minutes


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}', "[1e999]"])
def test_what_python_would_lose_is_refused(text):
    with pytest.raises(ValueError, match=r"stands twice|too large"):
        loads(text)
