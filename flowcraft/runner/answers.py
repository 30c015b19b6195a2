"""JSON in what a model or program has written: found, read strictly, held to its schema.

Finding is tolerant (a fence, prose around it, thinking in front, trailing commas), reading is not: NaN,
numbers without end, a key given twice and text that is not Unicode are refused, because whoever reads
the value next would see something else.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from flowcraft.core.schema import check_value

THINKING = ("<think>", "</think>")
MAX_STARTS = 50  # places in a text where JSON may begin; more are prose full of brackets
MAX_REASONS = 20
MAX_REASON_CHARACTERS = 500
MAX_REASON_BYTES = 4000  # of all reasons that are sent back to a model

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_START = re.compile(r"[{\[]")
_MEANT = re.compile(r'{\s*["}]|\[\s*["{\[\]]')  # prose has brackets, too, but not like these
_CURLY = "\u2018\u2019\u201c\u201d"
# Nearly JSON, as Python and people write it.
_NEARLY = re.compile(rf"{{\s*(?:['{_CURLY}]|[^\W\d][\w-]*\s*:)|\[\s*['{_CURLY}]")
_TOKEN = re.compile(r'"|\\.|,', re.DOTALL)
_WORD = re.compile(r"[^\W\d][\w-]*")
_NO_WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null"}
_CLOSING = re.compile(r"\s*[}\]]")


@dataclass(frozen=True, slots=True)
class Reading:
    """The value found in a text, or the reasons why there is none that can be accepted."""

    value: Any = None
    reasons: tuple[str, ...] = ()


def reading(text: str, schema: Mapping[str, Any] | None = None) -> Reading:
    """The first JSON value of `text` that fits `schema`; else the reasons against the longest candidate."""
    first: tuple[str, ...] = ()
    for value, problem in _candidates(text):
        reasons = (problem,) if problem else _violations(value, schema)
        if not reasons:
            return Reading(value)
        first = first or reasons
    return Reading(reasons=first or ("there is no JSON in it",))


def sent_back(reasons: Iterable[str], between: str = "\n- ") -> str:
    """The reasons as a model is told them, cut where they become long."""
    return between.join(reasons).encode("utf-8", "replace")[:MAX_REASON_BYTES].decode("utf-8", "ignore")


def exact(text: str, schema: Mapping[str, Any] | None = None) -> Reading:
    """The value of a text that is JSON and nothing else, as a program should write it."""
    value, problem = _whole(text.strip()) if text.strip() else (None, "it is empty")
    reasons = (problem,) if problem else _violations(value, schema)
    return Reading(reasons=reasons) if reasons else Reading(value)


def _violations(value: Any, schema: Mapping[str, Any] | None) -> tuple[str, ...]:
    if schema is None:
        return ()
    found = check_value(value, schema)
    cut = [reason[:MAX_REASON_CHARACTERS] for reason in found[:MAX_REASONS]]
    more = [f"and {len(found) - MAX_REASONS} more"] if len(found) > MAX_REASONS else []
    return (*cut, *more)


def _candidates(text: str) -> Iterator[tuple[Any, str]]:
    """Values that the text may mean, the likeliest first, each with what is wrong with it."""
    whole = _spoken(text.lstrip("\ufeff").strip())
    if not whole:
        return
    value, problem = _whole(whole)
    if not problem:
        yield value, ""
        return
    blocks = sorted((block.strip() for block in _fenced(whole)), key=len, reverse=True)
    fitting = [found for found in map(_whole, blocks) if not found[1]]
    yield from fitting or _inside(whole)


def _spoken(text: str) -> str:
    """The answer without the thinking that some models put in front of it."""
    end = text.find(THINKING[1]) if text.startswith(THINKING[0]) else -1
    return text if end < 0 else text[end + len(THINKING[1]) :].strip()


def _fenced(text: str) -> Iterator[str]:
    """The contents of Markdown fences; the last one may have lost its end."""
    fence = ""
    block: list[str] = []
    for line in text.split("\n"):
        opening = _FENCE.match(line)
        if fence and line.strip() and not line.strip().strip(fence[0]) and len(line.strip()) >= len(fence):
            yield "\n".join(block)
            fence, block = "", []
        elif fence:
            block.append(line)
        elif opening:
            fence = opening.group(1)
    if fence:
        yield "\n".join(block)


def _inside(text: str) -> list[tuple[Any, str]]:
    """Objects and lists that stand in prose, the longest first.

    Where one is begun and broken nothing else counts: a part of a broken value is not what was meant.
    """
    found: list[tuple[int, Any]] = []
    nearly = ""
    position = 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, position)
        if start is None:
            break
        try:
            value, position = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError) as error:
            if _MEANT.match(text, start.start()):
                return [_repaired(text[start.start() :], error)]
            if not nearly and _NEARLY.match(text, start.start()):
                nearly = _said(error)
            position = start.end()
        else:
            found.append((position - start.start(), value))
    if not found and nearly:
        return [(None, nearly)]
    return [(value, _unfit(value)) for _, value in sorted(found, key=lambda pair: -pair[0])]


def _whole(text: str) -> tuple[Any, str]:
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        return (_repaired(text, error, whole=True)) if _START.match(text) else (None, _said(error))
    return value, _unfit(value)


def _repaired(text: str, error: Exception, *, whole: bool = False) -> tuple[Any, str]:
    """Read again without trailing commas; what is reported is `error`, with the places of the original."""
    mended = _without_trailing_commas(text)
    if mended == text:
        return None, _said(error)
    try:
        value = _DECODER.decode(mended) if whole else _DECODER.raw_decode(mended)[0]
    except (ValueError, RecursionError):
        return None, _said(error)
    return value, _unfit(value)


def _said(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        what = _slip(error) or f"{error.msg[:1].lower()}{error.msg[1:]}"
        return f"it is not JSON: line {error.lineno}, column {error.colno}: {what}"
    return f"it is not JSON: {error}"


def _slip(error: json.JSONDecodeError) -> str:
    """What people and programs write in place of JSON, in words; empty if it is something else."""
    sign, word = error.doc[error.pos : error.pos + 1], _WORD.match(error.doc, error.pos)
    if sign == "'":
        return "single quotes, where JSON has double ones"
    if sign and sign in _CURLY:
        return "curly quotes, where JSON has straight ones"
    if word and error.msg.startswith("Expecting property name"):
        return f"the key {word[0][:100]} without quotes, where JSON has double quotes"
    if word and word[0] in _NO_WORDS:
        return f"{word[0]}, where JSON has {_NO_WORDS[word[0]]}"
    return ""


def _unfit(value: Any) -> str:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError, ValueError):
        return "it holds characters that are not Unicode text (half of a surrogate pair), or is nested too deeply"
    return ""


def _without_trailing_commas(text: str) -> str:
    kept, start, in_string = [], 0, False
    for token in _TOKEN.finditer(text):
        if token.group() == '"':
            in_string = not in_string
        elif token.group() == "," and not in_string and _CLOSING.match(text, token.end()):
            kept.append(text[start : token.start()])
            start = token.end()
    return "".join((*kept, text[start:]))


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key '{key[:100]}' is given twice")
        made[key] = value
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large a number")
    return number


def _int(text: str) -> int:
    if len(text) > 1000:  # Python refuses to print integers of more than 4,300 digits
        raise ValueError("a number has more than 1000 digits")
    return int(text)


# Not strict about control characters: models write line breaks inside of strings.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int, strict=False
)
