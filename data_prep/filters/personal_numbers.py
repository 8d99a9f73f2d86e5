"""Payment cards, bank accounts and network addresses in text, each by its own checksum or range."""

import re
from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network, ip_address

from data_prep.filters.words import CLINGING

Span = tuple[int, int]

_CARD = re.compile(
    rf"(?<!{CLINGING})(?<!\+)(?<![0-9][.,])(?<!{CLINGING}-)(?:"
    r"[0-9]{4}([ \-]?)[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{1,3})?"
    r"|3[0-9]{3}([ \-]?)[0-9]{6}\2[0-9]{4,5}"
    rf")(?!{CLINGING}|[.\-][0-9])"
)
_ENOUGH_DIGITS = re.compile(r"[0-9](?:[ \-]?[0-9]){13}")
"""What every card number has, quickly looked for: most texts have none."""
_ISSUERS = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?"  # Visa
    r"|(?:5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720)[0-9]*(?<=^[0-9]{16})"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|(?:6011|64[4-9]|65)[0-9]*(?<=^[0-9]{16})"  # Discover
    r"|(?:30[0-5]|3[689])[0-9]*(?<=^[0-9]{14})"  # Diners Club
    r"|35(?:2[89]|[3-8])[0-9]*(?<=^[0-9]{16})"  # JCB
    r"|62[0-9]{14,17}"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])[0-9]{12,15}"  # Maestro
)


def cards(text: str) -> Iterator[Span]:
    """Where payment card numbers stand.

    14 to 19 digits, in one or in the groups that cards show, with the prefix and length of an
    issuer, and a valid check digit (Luhn). The 13 digits of Visa's first cards are left out: EAN
    codes look like them.
    """
    if not _ENOUGH_DIGITS.search(text):
        return
    for match in _CARD.finditer(text):
        digits = re.sub("[^0-9]", "", match[0])
        if _ISSUERS.fullmatch(digits) and luhn(digits):
            yield match.span()


def luhn(digits: str) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (1 + place % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


_IBAN_LENGTHS = {
    **dict.fromkeys(("NO",), 15),
    **dict.fromkeys(("BE",), 16),
    **dict.fromkeys(("DK", "FK", "FI", "FO", "GL", "NL", "SD"), 18),
    **dict.fromkeys(("MK", "SI"), 19),
    **dict.fromkeys(("AT", "BA", "EE", "KZ", "LT", "LU", "MN", "XK"), 20),
    **dict.fromkeys(("CH", "HR", "LI", "LV"), 21),
    **dict.fromkeys(("BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS", "VA"), 22),
    **dict.fromkeys(("AE", "GI", "IL", "IQ", "OM", "SO", "TL"), 23),
    **dict.fromkeys(("AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN", "VG"), 24),
    **dict.fromkeys(("LY", "PT", "ST"), 25),
    **dict.fromkeys(("IS", "TR"), 26),
    **dict.fromkeys(("BI", "DJ", "FR", "GR", "IT", "MC", "MR", "SM"), 27),
    **dict.fromkeys(("AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "NI", "PL", "SV"), 28),
    **dict.fromkeys(("BR", "EG", "PS", "QA", "UA"), 29),
    **dict.fromkeys(("JO", "KW", "MU", "YE"), 30),
    **dict.fromkeys(("MT", "SC"), 31),
    **dict.fromkeys(("LC",), 32),
    **dict.fromkeys(("RU",), 33),
}
"""Characters of a country's account numbers (the IBAN registry)."""
_IBAN_START = re.compile(r"(?<![A-Za-z0-9])([A-Za-z]{2})[0-9]{2}(?=[ \-]?[A-Za-z0-9])")


def ibans(text: str) -> Iterator[Span]:
    """Where international bank account numbers stand: a country's length, and a valid checksum.

    Source: ISO 13616; the checksum is ISO 7064, MOD 97-10.
    """
    for match in _IBAN_START.finditer(text):
        length = _IBAN_LENGTHS.get(match[1].upper())
        end = _end_of(text, match.start(), length) if length else None
        if end is None:
            continue
        plain = re.sub("[ -]", "", text[match.start() : end]).upper()
        moved = plain[4:] + plain[:4]
        if int("".join(str(int(character, 36)) for character in moved)) % 97 == 1:
            yield match.start(), end


def _end_of(text: str, start: int, length: int) -> int | None:
    """Where so many letters and digits end, single spaces or dashes between them; None if not."""
    place = start
    for count in range(length):
        if count and text[place : place + 1] in (" ", "-"):
            place += 1
        character = text[place : place + 1]
        if not (character.isascii() and character.isalnum()):
            return None
        place += 1
    follows = text[place : place + 1]
    return None if follows.isascii() and follows.isalnum() else place


_IPV4 = re.compile(
    rf"(?<!{CLINGING})(?<![.\-])(?<![0-9],)(?:[0-9]{{1,3}}\.){{3}}[0-9]{{1,3}}"
    rf"(?!{CLINGING}|\.[0-9]|-[0-9A-Za-z])"
)
_DOTTED = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]")
_IPV6 = re.compile(
    rf"(?<!{CLINGING})(?<![:.])(?=[0-9A-Fa-f]*:[0-9A-Fa-f]*:)[0-9A-Fa-f:]{{1,38}}(?:[0-9A-Fa-f]|::)"
    rf"(?!{CLINGING}|:[\w:]|\.[0-9])"
)
_VERSION = re.compile(r"(?:\bv|version|release|build|firmware|section|chapter|§|rev)\.?:? ?$", re.I)


def addresses(text: str, *, public: bool) -> Iterator[Span]:
    """Where IP addresses stand, versions 4 and 6.

    Four numbers of one digit each are taken for a version or a section (``1.2.3.4``), and so is
    what follows a word such as "version".

    Args:
        text: what to look at.
        public: only addresses that are globally reachable. Loopback, private, link-local, reserved
            and documentation ranges lead to nobody.
    """
    for match in _IPV4.finditer(text) if _DOTTED.search(text) else ():
        if len(match[0]) == 7 or _VERSION.search(text[max(0, match.start() - 12) : match.start()]):
            continue
        if _is_address(match[0], public=public):
            yield match.span()
    for match in _IPV6.finditer(text) if text.count(":") >= 2 else ():
        if _is_address(match[0], public=public):
            yield match.span()


def _is_address(text: str, *, public: bool) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        # Python finds most of the unassigned space global; C++ and Perl write `dead::beef`.
        unicast = address in _UNICAST
        if not (unicast or address.is_loopback or address.is_link_local or address in _LOCAL):
            return False
    return address.is_global if public else not address.is_unspecified


_UNICAST, _LOCAL = IPv6Network("2000::/3"), IPv6Network("fc00::/7")
