"""Rows over the limit: written below as Q (asked), A (supervised), x (a supervised stop token),
s (a stop token that is not supervised) and n (what the template writes behind a stop token)."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from chat_rows import conversation
from hypothesis import given
from hypothesis import strategies as st

from data_prep.chat_templates import ChatTemplate
from data_prep.overlong import Fitted, cut_places, fit, turn_ends
from data_prep.rendering import Rendered, Supervise, render

IDS = {"Q": 1, "A": 2, "x": 9, "s": 9, "n": 5}
POLICIES = ("drop", "truncate", "split")


def row_of(text: str) -> Rendered:
    answers = [i for i, c in enumerate(text) if c in "Ax" and text[i - 1 : i] not in ("A",)]
    prompt = answers[-1] if answers else len(text)
    ids, supervised = [IDS[c] for c in text], [c in "Ax" for c in text]
    stops = np.array([i for i, c in enumerate(text) if c == "x"], np.int64)
    return Rendered(np.array(ids, np.int32), np.array(supervised), prompt, 9, stops)


def as_lists(row: Rendered) -> tuple[list[int], list[bool], int]:
    return row.ids.tolist(), row.supervised.tolist(), row.stop_id


def pieces_of(text: str, limit: int) -> list[str]:
    ends = cut_places(row_of(text), limit)
    return [text[start:end] for start, end in pairwise([0, *ends])]


def teaches(piece: str) -> bool:
    return any(c in "Ax" for c in piece[1:])


TURN = st.tuples(st.integers(0, 9), st.integers(0, 9), st.sampled_from(["x", "xn", "s", ""])).map(
    lambda turn: "Q" * turn[0] + "A" * turn[1] + turn[2]
)
ROWS = st.lists(TURN, min_size=1, max_size=6).map("".join).filter(bool)


@given(ROWS, st.integers(1, 14))
def test_pieces_together_are_the_row_and_none_is_over_the_limit(text: str, limit: int):
    pieces = pieces_of(text, limit)
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= limit for piece in pieces)


@given(ROWS, st.integers(1, 14), st.sampled_from(POLICIES))
def test_every_token_is_kept_or_cut_or_dropped(text: str, limit: int, overlong):
    row = row_of(text)
    fitted = fit(row, limit, overlong)
    kept = sum(len(piece.ids) for piece in fitted.pieces)
    dropped = 0 if fitted.pieces else len(text)
    assert kept + fitted.cut + dropped == len(text)
    assert bool(fitted.reason) == (not fitted.pieces)
    if len(text) <= limit:
        assert fitted == Fitted((row,))
        return
    found = [as_lists(piece) for piece in fitted.pieces]
    if overlong == "split":
        parts = [row_of(piece) for piece in pieces_of(text, limit) if teaches(piece)]
    else:
        parts = [row_of(text[:limit])] if overlong == "truncate" and teaches(text[:limit]) else []
    assert found == [as_lists(part) for part in parts]


@given(ROWS, st.integers(1, 14))
def test_a_turn_that_fits_is_never_cut_inside(text: str, limit: int):
    turns = [0, *turn_ends(row_of(text)).tolist(), len(text)]
    for end in cut_places(row_of(text), limit)[:-1]:
        inside = [(a, b) for a, b in pairwise(turns) if a < end < b]
        assert all(b - a > limit for a, b in inside)


def cost(text: str, cuts: tuple[int, ...], turns: list[int]) -> tuple[int, ...]:
    """Supervised tokens left out, pieces left out, supervised tokens behind cuts in their turn,
    tokens left out, pieces."""
    pieces = [text[start:end] for start, end in pairwise((0, *cuts, len(text)))]
    idle = [piece for piece in pieces if not teaches(piece)]
    severed = 0
    for cut in cuts:
        if cut not in turns:
            turn_end = min(turn for turn in turns if turn > cut)
            severed += sum(c in "Ax" for c in text[cut:turn_end])
    lost = sum(piece[0] in "Ax" for piece in idle)
    return lost, len(idle), severed, len("".join(idle)), len(pieces)


SHORT_ROWS = st.lists(TURN, min_size=1, max_size=3).map(lambda turns: "".join(turns)[:13])


@given(SHORT_ROWS.filter(bool), st.integers(2, 8))
def test_of_all_divisions_the_best_is_taken(text: str, limit: int):
    turns = [0, *turn_ends(row_of(text)).tolist(), len(text)]
    places = {a for a in turns if 0 < a < len(text)}
    for a, b in pairwise(turns):
        places |= set(range(max(a, 1), b)) if b - a > limit else set()
    possible = [
        cuts
        for count in range(len(places) + 1)
        for cuts in combinations(sorted(places), count)
        if all(b - a <= limit for a, b in pairwise((0, *cuts, len(text))))
    ]
    best = min(cost(text, cuts, turns) for cuts in possible)
    taken = tuple(cut_places(row_of(text), limit)[:-1])
    assert cost(text, taken, turns) == best
    # Of equally good ones, the one with the longest pieces first.
    assert taken == max(cuts for cuts in possible if cost(text, cuts, turns) == best)


@pytest.mark.parametrize(
    ("text", "limit", "pieces"),
    [
        ("QQAxQQAxQAx", 8, ["QQAxQQAx", "QAx"]),
        ("QQAxQQAxQAx", 7, ["QQAx", "QQAxQAx"]),
        # A turn that is longer than the limit goes on in the next piece, with the turns after it.
        ("QAxQQAAAAAAAAxQAx", 8, ["QAx", "QQAAAAAA", "AAxQAx"]),
        # The last piece needs a token before the one it teaches.
        ("QAAAAAAAx", 8, ["QAAAAAA", "Ax"]),
        # A prompt longer than the limit: the answer keeps as much of it as there is room for.
        ("QQQQQQQQQQAAx", 8, ["QQQQQ", "QQQQQAAx"]),
        # It may hang on the turn before: nothing is lost.
        ("QAxQQQQQQQQQAAx", 8, ["QAxQQQQQ", "QQQQAAx"]),
        # A stop token that a piece would begin with is not parted from its answer.
        ("QQQQQQQAx", 8, ["Q", "QQQQQQAx"]),
        ("QQQQQQQAxn", 8, ["QQ", "QQQQQAxn"]),
        # A question that nobody answers hangs on the turn before.
        ("QAxQAxQQQQ", 8, ["QAx", "QAxQQQQ"]),
        # Questions that end in a stop token stay with their answers.
        ("QsAxQsAx", 6, ["QsAx", "QsAx"]),
        # What the template writes behind a stop token stays with it.
        ("QsnAxnQsnAxn", 9, ["QsnAxn", "QsnAxn"]),
    ],
)
def test_where_rows_are_cut(text: str, limit: int, pieces: list[str]):
    assert pieces_of(text, limit) == pieces


def test_a_piece_without_anything_to_learn_is_left_out_and_counted():
    fitted = fit(row_of("QQQQQQQQQQAAx"), 8, "split")
    assert [len(piece.ids) for piece in fitted.pieces] == [8]
    assert (fitted.cut, fitted.left_out) == (5, 1)


@pytest.mark.parametrize(
    ("overlong", "reason"),
    [
        ("drop", "over max_tokens"),
        ("truncate", "nothing supervised left"),
        ("split", "nothing supervised left"),
    ],
)
def test_a_row_of_which_nothing_is_left_is_dropped_with_the_reason(overlong, reason: str):
    assert fit(row_of("Q" * 20), 8, overlong) == Fitted((), reason=reason)


def test_a_cut_answer_does_not_end_in_a_stop_token_and_its_rest_does():
    first, second = fit(row_of("QQAAAAAAAAx"), 8, "split").pieces
    assert 9 not in first.ids
    assert all(first.supervised[2:])
    assert second.ids[-1] == 9
    assert all(second.supervised)


def test_only_a_piece_that_begins_the_row_has_a_prompt_to_ask_a_server_with():
    first, second = fit(row_of("QQAAAAAAAAx"), 8, "split").pieces
    assert first.prompt_tokens == 2
    assert second.prompt_tokens == len(second.ids)
    (cut,) = fit(row_of("QAxQQQQQQQAx"), 8, "truncate").pieces
    assert cut.prompt_tokens == len(cut.ids) == 8


SAID = ("What is the capital of France?", "Paris.", "And of Italy?", "Rome.", "Thanks!", "Welcome.")


@pytest.mark.parametrize("supervise", ["answers", "all"])
def test_with_every_template_pieces_are_whole_turns_of_user_and_assistant(
    template: ChatTemplate, supervise: Supervise
):
    (row,) = render([conversation(*SAID)], template, supervise)
    assert isinstance(row, Rendered)
    pieces = fit(row, len(row.ids) - 1, "split").pieces
    assert [index for piece in pieces for index in piece.ids] == row.ids.tolist()
    assert len(pieces) == 2
    texts = [template.tokenizer.decode(piece.ids).strip() for piece in pieces]
    assert "Rome." in texts[0]
    starts = [text.removeprefix("<s>").strip() for text in texts]
    begin = "### In" if template.name == "alpaca" else starts[0][:6]  # a user turn's marker
    assert starts[1].startswith(begin)
    assert "Thanks!" in texts[1]
    assert "Rome." not in texts[1]
