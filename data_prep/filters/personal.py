"""Personal data in rows: found and dropped, or masked.

What is found is stated, kind by kind, in `personal_numbers` and `personal_phones`. Names and
street addresses are not: rules cannot tell them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict

from data_prep.filters.candidate import Candidate, Verdict
from data_prep.filters.personal_numbers import Span, addresses, cards, ibans
from data_prep.filters.personal_phones import phones
from data_prep.filters.words import CLINGING
from data_prep.rows import Row

Kind = Literal["email", "phone", "ip", "card", "iban"]
KINDS: tuple[Kind, ...] = ("email", "phone", "ip", "card", "iban")
MASKS: dict[Kind, str] = {kind: f"<{kind.upper()}>" for kind in KINDS}
"""What stands in place of what was found."""

_LOCAL = rf"(?:{CLINGING}|[.%+\-])"
_NO_DOMAIN = r"[0-9]+(?:x\.|\.[0-9])"
"""``icon@2x.png``, ``node@18.0.0.tgz``."""
_NO_TOP = rf"(?:png|jpe?g|gif|svg|webp|tgz|data|dtype|shape|values)(?!{CLINGING})"
"""No top-level domains, but what files and arrays end in: ``X@W.shape``."""
_EMAIL = re.compile(
    rf"(?<!{_LOCAL})(?!git@){_LOCAL}{{1,64}}(?<!\.)@(?!{_NO_DOMAIN})"
    rf"(?:[^\W_](?:[\w\-]{{0,61}}[^\W_])?\.){{1,8}}(?!{_NO_TOP})"
    rf"(?:(?![\d_]){CLINGING}){{2,24}}(?!{CLINGING}|[(@\-]|\.\w)"
)
_KEPT_FIELDS = frozenset({"role", "tool_call_id", "train", "label"})
"""Fields of rows that are no text."""
_KEPT_KEYS = frozenset({"id", "type", "name"})
"""Keys of tools and calls whose values templates and servers depend on."""


def _some(kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
    if not kinds:
        raise ValueError(f"names nothing to look for; allowed: {', '.join(KINDS)}")
    return kinds


class PersonalFilter(BaseModel):
    """Drops rows that hold personal data, or masks what they hold.

    Masking comes before everything else, because it changes what is rendered: a filter that drops
    rows sees them masked, wherever in the list it stands.

    All of a row is looked at: every message, the arguments of calls, and tools. The ledger
    counts by kind and never repeats what was found.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["personal"]
    action: Literal["drop", "mask"] = "drop"
    """What happens to a row: it goes, or what was found is replaced by ``<EMAIL>``, ``<PHONE>``,
    ``<IP>``, ``<CARD>`` or ``<IBAN>``."""
    kinds: Annotated[tuple[Kind, ...], AfterValidator(_some)] = KINDS
    """What is looked for."""
    addresses: Literal["public", "all"] = "public"
    """Which IP addresses: those that lead to somebody, or private and reserved ones too."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row without personal data; keep every row that will be masked."""
        if self.action == "mask":
            return True
        _, counts = self.mask_row(candidate.row)
        if not counts:
            return True
        return False, ", ".join(f"{count} {kind}" for kind, count in counts.items())

    def mask_row(self, row: Row) -> tuple[Row, dict[str, int]]:
        """Replace personal data in all of a row's texts.

        Roles and ids stay, and so do the names of functions and of their parameters: what a
        server must find again. A number in a call's arguments that is personal becomes text.

        Returns:
            The row, the same one when nothing was found; and how many of each kind were found, in
            the order of ``KINDS``.
        """
        counts: Counter[str] = Counter()
        masked = _replaced(row, lambda text: self._mask(text, counts), _KEPT_KEYS)
        found = _ordered(counts)
        return (masked, found) if found else (row, found)

    def mask_text(self, text: str) -> tuple[str, dict[str, int]]:
        """Replace personal data in one text; what comes out has nothing left to find."""
        counts: Counter[str] = Counter()
        return self._mask(text, counts), _ordered(counts)

    def _mask(self, text: str, counts: Counter[str]) -> str:
        # A mask parts what stood together, so that more may be found: "tel. 1 or 2". Every round
        # takes digits or an @ away and masks have none, so there is a last round.
        before = None
        while text != before:
            before = text
            for kind in _ORDER:
                if kind in self.kinds:
                    text = self._mask_kind(text, kind, counts)
        return text

    def _mask_kind(self, text: str, kind: Kind, counts: Counter[str]) -> str:
        if not (("@" in text) if kind == "email" else _DIGIT.search(text)):
            return text
        parts: list[str] = []
        end = 0
        for start, stop in self._find(text, kind):
            parts += [text[end:start], MASKS[kind]]
            end = stop
            counts[kind] += 1
        return "".join([*parts, text[end:]]) if parts else text

    def _find(self, text: str, kind: Kind) -> Iterator[Span]:
        match kind:
            case "email":
                return (match.span() for match in _EMAIL.finditer(text))
            case "iban":
                return ibans(text)
            case "card":
                return cards(text)
            case "ip":
                return addresses(text, public=self.addresses == "public")
            case "phone":
                return phones(text)


_ORDER: tuple[Kind, ...] = ("email", "iban", "card", "ip", "phone")
"""The surest first: what a checksum proves is not taken for a telephone number."""
# IPv6 addresses may have letters only.
_DIGIT = re.compile(r"[0-9]|:[0-9A-Fa-f]*:")


def _ordered(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind: counts[kind] for kind in KINDS if counts.get(kind)}


def _replaced(value: Any, mask: Callable[[str], str], kept: frozenset[str]) -> Any:
    """A row, or a part of one, with its texts masked.

    Args:
        value: a row, a message, or what tools and calls hold.
        mask: what is done to a text.
        kept: keys whose texts stay.
    """
    if isinstance(value, str):
        return _masked_text(value, mask)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        masked = mask(str(value))
        return value if masked == str(value) else masked
    if isinstance(value, Mapping):
        return {key: _entry(key, inner, mask, kept) for key, inner in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value) if field.name not in _KEPT_FIELDS]
        return replace(value, **{n: _replaced(getattr(value, n), mask, kept) for n in names})
    if isinstance(value, list | tuple):
        return type(value)(_replaced(inner, mask, kept) for inner in value)
    return value


def _entry(key: str, value: Any, mask: Callable[[str], str], kept: frozenset[str]) -> Any:
    if key in kept and isinstance(value, str):
        return value
    # Inside the arguments of a call, "name" is a person's.
    return _replaced(value, mask, frozenset() if key == "arguments" else kept)


def _masked_text(text: str, mask: Callable[[str], str]) -> str:
    """A text masked; one that was JSON is JSON still, also where a bare number was masked."""
    masked = mask(text)
    if masked == text or text.lstrip()[:1] not in ("{", "["):
        return masked
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return masked
    try:
        json.loads(masked)
    except ValueError:
        return json.dumps(_replaced(value, mask, frozenset()), ensure_ascii=False)
    return masked
