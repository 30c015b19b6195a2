"""JSON-like data as YAML that people read: text of several lines as it is, short lists in one line.

What is written means the same in YAML 1.1 and 1.2: text is unquoted only where it begins with a letter, has nothing
but letters, digits and harmless signs, and is no word such as `no` or `null`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

MAX_LINE = 100  # characters of a list that stands in one line

_UNSEEN_SIGNS = "\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff"
_UNSEEN = re.compile(f"[{_UNSEEN_SIGNS}]")
_HALF = re.compile("[\ud800-\udfff]")  # of a character, which YAML cannot hold
_PLAIN = re.compile(r"[^\W\d](?:[\w ./()+!?'=-]*[\w./()+!?'=])?")
_BLOCK = re.compile(f"[^\\s\x00-\x1f{_UNSEEN_SIGNS}][^\x00-\x08\x0b-\x1f{_UNSEEN_SIGNS}]*")
_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")


def yaml_text(data: Mapping[str, Any]) -> str:
    """The data as a YAML document. Half characters (surrogates) become U+FFFD."""
    return "".join(f"{line}\n" for line in _lines(data, ""))


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{indent}{_scalar(key)}:", item, indent)
        return
    for item in value:
        yield from _entry(f"{indent}-", item, indent)


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    inner = f"{indent}  "
    text = _HALF.sub("\ufffd", value) if isinstance(value, str) else ""
    if "\n" in text.rstrip("\n") and not text.endswith("\n\n") and _BLOCK.fullmatch(text):
        yield f"{head} |" if text.endswith("\n") else f"{head} |-"
        yield from (f"{inner}{line}" if line else "" for line in text.removesuffix("\n").split("\n"))
    elif not isinstance(value, (Mapping, list, tuple)) or not value:
        yield f"{head} {_scalar(value)}"
    elif isinstance(value, (list, tuple)) and (short := _in_line(value)):
        yield f"{head} {short}"
    elif head.endswith(":"):
        yield head
        yield from _lines(value, inner)
    else:
        first, *rest = _lines(value, inner)
        yield f"{head} {first.lstrip()}"
        yield from rest


def _in_line(values: Any) -> str:
    """A list of short values in one line; empty if there is too much in it."""
    if any(isinstance(value, (Mapping, list, tuple)) or "\n" in str(value) for value in values):
        return ""
    text = f"[{', '.join(map(_scalar, values))}]"
    return text if len(text) <= MAX_LINE else ""


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _UNSEEN.sub(lambda sign: f"\\u{ord(sign[0]):04x}", _HALF.sub("\ufffd", text))
