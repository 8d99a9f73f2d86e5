"""Which lines of a text are code, and which of its characters are markup."""

import re

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[`~]*[ \t]*$|\Z)", re.M | re.S)
"""A fenced block, its fences included; one that is never closed runs to the end."""
TAG = re.compile(
    r"(?!<(?:EMAIL|PHONE|IP|CARD|IBAN)>)</?[A-Za-z][\w:-]{0,30}(?:\s[^<>]{0,500})?/?>"
    r"|<!--.{0,500}?-->|<!DOCTYPE[^>]{0,200}>",
    re.S,
)
"""A tag of HTML or XML, or a comment; not what masks personal data."""
INLINE_CODE = re.compile(r"`[^`\n]{1,200}`")
LINK = re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]+")

_CODE_LINE = re.compile(
    r"""\s*(?:
      (?:async[ ])?def[ ]\w+\(.*                             # Python
    | class[ ]\w+(?:\(.*\))?\s*[:{].*
    | (?:from[ ][\w.]+[ ])?import[ ][\w.*{},\s]+(?:[ ]as[ ]\w+)?;?
    | (?:if|elif|while|with)[ (](?=.*[()\[\]=<>_]|[ ]*\w+:).*:
    | for[ (].*(?:[ ]in[ ]|;).*[:{)]
    | (?:try|else|finally|do)[ ]?[:{]
    | except\b[\w .,()]*:
    | return\b(?:[ ][\w.\[\]()+\-*/%'",<>=!&| {}:]+)?;?
    | @\w[\w.]*(?:\(.*\))?
    | (?:>>>|\$|~\#)[ ]\S.*                                     # a prompt
    | \#(?:include|define|ifdef|ifndef|endif|pragma)\b.*        # C
    | .*[{};]\s*(?://.*)?(?<![a-z][a-z];)                       # braces and statements
    | [)}\]]+[;,]?
    | (?:const|let|var|int|float|double|char|bool|string|auto|void|public|private|static)[ ].*[=({;]
      .*
    | (?:function|func|fn)[ ]\w*\(.*
    | (?:[a-z_$][\w$]+|[\w.]+\[.*\]|\w+(?:\.\w+)+)[ ]?(?:[-+*/|&:]?=|<-)(?!.*(?:=|<<))[ ]?\S
      (?:.*[\w)\]}'"])?;?                                      # an assignment, and no equation
    | [\w.]+\([^()]*(?:\([^()]*\)[^()]*)*\);?                   # a call, and nothing else
    | (?:SELECT|INSERT[ ]INTO|UPDATE|DELETE[ ]FROM|CREATE[ ]TABLE|ALTER[ ]TABLE)\b.*
    | (?://|/\*|\*/|--[ ]).*                                    # a comment
    )\s*""",
    re.X,
)


def code_characters(text: str) -> tuple[int, int]:
    """Count what is code or markup, and everything, white space left out.

    Code is what stands in fenced blocks, in tags of HTML and XML, in inline code, and in lines
    that look like statements of the common programming languages.
    """
    total = _visible(text)
    fenced, prose = _without(FENCE, text)
    tags, prose = _without(TAG, prose)
    inline, prose = _without(INLINE_CODE, prose)
    lines = sum(_visible(line) for line in prose.split("\n") if is_code_line(line))
    return fenced + tags + inline + lines, total


def is_code_line(line: str) -> bool:
    """Whether a line looks like a statement."""
    return bool(line.strip()) and len(line) < 400 and bool(_CODE_LINE.fullmatch(line))


def _without(pattern: re.Pattern[str], text: str) -> tuple[int, str]:
    """The visible characters of what a pattern finds; and the rest, a space in its place."""
    found = sum(_visible(match[0]) for match in pattern.finditer(text))
    return found, pattern.sub(" ", text) if found else text


def _visible(text: str) -> int:
    return len("".join(text.split()))


def prose_of(text: str) -> str:
    """A text without code blocks, inline code, tags, links, and lines that look like code."""
    for pattern in (FENCE, TAG, INLINE_CODE, LINK):
        text = pattern.sub(" ", text)
    return "\n".join(line for line in text.split("\n") if not is_code_line(line))
