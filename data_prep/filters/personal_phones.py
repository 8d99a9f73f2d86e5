"""Telephone numbers in text, told from the many other things that are written with digits."""

import re
from collections.abc import Iterator

from data_prep.filters.words import CLINGING

_CUE = re.compile(
    r"\b(?:tele)?phone\b|\btel\b|\bmobile\b|\bcell(?:phone|ular)?\b|\bfax\b|\bcall\b|\bcontact\b"
    r"|\bdial\b|\bhotline\b|\bwhatsapp\b|\bsms\b|\btelefon|\bmobil|\bhandy|\brufnummer|\btél(?:éphone)?\b"
    r"|\bteléfono|\bcelular\b|\bmóvil\b|\btelefone\b|\bteléf|тел\b|телефон|电话|手机|電話|携帯|전화|휴대폰|핸드폰",
    re.IGNORECASE,
)
"""What says that a number is a telephone's."""
_REACH = 30
"""Characters before a number in which a cue must stand."""

_COUNTRY = (
    r"(?:7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|(?:2[1-689]|35|37|38|42|50|59|67|68|69|80|85|87|88|96|97|99)[0-9])"
)
"""Country calling codes (ITU-T E.164) but North America's 1."""
_START = rf"(?<!{CLINGING})(?<![/+\-])(?<![0-9][.,:=])"
_END = rf"(?!{CLINGING}|[./\-][0-9])"
_GAP = r"[ \u00a0.\-]"
_NORTH_AMERICAN = (
    rf"(?:\([0-9]{{3}}\){_GAP}?[0-9]{{3}}[.\-][0-9]{{4}}"
    r"|[2-9][0-9]{2}\.[0-9]{3}\.[0-9]{4}|[0-9]{3}-[0-9]{3}-[0-9]{4})"
)

_CERTAIN = re.compile(
    rf"{_START}(?:"
    # +1 (555) 123-4567, +15551234567
    rf"(?<![0-9] )\+1{_GAP}?\(?[2-9][0-9]{{2}}\)?{_GAP}?[0-9]{{3}}{_GAP}?[0-9]{{4}}"
    # +49 30 1234567, +44 (0)20 7946 0958, 0049-30-1234567
    rf"|(?:(?<![0-9] )\+|00(?={_COUNTRY}[ \-])){_COUNTRY}"
    rf"(?:{_GAP}?\(0\))?(?:[ \u00a0.\-/()]{{0,2}}[0-9]){{6,12}}"
    # 555-123-4567, 555.123.4567, (555) 123-4567, 1-800-555-0199
    rf"|(?:1[ .\-])?{_NORTH_AMERICAN}"
    rf"){_END}"
)
"""Forms that hardly anything else has."""
_LIKELY = re.compile(rf"{_START}(?<![$€£#])\(?[0-9](?:[ \u00a0.\-/()]{{0,2}}[0-9]){{6,14}}{_END}")
"""Any row of 7 to 15 digits: a telephone number after a cue."""
_ENOUGH_DIGITS = re.compile(r"[0-9](?:[ \u00a0.\-/()]{0,2}[0-9]){6}")
"""What every telephone number has, quickly looked for: most texts have none."""
_OTHER = re.compile(
    r"[0-9]{4}[-./ ][0-9]{1,2}[-./ ][0-9]{1,2}(?:[ ][0-9]{1,2})?"  # 2024-01-31
    r"|[0-9]{1,2}[-./ ][0-9]{1,2}[-./ ][0-9]{4}(?:[ ][0-9]{1,2})?"  # 31.01.2024
    r"|(?:1[0-9]|20)[0-9]{2} ?[-/] ?(?:1[0-9]|20)[0-9]{2}"  # 2019-2020
    r"|[1-9][0-9]?(?:[. \u00a0][0-9]{3}){2,}"  # 1 234 567
    r"|[0-9]+\.[0-9]+"  # 3.14159265
    r"|[1-9][0-9]*/[0-9/]+"  # a division; 030/1234567 is none
    r"|97[89](?:[- ]?[0-9]){10}"  # ISBN-13
)
"""Rows of digits that are dates, years, thousands, decimals or ISBNs, after a cue too."""


def phones(text: str) -> Iterator[tuple[int, int]]:
    """Where telephone numbers stand, in order.

    Without further signs: international numbers (``+49 30 1234567``, ``0049 30 1234567``) and
    North American ones with dashes, dots or brackets (``(555) 123-4567``). Other national forms
    (``030/1234567``, ``07700 900123``, ``06 12 34 56 78``, ``13912345678``) look like many other
    numbers: they count only when a word such as "phone" or "call" stands shortly before, and are
    at least 9 digits in one, or 7 in groups.
    """
    if not _ENOUGH_DIGITS.search(text):
        return
    spans = [match.span() for match in _CERTAIN.finditer(text)]
    spans += [match.span() for match in _LIKELY.finditer(text) if _after_cue(text, match)]
    last = 0
    for start, end in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= last:
            yield start, end
            last = end


def _after_cue(text: str, match: re.Match[str]) -> bool:
    found = match[0]
    if found.isdigit() and len(found) < 9:
        return False
    before = text[max(0, match.start() - _REACH) : match.start()]
    # A number between the cue and this one is what the cue spoke of.
    before = re.split(r"[0-9]", before)[-1]
    return bool(_CUE.search(before)) and not _OTHER.fullmatch(found)
