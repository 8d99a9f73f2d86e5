r"""Where a text may be cut so that a tokenizer encodes what lies between apart.

Two kinds of tokenizers are known.

Byte-level ones (GPT-2, GPT-4o, Llama 3, Qwen, Tekken, DeepSeek) part a text by a regular expression
before they look anything up, and each piece becomes ids for itself. In every expression known here,
a match holds a space only as its first character or among nothing but white space. So a new piece
begins at each space that follows something else, whatever else the text holds. The expressions look
ahead only from white space, and no part ends in it. NFC composes nothing with a space.

Those of the SentencePiece family (Llama 2, Mistral, Gemma, Phi 3) write spaces as marks and merge
whatever neighbours their merges name, across words, too. But every merge makes a token of the
vocabulary. Where the vocabulary has no token in which a mark follows something else, nothing is
ever merged there; and merges on either side of such a place know nothing of each other. That is
measured on the vocabulary. What they put before a text is put before the first part here.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers

_AT_SPACES = re.compile(r"(?s).[^ ]*(?:(?<![\w!-~]) [^ ]*)*").findall
"""Parts end before a space that follows a letter, a digit or an ASCII sign."""

_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA_3 = _ENDINGS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
_QWEN_2 = _LLAMA_3.replace("{1,3}", "")
_QWEN_3_5 = _QWEN_2.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(r"\s\p{L}", r"\s\p{L}\p{M}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}" + _REST.replace("]*", "/]*")
)
_GPT_4O = (
    _TEKKEN.replace("]+|[", f"]+{_ENDINGS}?|[")
    .replace(r"]*|\p", rf"]*{_ENDINGS}?|\p")
    .replace(r"\p{N}|", r"\p{N}{1,3}|")
)
_DEEPSEEK_3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"""
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_EXPRESSIONS = (_LLAMA_3, _QWEN_2, _QWEN_3_5, _TEKKEN, _GPT_4O, _DEEPSEEK_3)
_WITHOUT_SPACES = (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+")
"""What DeepSeek 3 splits off first: no match holds a space or looks around itself."""

_MARK = "\u2581"
_AT_MARKS = re.compile(f"{_MARK}*[^{_MARK}]+|{_MARK}+").findall
_CROSSING = re.compile(f"[^{_MARK}]{_MARK}").search
_WHITE_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)
"""White space as Unicode has it; Python's own counts four control characters more."""


@dataclass(frozen=True, slots=True)
class Parting:
    """How texts fall into parts."""

    parts: Callable[[str], Sequence[str | int]]
    """The parts of a text in order; one that is a token by itself is its id."""
    backend: tokenizers.Tokenizer
    """What encodes a part."""
    separator: str
    """A token that stands in no part, or in few: written between parts, it keeps them apart."""


def parting(backend: tokenizers.Tokenizer) -> Parting | None:
    """How a tokenizer's texts may be parted; None where nothing is known of it."""
    model, added = backend.model, backend.get_added_tokens_decoder()
    if not isinstance(model, tokenizers.models.BPE) or model.dropout:
        return None
    if any(token.lstrip or token.single_word for token in added.values()):
        return None
    separator = next(
        (
            token.content
            for _, token in sorted(added.items())
            if token.special and not token.normalized and token.content != model.unk_token
        ),
        None,
    )
    if separator is None:
        return None
    if _splits_at_spaces(backend):
        if any(token.rstrip or " " in token.content for token in added.values()):
            return None
        return Parting(_AT_SPACES, backend, separator)
    return _parting_at_marks(backend, separator)


def _splits_at_spaces(backend: tokenizers.Tokenizer) -> bool:
    normalizer, splitter = _settings(backend.normalizer), _settings(backend.pre_tokenizer)
    if normalizer.get("normalizers", [normalizer]) not in ([], [{}], [{"type": "NFC"}]):
        return False
    *first, last = splitter.get("pretokenizers") or [splitter]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    steps = [step for step in first if step["type"] != "Digits"]
    if any(step["type"] != "Split" for step in steps):
        return False
    found = [_expression(step) for step in steps]
    known = all(each in (*_EXPRESSIONS, *_WITHOUT_SPACES) for each in found)
    return known and (last["use_regex"] or any(each in _EXPRESSIONS for each in found))


def _expression(split: dict[str, Any]) -> str:
    """What a step splits off, where it keeps all of the text."""
    if split["behavior"] != "Isolated" or split["invert"]:
        return ""
    found: str = split["pattern"].get("Regex", "")
    return found.replace("\r", r"\r").replace("\n", r"\n")  # DeepSeek's has them unescaped


def _parting_at_marks(backend: tokenizers.Tokenizer, separator: str) -> Parting | None:
    model = backend.model
    put_first = _put_first(backend)
    vocabulary = backend.get_vocab(with_added_tokens=False)
    whole = model.ignore_merges or model.continuing_subword_prefix or model.end_of_word_suffix
    if put_first is None or whole or _MARK not in vocabulary or any(map(_CROSSING, vocabulary)):
        return None
    added = backend.get_added_tokens_decoder()
    if any(
        token.normalized or _MARK in token.content or token.content != token.content.strip()
        for token in added.values()
    ):
        return None
    ids = {token.content: index for index, token in added.items()}
    strips = {token.content for token in added.values() if token.rstrip}
    longest_first = map(re.escape, sorted(ids, key=len, reverse=True))
    tokens_in = re.compile("|".join(longest_first)).finditer
    alone = tokenizers.Tokenizer(model)
    alone.add_special_tokens([tokenizers.AddedToken(separator, special=True, normalized=False)])
    splitter = _settings(backend.pre_tokenizer)
    if splitter.get("split"):
        alone.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(_MARK, "never", split=True)

    def parts(text: str) -> list[str | int]:
        found: list[str | int] = []
        at = 0
        for token in tokens_in(text):
            found += between(text[at : token.start()], at)
            found.append(ids[token[0]])
            at = token.end()
            while token[0] in strips and text[at : at + 1] in _WHITE_SPACE:
                at += 1
        return found + between(text[at:], at)

    def between(text: str, at: int) -> list[str]:
        return _AT_MARKS(put_first(text.replace(" ", _MARK), at)) if text else []

    return Parting(parts, alone, separator)


_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": _MARK}
_PREPEND = {"type": "Prepend", "prepend": _MARK}
_SPLIT = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}


def _put_first(backend: tokenizers.Tokenizer) -> Callable[[str, int], str] | None:
    """What a tokenizer makes of a text between two added tokens, and of where that begins.

    None when it does more to a text than to write spaces as marks and to put one first.
    """
    normalizer, splitter = _settings(backend.normalizer), _settings(backend.pre_tokenizer)
    steps = normalizer.get("normalizers") or [normalizer]
    if splitter in ({}, _SPLIT | {"invert": False}):  # no space is left to split at
        if steps == [_PREPEND, _REPLACE]:
            return lambda text, _: _MARK + text
        return (lambda text, _: text) if steps == [_REPLACE] else None
    if normalizer or splitter.get("type") != "Metaspace" or splitter["replacement"] != _MARK:
        return None
    last = {"always": 1 << 62, "first": 0, "never": -1}[splitter["prepend_scheme"]]
    return lambda text, at: text if at > last or text.startswith(_MARK) else _MARK + text


def _settings(component: Any) -> dict[str, Any]:
    """What a part of a tokenizer is, as tokenizer.json spells it."""
    return dict(json.loads(component.__getstate__())) if component else {}
