import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import MOST_DETAIL, RowError
from data_prep.formats.alpaca import alpaca
from data_prep.formats.detection import detect
from data_prep.formats.human_assistant import guanaco
from data_prep.formats.openai import openai
from data_prep.formats.registry import CONVERTERS, FormatName, convert
from data_prep.formats.sharegpt import sharegpt
from data_prep.formats.unused import unused_fields
from data_prep.row_checks import check_row, merge_roles
from data_prep.rows import (
    Completion,
    Conversation,
    Message,
    Text,
    check_conversation,
    merge_repeated_roles,
)

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}


CALL_0 = {"id": "call_0"} | CALL
WEATHER_AS_SERVED = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": None,
        "parameters": WEATHER["function"]["parameters"],
    },
}


def turns(*pairs: tuple[str, str]) -> Conversation:
    return Conversation(tuple(Message(role, content) for role, content in pairs))


QUESTION_AND_ANSWER = turns(("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("name", "record", "row"),
    [
        ("alpaca", {"instruction": "q", "input": "", "output": "a"}, QUESTION_AND_ANSWER),
        ("alpaca", {"instruction": "q", "input": None, "output": "a"}, QUESTION_AND_ANSWER),
        (
            "alpaca",
            {
                "instruction": "q",
                "input": "i",
                "output": "a",
                "system": "s",
                "history": [["q0", "a0"]],
            },
            turns(
                ("system", "s"),
                ("user", "q0"),
                ("assistant", "a0"),
                ("user", "q\ni"),
                ("assistant", "a"),
            ),
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            QUESTION_AND_ANSWER,
        ),
        (
            "sharegpt",
            {
                "system": "s",
                "tools": json.dumps([WEATHER]),
                "conversations": [
                    {"from": "user", "value": "q"},
                    {"from": "function_call", "value": json.dumps(CALL["function"])},
                    {"from": "observation", "value": "sunny"},
                    {"from": "assistant", "value": "a"},
                ],
            },
            Conversation(
                (
                    Message("system", "s"),
                    Message("user", "q"),
                    Message("assistant", "", (CALL_0,)),
                    Message("tool", "sunny", tool_call_id="call_0"),
                    Message("assistant", "a"),
                ),
                (WEATHER_AS_SERVED,),
            ),
        ),
        (
            "openai",
            {
                "messages": [
                    {"role": "user", "content": "q"},
                    {"role": "assistant", "content": "a", "tool_calls": None, "weight": 1},
                ],
                "tools": None,
            },
            QUESTION_AND_ANSWER,
        ),
        (
            "openai",
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "q"}, {"type": "text", "text": "i"}],
                    },
                    {"role": "assistant", "content": "a"},
                ]
            },
            turns(("system", "s"), ("user", "q\ni"), ("assistant", "a")),
        ),
        (
            "sharegpt",
            {
                "conversations": [
                    {"role": "system", "content": "s"},
                    {"role": "human", "content": "q"},
                    {"role": "assistant", "value": "a"},
                ]
            },
            turns(("system", "s"), ("user", "q"), ("assistant", "a")),
        ),
        ("completion", {"prompt": "q", "completion": "a"}, Completion("q", "a")),
        (
            "completion",
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
            Conversation((Message("user", "q", train=False), Message("assistant", "a"))),
        ),
        ("dolly", {"instruction": "q", "context": "", "response": "a"}, QUESTION_AND_ANSWER),
        (
            "dolly",
            {"instruction": "q", "context": "i", "response": "a", "category": "closed_qa"},
            turns(("user", "q\ni"), ("assistant", "a")),
        ),
        ("qa", {"question": "q", "answer": "a"}, QUESTION_AND_ANSWER),
        ("qa", {"query": "q", "response": "a", "type": "t"}, QUESTION_AND_ANSWER),
        ("qa", {"input": "q", "output": "a", "subject": "s"}, QUESTION_AND_ANSWER),
        (
            "qa",
            {"system": "s", "question": "q", "context": "i", "answer": "a"},
            turns(("system", "s"), ("user", "q\ni"), ("assistant", "a")),
        ),
        (
            "self_instruct",
            {"instruction": "q", "instances": [{"input": "i", "output": "a"}]},
            turns(("user", "q\ni"), ("assistant", "a")),
        ),
        ("text", {"text": " a page\n", "url": "https://example.org", "id": 7}, Text(" a page\n")),
        ("guanaco", {"text": "### Human: q### Assistant: a"}, QUESTION_AND_ANSWER),
        ("guanaco", {"input": "### Human: q ### Assistant:", "output": "a"}, QUESTION_AND_ANSWER),
        ("guanaco", {"input": "### Human: q", "output": "### Assistant: a"}, QUESTION_AND_ANSWER),
    ],
)
def test_a_record_of_each_format_becomes_its_row_and_is_recognised(name, record, row):
    assert CONVERTERS[name](record) == row
    assert detect(record).format == name


def test_every_format_that_a_recipe_may_name_has_a_converter():
    assert {"auto", *CONVERTERS} == set(get_args(FormatName))


def test_arguments_given_as_json_text_and_as_an_object_make_the_same_row():
    def row(arguments: object) -> object:
        call = {"type": "function", "function": {"name": "weather", "arguments": arguments}}
        return CONVERTERS["openai"](
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}
        )

    assert (
        row('{"city": "Paris"}')
        == row({"city": "Paris"})
        == Conversation((Message("assistant", "", (CALL_0,)),))
    )
    assert row(None) == row("") == row("{}") == row({})


@pytest.mark.parametrize(
    ("name", "record", "problem"),
    [
        ("alpaca", {"instruction": "q"}, "missing field: 'output'; the row has: instruction"),
        ("alpaca", {"instruction": None, "output": "a"}, "missing field: 'instruction' is null"),
        (
            "alpaca",
            {"instruction": "q", "output": 5},
            "wrong field: 'output' wants text, found a number",
        ),
        ("alpaca", {"instruction": "q", "output": "a", "input": 0}, "'input' wants text"),
        ("alpaca", {"instruction": "q", "output": "a", "input": float("nan")}, "found a number"),
        ("alpaca", {"instruction": "q", "output": "a", "system": []}, "'system' wants text"),
        ("alpaca", {"instruction": "q", "output": "a", "history": 5}, "'history' wants a list"),
        ("alpaca", {"instruction": "q", "output": "a", "history": "qa"}, "'history' wants a list"),
        ("alpaca", {"instruction": "q", "output": "a", "history": {"q": "a"}}, "'history' wants"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q"]]}, "'history' wants a"),
        ("alpaca", {"instruction": "q", "output": "a", "history": [["q", None]]}, "is null"),
        ("sharegpt", {"conversations": None}, "'conversations' wants a list of objects"),
        ("sharegpt", {"conversations": "x"}, "'conversations' wants a list of objects"),
        ("sharegpt", {"conversations": [["human", "q"]]}, "'conversations' wants a list of obj"),
        ("sharegpt", {"conversations": [{"from": "Human", "value": "q"}]}, "unknown role: 'Human'"),
        ("sharegpt", {"conversations": [{"value": "q"}]}, "unknown role: None"),
        ("sharegpt", {"conversations": [{"from": "human", "value": ["q"]}]}, "found a list"),
        (
            "sharegpt",
            {"conversations": [{"from": "function_call", "value": "weather()"}]},
            "a function_call wants JSON",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "function_call", "value": "[1]"}]},
            "a tool call wants an object with the function's 'name'",
        ),
        ("sharegpt", {"conversations": [], "tools": "not json"}, "'tools' is text but not JSON"),
        ("sharegpt", {"conversations": [], "tools": "[" * 10**5}, "'tools' is text but not JSON"),
        ("sharegpt", {"conversations": [], "tools": {"name": "x"}}, "'tools' wants a list"),
        ("sharegpt", {"conversations": [], "tools": ["weather"]}, "a tool wants an object"),
        ("openai", {"messages": [], "tools": [{"function": "weather"}]}, "a tool wants an object"),
        ("openai", {"messages": [], "tools": [{"type": "function"}]}, "a tool wants an object"),
        ("openai", {"messages": [{"role": "user", "content": None}]}, "'content' is null"),
        ("openai", {"messages": [{"content": "q"}]}, "missing field: 'role'"),
        (
            "openai",
            {"messages": [{"from": "human", "value": "q"}]},
            "name the list 'conversations'",
        ),
        ("openai", {"messages": None}, "wants a list of objects, found null"),
        ("openai", {"messages": {"role": "user"}}, "wants a list of objects, found an object"),
        (
            "openai",
            {"messages": [{"role": "user", "content": "q"}, None]},
            "found null as number 2",
        ),
        (
            "openai",
            {"messages": [{"role": 1, "content": "q"}]},
            "'role' wants text, found a number",
        ),
        (
            "openai",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "'content' has a part of type 'image_url'; allowed: text",
        ),
        (
            "openai",
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": "weather()"}]},
            "'tool_calls' wants a list of calls",
        ),
        (
            "openai",
            {"messages": [{"role": "assistant", "content": "a", "tool_calls": ["weather"]}]},
            "a tool call wants an object",
        ),
        (
            "openai",
            {
                "messages": [
                    {
                        "role": "assistant",
                        "content": "a",
                        "tool_calls": [{"function": {"name": "weather", "arguments": "[1]"}}],
                    }
                ]
            },
            "'arguments' want an object",
        ),
        (
            "openai",
            {"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]},
            "'weight' wants 0 or 1, found 0.5",
        ),
        ("completion", {"prompt": "q", "completion": " \n"}, "empty answer"),
        ("completion", {"prompt": "q", "completion": None}, "'completion' is null"),
        ("completion", {"prompt": [{"role": "user"}], "completion": "a"}, "'content'"),
        ("completion", {"prompt": "q", "completion": ["a"]}, "wants a list of objects"),
        ("openai", {"messages": [{"role": "user", "content": ["q"]}]}, "text parts, found text"),
        ("openai", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "'text'; the"),
        (
            "openai",
            {"messages": '[{"role": "user", "content": "q"}]'},
            "'messages' wants a list of objects, found text; if it is JSON, write the list itself",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "function_call", "value": "[]"}]},
            "a function_call wants a call, found an empty list",
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "q", "content": "other"}]},
            "a turn's 'value' and 'content' say different things",
        ),
        ("dolly", {"instruction": "q", "response": ["a"]}, "'response' wants text, found a list"),
        (
            "qa",
            {"question": "q", "choices": ["a"], "answer": 0},
            "'answer' wants text, found a number",
        ),
        ("qa", {"question": "q", "answer": float("nan")}, "found a number (NaN: an empty cell"),
        ("qa", {"question": "q"}, "missing field: 'answer'; the row has: question"),
        ("qa", {"input": "### Human: q", "output": "a"}, "'input' holds '### Human:' turns"),
        ("self_instruct", {"instruction": "q", "instances": "i"}, "'instances' wants a list"),
        ("self_instruct", {"instruction": "q", "instances": [1]}, "'instances' wants a list"),
        (
            "self_instruct",
            {"instruction": "q", "instances": [{"output": "a"}, {"output": "b"}]},
            "not one row: 2 instances; write one record with one instance each",
        ),
        ("text", {"text": ""}, "empty text"),
        ("text", {"text": ["a"]}, "'text' wants text, found a list"),
        ("text", {"text": "### Human: q### Assistant: a"}, "set the source's format to guanaco"),
        (
            "text",
            {"text": "<s>[INST] q [/INST] a</s>"},
            "rendered already ('[INST]'), and what the",
        ),
        ("text", {"text": "<|im_start|>user\nq<|im_end|>"}, "rendered already ('<|im_start|>')"),
        ("text", {"text": "<|begin_of_text|><|start_header_id|>user"}, "rendered already"),
        ("text", {"text": "\n<|user|>\nq</s>"}, "rendered already ('<|user|>')"),
        ("guanaco", {"text": "plain text"}, "text before the first '### Human:'"),
        ("guanaco", {"input": 1, "output": "a"}, "'input' wants text"),
        (
            "guanaco",
            {"input": "### Human: q ### Assistant:", "output": "a ### Human: more"},
            "special token in the text: 'output' would become several turns",
        ),
    ],
)
def test_a_record_that_is_not_of_the_format_is_a_row_error_that_says_why(name, record, problem):
    with pytest.raises(RowError) as caught:
        CONVERTERS[name](record)
    assert problem in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["from", "value", "role", "name", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
FIELDS = {
    "alpaca": ["instruction", "input", "output", "system", "history"],
    "sharegpt": ["conversations", "system", "tools"],
    "openai": ["messages", "tools"],
    "completion": ["prompt", "completion"],
    "guanaco": ["text", "input", "output"],
    "dolly": ["instruction", "context", "response"],
    "qa": ["question", "answer", "input", "output", "system", "context"],
    "self_instruct": ["instruction", "instances"],
    "text": ["text"],
    "preference": ["chosen", "rejected", "prompt", "messages", "instruction", "system", "tools"],
    "kto": ["label", "prompt", "completion", "conversations", "instruction", "output"],
}


@pytest.mark.parametrize("name", CONVERTERS)
@given(data=st.data())
def test_whatever_a_record_holds_it_becomes_a_row_or_a_row_error(name, data):
    record = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS[name], JSON)))
    try:
        unused_fields(record, name)
        row = CONVERTERS[name](record)
        check_row(row)
        check_row(merge_roles(row))
    except RowError as error:
        assert error.reason  # noqa: PT017 (a row is as right)


@given(
    st.fixed_dictionaries({}, optional={name: JSON for names in FIELDS.values() for name in names})
)
def test_detection_names_a_format_or_refuses(record):
    try:
        assert detect(record).format in CONVERTERS
    except RowError as error:
        assert error.reason == "unknown format"  # noqa: PT017 (a name is as right)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([("human", "user"), ("gpt", "assistant"), ("system", "system")]),
            st.text(),
        )
    )
)
def test_sharegpt_and_openai_spellings_of_a_conversation_are_the_same_row(said):
    spelled = [{"from": names[0], "value": text} for names, text in said]
    messages = [{"role": names[1], "content": text} for names, text in said]
    expected = turns(*((names[1], text) for names, text in said))
    assert CONVERTERS["sharegpt"]({"conversations": spelled}) == expected
    assert CONVERTERS["openai"]({"messages": messages}) == expected


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (turns(), "no assistant turn"),
        (turns(("user", "q")), "no assistant turn"),
        (turns(("system", "s")), "no assistant turn"),
        (turns(("user", "q"), ("assistant", " \n\t")), "empty answer"),
        (turns(("user", ""), ("assistant", "a")), "empty prompt"),
        (turns(("User", "q"), ("assistant", "a")), "unknown role: 'User'; allowed: system, user"),
        (turns(("assistant", "a")), "role order: 'assistant' follows 'start'"),
        (turns(("system", "s"), ("assistant", "a")), "role order"),
        (turns(("user", "q"), ("user", "q"), ("assistant", "a")), "role order"),
        (turns(("user", "q"), ("assistant", "a"), ("assistant", "a")), "role order"),
        (turns(("user", "q"), ("system", "s"), ("assistant", "a")), "role order"),
        (turns(("user", "q"), ("tool", "t"), ("assistant", "a")), "role order"),
    ],
)
def test_a_conversation_that_would_train_wrong_is_refused(row, problem):
    with pytest.raises(RowError) as caught:
        check_conversation(row)
    assert problem in str(caught.value)


def test_merging_joins_repeated_turns_and_leaves_tool_results_apart():
    row = turns(
        ("user", "a"), ("user", "b"), ("assistant", "c"), ("tool", "d"), ("tool", "e"), ("user", "")
    )
    assert merge_repeated_roles(row) == turns(
        ("user", "a\n\nb"), ("assistant", "c"), ("tool", "d"), ("tool", "e"), ("user", "")
    )


def test_a_detail_that_quotes_much_data_is_shortened():
    with pytest.raises(RowError) as caught:
        CONVERTERS["sharegpt"]({"conversations": [{"from": "x" * 10**6, "value": "q"}]})
    assert len(str(caught.value)) < MOST_DETAIL + 50


ROWS_OF_EACH_FORMAT = {
    "openai": {
        "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    },
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "alpaca": {"instruction": "q", "output": "a"},
    "completion": {"prompt": "q", "completion": "a"},
    "guanaco": {"text": "### Human: q### Assistant: a"},
}


@pytest.mark.parametrize("name", ROWS_OF_EACH_FORMAT)
@pytest.mark.parametrize(
    "extra",
    [{"chosen": "a", "rejected": "b"}, {"label": False}, {"label": True}, {"label": "False"}],
)
def test_a_preference_row_is_not_taught_as_if_every_answer_were_right(name, extra):
    with pytest.raises(RowError, match="preference row"):
        convert(ROWS_OF_EACH_FORMAT[name] | extra, name)
    assert convert(ROWS_OF_EACH_FORMAT[name] | {"label": "sports"}, name)


@pytest.mark.parametrize("field", ["reasoning_content", "refusal", "images"])
def test_a_part_of_a_message_that_would_be_lost_is_refused(field):
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", field: "x"}]
    with pytest.raises(RowError, match=f"'{field}' would be lost"):
        openai({"messages": messages})


@pytest.mark.parametrize("mark", [{"train": False}, {"train": 0}, {"weight": 0}, {"weight": 0.0}])
@pytest.mark.parametrize("name", ["openai", "sharegpt"])
def test_a_turn_marked_as_not_to_be_trained_says_so_in_its_row(name, mark):
    field = {"openai": "messages", "sharegpt": "conversations"}[name]
    question, answer = ROWS_OF_EACH_FORMAT[name][field]
    row = convert({field: [question, answer, question, answer | mark]}, name)
    assert [message.train for message in row.messages] == [True, True, True, False]


def test_the_older_spelling_of_tools_means_the_same():
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "function_call": CALL["function"]},
        {"role": "function", "name": "weather", "content": "sunny"},
        {"role": "assistant", "content": "a"},
    ]
    row = openai({"messages": messages, "functions": [WEATHER["function"]]})
    assert row.tools == (WEATHER_AS_SERVED,)
    assert [message.role for message in row.messages] == ["user", "assistant", "tool", "assistant"]
    assert row.messages[1].tool_calls == (CALL_0,)
    assert row.messages[2].tool_call_id == "call_0"


@pytest.mark.parametrize("field", ["parameters", "args", "input"])
def test_arguments_under_another_name_are_refused_not_lost(field):
    call = {"name": "weather", field: {"city": "Paris"}}
    with pytest.raises(RowError, match=f"a tool call's '{field}' would be lost: it has 'name' and"):
        sharegpt({"conversations": [{"from": "function_call", "value": json.dumps(call)}]})
    nested = {"id": "c", "type": "function", "index": 0, "function": call}
    with pytest.raises(RowError, match=f"'{field}' would be lost"):
        openai({"messages": [{"role": "assistant", "content": None, "tool_calls": [nested]}]})


@pytest.mark.parametrize(
    ("tool", "problem"),
    [
        ({"parameters": [1]}, "'parameters' want a JSON schema, an object"),
        ({"parameters": "city"}, "'parameters' are text but not JSON"),
        ({"parameters": {"properties": "{}"}}, "'properties' want an object, found text"),
        ({"description": 5}, "'description' wants text, found a number"),
        ({"input_schema": {"type": "object"}}, "'input_schema' is called 'parameters' here"),
    ],
)
def test_a_tool_that_no_server_would_take_is_refused(tool, problem):
    with pytest.raises(RowError, match=problem):
        openai(ROWS_OF_EACH_FORMAT["openai"] | {"tools": [{"name": "weather", **tool}]})


def test_parameters_may_be_json_text_as_tables_keep_them():
    tool = {"name": "weather", "description": None, "parameters": {"type": "object"}}
    written = tool | {"parameters": '{"type": "object"}'}
    row = openai(ROWS_OF_EACH_FORMAT["openai"] | {"tools": [written]})
    assert row.tools == ({"type": "function", "function": tool},)


def test_what_is_said_of_a_tool_and_not_handed_to_the_template_is_named():
    tools = [{"type": "function", "function": {"name": "f", "returns": "x"}, "cost": 1}]
    for offered in (tools, json.dumps(tools)):
        record = ROWS_OF_EACH_FORMAT["sharegpt"] | {"tools": offered}
        assert unused_fields(record, "sharegpt") == {"tools[].returns", "tools[].cost"}


def test_tools_beside_plain_text_are_named_as_unused():
    answers = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert unused_fields(answers | {"tools": [{"name": "f"}]}, "preference") == {"tools"}
    answers["chosen"] = [{"role": "assistant", "content": "a"}]
    assert unused_fields(answers | {"tools": [{"name": "f"}]}, "preference") == set()
    asked = {"prompt": "q", "completion": "a", "label": True, "tools": [{"name": "f"}]}
    assert unused_fields(asked, "kto") == {"tools"}
    assert unused_fields(asked | {"tools": []}, "kto") == set()
    assert unused_fields(asked | {"system": "s"}, "kto") == set()
    told = {"prompt": "q", "completion": "a", "system": "s", "tools": [{"name": "f"}]}
    assert unused_fields(told, "completion") == {"tools", "system"}
    told["completion"] = [{"role": "assistant", "content": "a"}]
    assert unused_fields(told, "completion") == set()


@pytest.mark.parametrize("field", ["system", "system_prompt"])
@pytest.mark.parametrize(
    ("name", "record"),
    [
        *((name, ROWS_OF_EACH_FORMAT[name]) for name in ("openai", "sharegpt", "alpaca")),
        ("dolly", {"instruction": "q", "response": "a"}),
        ("qa", {"question": "q", "response": "a"}),
    ],
)
def test_a_system_prompt_beside_the_turns_is_kept(name, record, field):
    row = convert(record | {field: "s"}, name)
    assert row.messages[0] == Message("system", "s")
    assert not unused_fields(record | {field: "s"}, name)
    assert convert(record | {"system": "s", "system_prompt": "s"}, name) == row
    with pytest.raises(RowError, match="'system' and 'system_prompt' say different things"):
        convert(record | {"system": "s", "system_prompt": "t"}, name)


@pytest.mark.parametrize("arguments", ['{"a": NaN}', '{"a": 1e999}', '{"a": "\\ud800"}'])
def test_arguments_that_json_does_not_allow_are_refused(arguments):
    call = {"function": {"name": "f", "arguments": arguments}}
    with pytest.raises(RowError, match="wrong field"):
        openai({"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]})


def test_indentation_at_the_beginning_of_a_text_is_kept():
    assert (
        guanaco({"text": "### Human: q\n### Assistant:     x = 1\n"}).messages[1].content
        == "    x = 1"
    )
    assert alpaca({"instruction": "  q", "output": "  a"}).messages[0].content == "  q"


def test_a_question_after_the_last_marker_is_not_joined_with_the_answer():
    with pytest.raises(RowError, match="must end in '### Assistant:'"):
        guanaco({"input": "### Human: q1 ### Assistant: a1 ### Human: q2", "output": "a2"})


def test_tools_are_those_that_the_server_hands_to_the_template():
    protocol = pytest.importorskip("vllm.entrypoints.openai.chat_completion.protocol")
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"description": "d", "name": "g", "strict": True}},
    ]
    row = openai(ROWS_OF_EACH_FORMAT["openai"] | {"tools": tools})
    served = [protocol.ChatCompletionToolsParam(**tool).model_dump() for tool in tools]
    assert json.dumps(row.tools) == json.dumps(served)


def test_fields_that_nothing_is_made_of_are_named():
    record = ROWS_OF_EACH_FORMAT["openai"] | {"id": 7, "note": None}
    record["messages"] = [{"name": "Ann", **message} for message in record["messages"]]
    assert unused_fields(record, "openai") == {"id", "messages[].name"}
    assert not unused_fields(ROWS_OF_EACH_FORMAT["alpaca"], "alpaca")


CALLED = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
JUDGED = {"label": True, "prompt": "q", "completion": "a"}


@pytest.mark.parametrize(
    ("name", "record", "unused"),
    [
        (
            "guanaco",
            {"text": "### Human: x", "input": "### Human: q ### Assistant:", "output": "a"},
            {"text"},
        ),
        (
            "qa",
            {"question": "q", "answer": "a", "query": "x", "response": "y"},
            {"query", "response"},
        ),
        ("qa", {"query": "x", "response": "y", "question": None}, set()),
        ("qa", {"question": "q", "response": "y", "query": "x"}, {"query"}),
        (
            "sharegpt",
            {"conversations": TURNS, "tools": [{"name": "f"}], "functions": [{"name": "g"}]},
            {"functions"},
        ),
        (
            "sharegpt",
            {"conversations": TURNS, "functions": [{"name": "g", "cost": 1}]},
            {"functions[].cost"},
        ),
        (
            "sharegpt",
            {"conversations": [*TURNS, TURNS[0], TURNS[1] | {"tool_calls": [{"name": "f"}]}]},
            {"conversations[].tool_calls"},
        ),
        (
            "sharegpt",
            {"conversations": [TURNS[0] | {"role": "user", "content": "q"}, TURNS[1]]},
            {"conversations[].role"},
        ),
        ("sharegpt", {"conversations": [MESSAGES[0], CALLED]}, set()),
        (
            "sharegpt",
            {"conversations": [MESSAGES[0] | {"value": "x"}, MESSAGES[1]]},
            {"conversations[].value"},
        ),
        ("openai", {"messages": [MESSAGES[0] | {"from": "x"}, MESSAGES[1]]}, {"messages[].from"}),
        ("kto", JUDGED | {"kto_tag": False, "output": "x"}, {"kto_tag", "output"}),
        ("kto", JUDGED | {"label": "animals", "kto_tag": True}, {"label"}),
        ("kto", JUDGED | {"messages": MESSAGES, "question": "x"}, {"messages", "question"}),
        ("kto", {"label": True, "messages": MESSAGES, "conversations": TURNS}, {"conversations"}),
        ("completion", {"prompt": "q", "completion": "a", "question": "x"}, {"question"}),
        (
            "completion",
            {"prompt": MESSAGES[:1], "completion": MESSAGES[1:], "messages": MESSAGES},
            {"messages"},
        ),
    ],
)
def test_fields_are_named_that_this_row_was_not_made_of(name, record, unused):
    convert(record, name)
    assert unused_fields(record, name) == unused


@pytest.mark.parametrize("empty", ["[]", "", [], None, "null"])
def test_tools_that_are_empty_do_not_hide_those_in_functions(empty):
    record = {"conversations": TURNS, "tools": empty, "functions": '[{"name": "f"}]'}
    (tool,) = sharegpt(record).tools
    assert tool["function"]["name"] == "f"
    assert unused_fields(record, "sharegpt") <= {"tools"}
