"""Personal data: what is found, what only looks like it, and what masking leaves."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from chat_rows import conversation
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from data_prep.filters.candidate import Candidate
from data_prep.filters.personal import MASKS, PersonalFilter
from data_prep.filters.personal_numbers import luhn
from data_prep.rows import Completion, Conversation, Message

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
PLANTED = {
    "email": [
        "jane.doe@example.com",
        "a+b@sub.domain.co.uk",
        "x_1@y.io",
        "user@müller.de",
        "RecipienT@Example.ORG",
    ],
    "phone": [
        "+49 30 1234567",
        "+49/30/1234567",
        "+1 (555) 123-4567",
        "+15551234567",
        "+44 (0)20 7946 0958",
        "+33 6 12 34 56 78",
        "+86 139 1234 5678",
        "+91 98765 43210",
        "0049 30 1234567",
        "(555) 123-4567",
        "(123)456-7891",
        "555-123-4567",
        "555.123.4567",
        "1-800-555-0199",
    ],
    "ip": [
        "93.184.216.34",
        "8.8.4.100",
        "2606:2800:220:1:248:1893:25c8:1946",
        "2a00:1450:4001:81b::200e",
    ],
    "card": [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111111",
        "3782 822463 10005",
        "378282246310005",
        "5555555555554444",
        "2223003122003222",
        "30569309025904",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "DE89-3704-0044-0532-0130-00",
        "DE89370400440532013000",
        "de89370400440532013000",
        "GB82 WEST 1234 5698 7654 32",
        "FR1420041010050500013M02606",
        "NO93 8601 1117 947",
    ],
}
AFTER_A_CUE = [
    "call me at 07700 900123",
    "Tel. 030/1234567",
    "Tel.: 0171 2345678",
    "Mobil: 0151-23456789",
    "Téléphone : 06 12 34 56 78",
    "Tél. 06 12 34 56 78",
    "my phone number is 5551234567",
    "phone: 555-1234",
    "电话\uff1a13912345678",
    "contact us on 800 555 1234",
    "телефон 8 (495) 123-45-67",
]
LOOK_ALIKES = [
    # dates and times
    *("2024-01-31", "31.01.2024", "01/02/2024 10:30", "2024-01-31T10:20:30", "12:30:45"),
    *("Call on 2024-05-01", "phone sales 1999-2005", "call at 10:30 on 31.01.2024 14:00"),
    # versions, sections, and addresses that lead to nobody
    *("version 10.2.3.4", "v11.2.33.4", "1.2.3.4", "192.168.1.1", "127.0.0.1", "10.0.0.1"),
    *("::1", "fe80::1", "2001:db8::1", "999.1.1.1", "1.2.3.4.5", "300.200.100.400"),
    *("std::vector", "dead::beef", "a::b", "lodash@4.17.21"),
    # sums, amounts and other numbers
    *("12345 + 67890 = 80235", "100 - 200 - 300", "$1,500,000", "1,234,567,890", "10 000 000"),
    *("2 + 15551234567", "3.14159265358979", "0.1234567890123456", "1234567890123456"),
    *("phones cost 3000/200", "call option at 1500000.00", "call f(1234567)", "call 911"),
    *("The call center received 1000000 calls", "5551234567", "020 7946 0958", "1700000000"),
    *("call volume 1 234 567", "price €4111111111111111x"),
    # identifiers
    *("ISBN 978-3-16-148410-0", "ISBN 9783161484100", "0-306-40615-2", "EAN 4006381333931"),
    *("https://arxiv.org/abs/2212.10560", "10.1000/182", "CVE-2024-12345", "DE123456789"),
    *("4111111111111112", "DE89370400440532013001", "XX89370400440532013000"),
    # at signs
    *("@user", "x@y", "git@github.com:a/b.git", "a@b.transpose(c)", "@dataclass.field"),
    *("icon@2x.png", "photo@3x.jpeg", "node@18.0.0.tgz", "rc@1.0.0-beta.rc", "y = X@W.shape[0]"),
]


def find(text: str, **settings: object) -> tuple[str, dict[str, int]]:
    return PersonalFilter(kind="personal", **settings).mask_text(text)


@pytest.mark.parametrize("around", ["{}", "Here: {}.", "({})", '"{}"', "a,{},b", "<{}>", "{}\n"])
@pytest.mark.parametrize(
    ("kind", "planted"), [(kind, text) for kind, all_of in PLANTED.items() for text in all_of]
)
def test_what_is_planted_is_masked_and_nothing_else(kind, planted, around):
    assert find(around.format(planted)) == (around.format(MASKS[kind]), {kind: 1})


@pytest.mark.parametrize("text", AFTER_A_CUE)
def test_national_numbers_are_found_after_a_word_that_says_so(text):
    masked, counts = find(text)
    assert counts == {"phone": 1}
    assert not re.search("[0-9]", masked)
    bare = re.search(r"[(0-9][0-9 ()/-]+", text)
    assert find(f"Count {bare[0]} of them.")[1] == {}


@pytest.mark.parametrize("text", LOOK_ALIKES)
@pytest.mark.parametrize("around", ["{}", "It is {} here."])
def test_what_only_looks_like_it_stays(text, around):
    assert find(around.format(text)) == (around.format(text), {})


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("手机13912345678联系我", "手机<PHONE>联系我"),
        ("電話0312345678です", "電話<PHONE>です"),
        ("전화 010-1234-5678로", "전화 <PHONE>로"),
        ("邮箱jane@example.com给我", "邮箱<EMAIL>给我"),
        ("卡号4111111111111111的", "卡号<CARD>的"),
        ("服务器93.184.216.34上", "服务器<IP>上"),
        ("账号DE89370400440532013000的", "账号<IBAN>的"),
    ],
)
def test_letters_that_stand_without_a_space_hide_nothing(text, masked):
    assert find(text)[0] == masked


def test_every_one_of_several_is_masked():
    text = "Tel. 030/1234567 or 0171 2345678, +49 30 1234567 +49 30 7654321; a@b.com, c@d.org"
    assert find(text) == (
        "Tel. <PHONE> or <PHONE>, <PHONE> <PHONE>; <EMAIL>, <EMAIL>",
        {"email": 2, "phone": 4},
    )


def test_private_addresses_are_found_when_asked_for():
    text = "192.168.1.1 and fe80::1, ::1 but not 1.2.3.4 or std::a"
    assert find(text, addresses="all") == (
        "<IP> and <IP>, <IP> but not 1.2.3.4 or std::a",
        {"ip": 3},
    )


def test_only_the_kinds_asked_for_are_looked_for():
    text = "a@b.com 4111 1111 1111 1111"
    assert find(text, kinds=("card",)) == ("a@b.com <CARD>", {"card": 1})
    with pytest.raises(ValidationError, match="names nothing to look for"):
        PersonalFilter(kind="personal", kinds=())


@given(st.text("0123456789", min_size=13, max_size=19))
def test_of_ten_last_digits_one_checks(digits):
    assert sum(luhn(digits[:-1] + last) for last in "0123456789") == 1


pieces = st.sampled_from(
    [text for all_of in PLANTED.values() for text in all_of]
    + AFTER_A_CUE
    + LOOK_ALIKES
    + list(MASKS.values())
    + [" ", "\n", ", ", "-", ".", "+", "@", ":", "tel ", "0", "42", "a", "é", "电话"]
)


@given(st.lists(pieces, max_size=8).map("".join))
def test_masked_text_has_nothing_left_to_find(text):
    masked, _ = find(text)
    assert find(masked) == (masked, {})


# Rows.


def test_a_row_goes_with_figures_that_repeat_nothing_personal():
    row = conversation("Mail a@b.com or c@d.com", "Call +49 30 1234567")
    judge = PersonalFilter(kind="personal").judge
    assert judge(Candidate(row, 9)) == (False, "2 email, 1 phone")
    assert judge(Candidate(conversation("Who?", "Me."), 9)) is True


def test_a_row_that_will_be_masked_stays():
    row = conversation("Mail a@b.com", "Yes")
    assert PersonalFilter(kind="personal", action="mask").judge(Candidate(row, 9)) is True


def test_every_text_of_a_row_is_masked_and_what_a_server_looks_up_stays():
    call = {
        "id": "call_5551234567",
        "type": "function",
        "function": {
            "name": "send",
            "arguments": {"name": "a@b.com", "cards": [4111111111111111, 7, None, True], "n": 1.5},
        },
    }
    tool = {
        "type": "function",
        "function": {
            "name": "send",
            "description": "As a@b.com",
            "parameters": {"type": "object", "properties": {"name": {"default": "a@b.com"}}},
        },
    }
    row = Conversation(
        (
            Message("system", "You are a@b.com"),
            Message("user", "+49 30 1234567", train=False),
            Message("assistant", "", (call,)),
            Message("tool", "a@b.com", tool_call_id="call_5551234567"),
            Message("assistant", "Done"),
        ),
        (tool,),
    )
    masked, counts = PersonalFilter(kind="personal", action="mask").mask_row(row)
    assert counts == {"email": 5, "phone": 1, "card": 1}
    function = {
        "name": "send",
        "arguments": {"name": "<EMAIL>", "cards": ["<CARD>", 7, None, True], "n": 1.5},
    }
    described = {
        "name": "send",
        "description": "As <EMAIL>",
        "parameters": {"type": "object", "properties": {"name": {"default": "<EMAIL>"}}},
    }
    assert masked == Conversation(
        (
            Message("system", "You are <EMAIL>"),
            Message("user", "<PHONE>", train=False),
            Message("assistant", "", ({**call, "function": function},)),
            Message("tool", "<EMAIL>", tool_call_id="call_5551234567"),
            Message("assistant", "Done"),
        ),
        ({**tool, "function": described},),
    )
    assert row.messages[2].tool_calls == (call,)  # nothing was changed in place


def test_text_that_is_json_stays_json():
    content = '{"card": 4111111111111111, "mail": "a@b.com", "é": [1.5, "x"]}'
    row = Conversation((Message("user", "?"), Message("tool", content), Message("assistant", "!")))
    masked, _ = PersonalFilter(kind="personal").mask_row(row)
    found = masked.messages[1].content
    assert json.loads(found) == {"card": "<CARD>", "mail": "<EMAIL>", "é": [1.5, "x"]}
    same = '{"mail":   "a@b.com"}'  # only what must change does
    masked, _ = PersonalFilter(kind="personal").mask_row(Completion("", same))
    assert masked == Completion("", same.replace("a@b.com", "<EMAIL>"))


def test_a_row_without_personal_data_is_the_very_same_row():
    row = conversation("Who?", "Me.")
    found, counts = PersonalFilter(kind="personal").mask_row(row)
    assert found is row
    assert counts == {}


def test_rows_of_other_types_are_masked_field_by_field():
    @dataclass(frozen=True, slots=True)
    class Pair:
        prompt: tuple[Message, ...]
        chosen: str
        label: bool

    row = Pair((Message("user", "a@b.com"),), "c@d.com", label=True)
    masked, _ = PersonalFilter(kind="personal").mask_row(row)
    assert masked == Pair((Message("user", "<EMAIL>"),), "<EMAIL>", label=True)


@given(st.lists(pieces, max_size=5).map("".join), st.lists(pieces, max_size=5).map("".join))
def test_a_masked_row_is_kept_and_masks_to_itself(prompt, completion):
    chosen = PersonalFilter(kind="personal")
    masked, counts = chosen.mask_row(Completion(prompt, completion))
    assert chosen.mask_row(masked) == (masked, {})
    assert chosen.judge(Candidate(masked, 9)) is True
    assert (chosen.judge(Candidate(Completion(prompt, completion), 9)) is True) == (not counts)


def test_long_texts_of_one_character_take_linear_time():
    for character in "1a.@:- +(":
        find(character * 200_000)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    "name", ["gsm8k_train/train.jsonl", "mmlu_val/mmlu_val_half_a.jsonl", "wiki_demo/wiki_demo.txt"]
)
def test_thousands_of_sums_dates_and_code_hold_nothing_personal(name):
    text = (SHARED / name).read_text(encoding="utf-8").replace("\\n", "\n")
    assert find(text)[1] == {}
