"""What becomes of a row that is longer than the training context.

`drop` leaves the row out. `truncate` keeps its beginning: the cut end is never taught as an end,
because no stop token stands there. `split` cuts the row into pieces that together are the row,
id for id and mask for mask:

    limit 12      Q Q Q A A x Q Q A A A x Q Q Q Q A A A A A A A A A A x     x: a supervised stop
    pieces        |---------------------| |---------------------| |---|
    turns         |---------| |---------| |---------------------------|

A turn is what the user says together with the answer to it, up to and with the answer's stop
token and whatever the template writes after one. Pieces begin where turns begin; only a turn that
alone is longer than the limit is cut inside. Its answer goes on being supervised in the later
piece, and its stop token is supervised where it really stands and nowhere else.

A piece in which nothing can be learned is left out and counted as cut. The first token of a piece
is never a target (nothing precedes it), so a supervised token must come later than that. Of all
ways to cut the row, the one taken

1. leaves out no supervised token that could be kept (one that a piece begins with);
2. leaves out the fewest pieces: none wherever that is possible (a prompt as long as the limit may
   have no answer beside it);
3. severs answers least: each cut inside a turn counts the supervised tokens of the turn behind it,
   which no longer see the turn's beginning;
4. leaves out the fewest tokens;
5. makes the fewest pieces, the first ones as long as can be.

Later pieces stand without what came before: neither the system message nor the beginning-of-text
token is repeated. Repeating them would put tokens where the row has none, and count some twice.
TRL's `bfd_split` does not repeat them either, but cuts every `limit` tokens wherever that falls;
its `bfd` and LLaMA-Factory cut the end off, and LLaMA-Factory's packing drops the row.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from data_prep.rendering import Rendered

Overlong = Literal["drop", "truncate", "split"]

TOO_LONG = "over max_tokens"
NOTHING_LEFT = "nothing supervised left"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is left of a row."""

    pieces: tuple[Rendered, ...]
    """What is trained, in order; none when the row is dropped."""
    cut: int = 0
    """Tokens of a kept row that are in no piece."""
    left_out: int = 0
    """Pieces of a split row that hold nothing to learn; their tokens are in ``cut``."""
    reason: str = ""
    """Why the row is dropped, for the ledger."""


def fit(row: Rendered, limit: int, overlong: Overlong) -> Fitted:
    """Make one row fit the training context.

    Args:
        row: its tokens and which of them are supervised.
        limit: the most tokens that a piece may have.
        overlong: what to do when the row has more.

    Returns:
        The row itself when it fits; else what ``overlong`` makes of it. A piece's ``prompt_tokens``
        are all of its tokens where no server would render what comes before its last answer.
    """
    tokens = len(row.ids)
    if tokens <= limit:
        return Fitted((row,))
    if overlong == "drop":
        return Fitted((), reason=TOO_LONG)
    ends = [limit] if overlong == "truncate" else cut_places(row, limit)
    pieces = [
        _piece(row, start, end)
        for start, end in zip([0, *ends], ends, strict=False)
        if np.count_nonzero(row.supervised[start + 1 : end])
    ]
    if not pieces:
        return Fitted((), reason=NOTHING_LEFT)
    kept = sum(len(piece.ids) for piece in pieces)
    return Fitted(tuple(pieces), tokens - kept, len(ends) - len(pieces))


def _piece(row: Rendered, start: int, end: int) -> Rendered:
    """Part of a row; only the first part has a prompt that a server would render alike."""
    prompt = min(row.prompt_tokens, end) if not start else end - start
    return Rendered(row.ids[start:end], row.supervised[start:end], prompt, row.stop_id)


def turn_ends(row: Rendered) -> NDArray[np.int64]:
    """Where an answer has ended and the next turn begins, measured on the tokens.

    That is after an answer's stop token, and after what the template writes behind a stop token:
    the same as the row has behind its last one (a line feed, often).

    Returns:
        Positions in ``1..len(ids)``, ascending.
    """
    ends: NDArray[np.int64] = _turn_ends(row.ids, row.answer_stops, row.stop_id)
    return ends


def cut_places(row: Rendered, limit: int) -> list[int]:
    """Where `split` ends the pieces of a row; the last is the row's own end."""
    ends = turn_ends(row)
    places: list[int] = _cut_places(row.supervised, ends, limit).tolist()
    return places


@njit(cache=True)
def _turn_ends(ids, answer_stops, stop_id):  # type: ignore[no-untyped-def]
    last = len(ids) - 1
    while last >= 0 and ids[last] != stop_id:
        last -= 1
    behind = len(ids) - last - 1
    ends = answer_stops + 1
    for answer, at in enumerate(answer_stops):
        same = 0
        # No stop token stands behind the last one, so this ends before the next one does.
        while same < behind and ids[at + 1 + same] == ids[last + 1 + same]:
            same += 1
        if same == behind:
            ends[answer] += behind
    return ends


@njit(cache=True)
def _cut_places(supervised, turn_ends, limit):  # type: ignore[no-untyped-def]
    count = len(supervised)
    allowed, severed = np.zeros(count + 1, np.bool_), np.zeros(count + 1, np.int64)
    start = 0
    for stop in np.append(turn_ends, count):
        allowed[start] = True
        if stop - start > limit:
            taught = 0
            for at in range(stop - 1, start, -1):
                taught += supervised[at]
                allowed[at], severed[at] = True, taught
        start = stop
    allowed[count] = True
    after = _best_ends(supervised, allowed, severed, limit)
    places, at = np.empty(count, np.int64), 0
    pieces = 0
    while at < count:
        at = after[at]
        places[pieces] = at
        pieces += 1
    return places[:pieces]


@njit(cache=True)
def _best_ends(supervised, allowed, severed, limit):  # type: ignore[no-untyped-def]
    """For every place where a piece may begin, where it ends in the best division of the rest.

    From the end of the row backwards. A piece teaches something when a supervised token comes after
    its first one; so from one beginning, ends beyond the next such token do, nearer ones do not. Of
    each kind the best end is at the head of a queue (the minimum of a sliding window), so that the
    time grows with the tokens, not with tokens times ``limit``.
    """
    count = len(supervised)
    # Of the best division from a place on: pieces left out, each that begins with a supervised
    # token as many as there are places; supervised tokens severed from their turn by cuts (one at
    # this place, too); tokens left out; pieces.
    costs = np.zeros((count + 1, 4), np.int64)
    after = np.full(count + 1, count, np.int64)
    teaching, idle = np.empty(count + 1, np.int64), np.empty(count + 1, np.int64)
    head, tail, idle_head, idle_tail = 0, 0, 0, 0
    target = count  # the first supervised token after a place
    entered = count + 1
    for place in range(count - 1, -1, -1):
        if place + 1 < count and supervised[place + 1]:
            target = place + 1
        idle_cost = 1 + supervised[place] * count
        while entered > target + 1:
            entered -= 1
            if allowed[entered]:
                while tail > head and _worse(costs, place, 0, teaching[tail - 1], 0, entered, 0):
                    tail -= 1
                teaching[tail] = entered
                tail += 1
        if allowed[place + 1]:
            while idle_tail > idle_head and _worse(
                costs, place, idle_cost, idle[idle_tail - 1], 1, place + 1, 1
            ):
                idle_tail -= 1
            idle[idle_tail] = place + 1
            idle_tail += 1
        while head < tail and teaching[head] > place + limit:
            head += 1
        while idle_head < idle_tail and idle[idle_head] > min(target, place + limit):
            idle_head += 1
        if not allowed[place]:
            continue
        left_out = head == tail
        if head < tail and idle_head < idle_tail:
            left_out = _worse(costs, place, idle_cost, teaching[head], 0, idle[idle_head], 1)
        end = idle[idle_head] if left_out else teaching[head]
        after[place] = end
        costs[place] = costs[end]
        costs[place, 0] += left_out * idle_cost
        costs[place, 1] += severed[place]
        costs[place, 2] += left_out * (end - place)
        costs[place, 3] += 1
    return after


@njit(inline="always")
def _worse(costs, place, idle_cost, one, one_idle, other, other_idle):  # type: ignore[no-untyped-def]
    """Whether the piece from ``place`` is worse off ending at ``one`` than at ``other``."""
    for kind in range(4):
        a, b = costs[one, kind], costs[other, kind]
        if kind == 0:
            a, b = a + one_idle * idle_cost, b + other_idle * idle_cost
        elif kind == 2:
            a, b = a + one_idle * (one - place), b + other_idle * (other - place)
        if a != b:
            return a > b
    return False
