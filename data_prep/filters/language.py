"""Rows by the language they are written in, as py3langid tells them.

Measured on 978 questions and answers of OpenAssistant: 891 are long enough to tell, of which 5
would go although their own language is kept (most of those are mainly in another one), and 6 that
are not English would stay as English. A row of 750 characters takes 0.4 ms.
"""

import difflib
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from data_prep.filters.candidate import Candidate, Part, Verdict
from data_prep.filters.markup import prose_of

READ = 2000
"""Characters of prose that are looked at, from the beginning."""
SHORTEST = 40
"""Letters from which on a language can be told; see ``min_characters``."""
UNKNOWN = "zxx"
"""What the model calls text in no language."""
UNSURE = 0.3
"""A language less probable than this is a guess: the model gives a list of English fruit 12%
Central Bikol, the names of five presidents 4% Hausa."""


_MEMBERS = {
    "ar": ("ary", "arz"),
    "ku": ("sdh",),
    "no": ("nn",),
    "uz": ("uzs",),
    "zh": ("wuu", "yue"),
}
"""Languages of the model that a macrolanguage's code (ISO 639-3) takes in."""


@cache
def _identifier() -> Any:
    """The model of py3langid, from its wheel; half a second, once a process."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_languages() -> list[str]:
    """The codes (ISO 639) that the model knows, in order."""
    return sorted(set(_identifier().labels) - {UNKNOWN})


def _known(codes: tuple[str, ...]) -> tuple[str, ...]:
    if not codes:
        raise ValueError("names no language, so every row would be dropped")
    known = known_languages()
    for code in codes:
        if code not in known:
            raise ValueError(f"language {code!r} is not known{_hint(code, known)}")
    return codes


def _hint(code: str, known: list[str]) -> str:
    """The code that was meant: of ``en-US``, ``EN`` or ``English``, ``en``."""
    short = _NAMES.get(code.lower(), code.lower().replace("_", "-").partition("-")[0])
    names = difflib.get_close_matches(short, _NAMES, n=1, cutoff=0.75)
    near = [short] if short in known else [_NAMES[name] for name in names]
    near = near or difflib.get_close_matches(short, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (allowed: {', '.join(known)})"


_NAMES = {
    name: code
    for code, names in {
        "ar": "arabic ara",
        "cs": "czech ces cz",
        "da": "danish dan dk",
        "de": "german deutsch deu ger",
        "el": "greek ell gr",
        "en": "english eng",
        "es": "spanish spa",
        "fr": "french fra fre",
        "hi": "hindi hin",
        "it": "italian ita",
        "ja": "japanese jpn jp",
        "ko": "korean kor kr",
        "nl": "dutch nld",
        "no": "norwegian nor nb",
        "pl": "polish pol",
        "pt": "portuguese por",
        "ru": "russian rus",
        "sv": "swedish swe",
        "tr": "turkish tur",
        "uk": "ukrainian ukr ua",
        "zh": "chinese zho cmn cn",
    }.items()
    for name in names.split()
}
"""What else people call a language, for the hint in an error."""


class LanguageFilter(BaseModel):
    """Keeps rows in some languages.

    Code, markup and links are left out before the model looks. What is left and too short to
    tell, and text that the model finds to be in no language, or cannot place (lists of names,
    sums), stays: nothing is known against it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["language"]
    keep: Annotated[tuple[str, ...], AfterValidator(_known)]
    """Codes (ISO 639) of the languages that stay: ``[en, de]``. ``zh`` takes in Wu and Cantonese,
    ``ar`` Moroccan and Egyptian Arabic, ``no`` Nynorsk."""
    on: Part = "both"
    """What is looked at: the ``prompt``, the ``response``, or ``both`` together."""
    min_confidence: float = Field(default=0.0, ge=0, le=1)
    """How probable it must be, beside being most probable, that the text is in one of ``keep``,
    taken together. 0.5 asks for certainty, and loses lists, names and mixed texts."""
    min_characters: int = Field(default=SHORTEST, ge=1)
    """Letters of prose from which on a language can be told; shorter texts stay. A Chinese,
    Japanese or Korean letter counts as three."""

    def judge(self, candidate: Candidate) -> Verdict:
        """Keep a row that is most probably in one of the languages."""
        prose = prose_of(candidate.text(self.on))[:READ]
        if _letters(prose) < self.min_characters:
            return True
        keep = {code for kept in self.keep for code in (kept, *_MEMBERS.get(kept, ()))}
        ranked = _identifier().rank(prose)
        wanted = sum(probability for language, probability in ranked if language in keep)
        other, confidence = next(entry for entry in ranked if entry[0] not in keep)
        if other == UNKNOWN and confidence > wanted:
            return True
        likelier = confidence if confidence >= UNSURE else 0.0
        if wanted >= max(likelier, self.min_confidence):
            return True
        return False, (
            f"{wanted:.0%} {' or '.join(self.keep)}, {confidence:.0%} {other}, "
            f"min_confidence={self.min_confidence}"
        )


def language_of(text: str) -> str | None:
    """The code of the language that a text is most probably in; None where it cannot be told."""
    prose = prose_of(text)[:READ]
    if _letters(prose) < SHORTEST:
        return None
    language, confidence = _identifier().rank(prose)[0]
    return None if language == UNKNOWN or confidence < UNSURE else str(language)


def _letters(text: str) -> int:
    return sum(3 if letter >= "\u2e80" else 1 for letter in text if letter.isalpha())
