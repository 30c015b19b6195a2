"""Why a text is not the YAML its writer meant, in words that help; knows the usual slips.

Both of PyYAML's parsers are understood: they fail in the same places with different words.
"""

import re
from dataclasses import dataclass
from typing import Any

ALIAS = "a value that starts with '*' is a YAML alias: put it in quotes, such as '**/*.md'"
BRACES = "a value that starts with '{{' is a YAML map. Write ${{ ... }} instead: it needs no quotes."
TAG = "a value that starts with '!' is a YAML tag: put it in quotes, or write 'not' in a condition"
ESCAPE = r"write the character itself, \\ for a backslash, or use single quotes, where nothing is special"
_QUOTE = "put the whole value in quotes, or write it below the key:  key: |"

_OPEN_BRACES = re.compile(r"(?:[:-]\s+)(\{\{)")
_TEMPLATE = re.compile(r"\$\{\{")
_AFTER_QUOTE = re.compile(r"""(?:[:-]|^)\s+("(?:[^"\\]|\\.)*"|'(?:[^']|'')*')\s*[^\s#]""")
_NO_SPACE = re.compile(r"\s*(?:- +)?([\w.-]+:)[^\s:]")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong between two offsets of a text."""

    start: int
    end: int
    message: str
    code: str = "FC001"
    hint: str | None = None


def cited(text: str) -> str:
    """The text in quotes, for a message."""
    return f"'{clean(text)}'"


def clean(text: str) -> str:
    """The text on one line, without control characters and not too long."""
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def explain(text: str, error: Any) -> Finding:
    """The finding for a `yaml.MarkedYAMLError`."""
    slip = _Slip(text, error)
    for rule in _RULES:
        finding = rule(slip)
        if finding:
            return finding
    words = ", ".join(part for part in (error.context, error.problem) if part)
    return slip.at(slip.index, f"this cannot be read as YAML: {words}")


class _Slip:
    """A parser's error, and the lines it stands in."""

    def __init__(self, text: str, error: Any) -> None:
        mark = error.problem_mark or error.context_mark
        self.text = text
        self.problem = error.problem or ""
        self.context = error.context or ""
        self.index = min(mark.index, len(text)) if mark else 0
        # Where the thing began that could not be ended.
        self.begin = error.context_mark.index if error.context_mark else self.index

    def line(self, index: int) -> tuple[int, str]:
        """The offset and the text of the line around `index`."""
        start = self.text.rfind("\n", 0, index) + 1
        end = self.text.find("\n", index)
        return start, self.text[start : end if end >= 0 else len(self.text)]

    def line_above(self) -> tuple[int, str]:
        start, _ = self.line(self.index)
        above = len(self.text[:start].rstrip())
        return self.line(above) if above else (0, "")

    def at(self, start: int, message: str, hint: str | None = None, width: int = 1) -> Finding:
        return Finding(start, start + width, message, hint=hint)


def _braces(slip: _Slip) -> Finding | None:
    start, line = slip.line(slip.index)
    found = _OPEN_BRACES.search(line)
    if not found or start + found.start(1) > slip.index:
        return None
    return slip.at(start + found.start(1), "this is read as a map", BRACES, 2)


def _tab(slip: _Slip) -> Finding | None:
    start, line = slip.line(slip.index)
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" not in indent or ("token" not in slip.problem and "tab" not in slip.problem):
        return None
    return slip.at(start + indent.index("\t"), "a tab cannot indent", "use spaces, two for each level")


def _first_character(slip: _Slip) -> Finding | None:
    if not re.search("cannot start any token|node content|keys are not allowed", slip.problem):
        return None
    character = slip.text[slip.index : slip.index + 1]
    if character == "\t":
        return slip.at(slip.index, "a tab cannot stand here", "use spaces")
    message = f"an unquoted value cannot start with {cited(character)}" if character else "a value is missing here"
    return slip.at(slip.index, message, "put the value in quotes" if character else None)


def _directive(slip: _Slip) -> Finding | None:
    if "undefined tag handle" in slip.problem or "a tag" in slip.context:
        return Finding(slip.begin, slip.begin + 1, "tags are not used here", "FC007", TAG)
    if "a block scalar" in slip.context:
        return slip.at(slip.index, "only a comment may stand here", "the text goes below, indented")
    return None


def _alias(slip: _Slip) -> Finding | None:
    if "an alias" in slip.context:
        return slip.at(slip.begin, "this is read as a YAML alias", ALIAS)
    if "an anchor" in slip.context:
        return slip.at(slip.begin, "this is read as a YAML anchor", "put a value that starts with '&' in quotes")
    return None


def _open_quote(slip: _Slip) -> Finding | None:
    if "quoted scalar" not in slip.context:
        return None
    if "escape" in slip.problem or "hexadecimal" in slip.problem:
        return slip.at(
            max(slip.begin, slip.text.rfind("\\", 0, slip.index + 1)), "an unknown escape in double quotes", ESCAPE, 2
        )
    return slip.at(slip.begin, "this quote is never closed", "close it, or write the text below the key:  key: |")


def _second_colon(slip: _Slip) -> Finding | None:
    if "values are not allowed" not in slip.problem:
        return None
    start, line = slip.line(slip.index)
    before = line[: slip.index - start]
    if re.search(r":\s", before):
        return slip.at(slip.index, "an unquoted value cannot contain ': '", _QUOTE)
    above_start, above = slip.line_above()
    missing = _NO_SPACE.match(above)
    if missing:
        return slip.at(above_start + missing.end(1) - 1, "a space is missing after ':'", "key: value")
    hint = "give it the same indentation as its neighbours; longer text goes below the key:  key: |"
    indent = len(before) - len(before.lstrip())
    return slip.at(start + indent, "a key cannot stand inside the value of the line above", hint)


def _missing_colon(slip: _Slip) -> Finding | None:
    if "could not find expected ':'" not in slip.problem:
        return None
    start, line = slip.line(slip.begin)
    missing = _NO_SPACE.match(line)
    if missing:
        return slip.at(start + missing.end(1) - 1, "a space is missing after ':'", "key: value")
    return slip.at(slip.begin, "this is no 'key: value'", "longer text goes below its key, indented:  key: |")


def _open_bracket(slip: _Slip) -> Finding | None:
    if "a flow" not in slip.context:
        return None
    start, line = slip.line(slip.begin)
    template = _TEMPLATE.search(line, slip.begin - start)
    if template:
        hint = 'between [ ] and { } put a template in quotes: "${{ ... }}"'
        return slip.at(start + template.start(), "an unquoted template inside [ ] or { }", hint, 3)
    bracket = slip.text[slip.begin : slip.begin + 1]
    hint = "put a comma between two items, quotes around an item with special characters"
    return slip.at(slip.begin, f"'{bracket}' is not closed, or a comma is missing", hint)


def _after_quote(slip: _Slip) -> Finding | None:
    start, line = slip.line(slip.index)
    found = _AFTER_QUOTE.search(line)
    if "a block" not in slip.context or not found or slip.index < start + found.end(1):
        return None
    quote = '"' if found.group(1)[0] == "'" else "'"
    hint = f"put {quote}...{quote} around the whole value, or write it below the key:  key: |"
    return slip.at(slip.index, "text after a quoted value", hint)


def _indentation(slip: _Slip) -> Finding | None:
    if "entries are not allowed" in slip.problem:
        return slip.at(slip.index, "a list cannot begin in the line of its key", "put each '- ...' in its own line")
    if "<document start>" in slip.problem:
        return slip.at(slip.index, "this does not belong to what stands above", "indent it, or give it a key")
    if "a block" not in slip.context:
        return None
    hint = "keys of one map, and items of one list, begin in the same column"
    return slip.at(slip.index, "this does not line up with the lines above", hint)


# The first that applies wins.
_RULES = (
    _braces,
    _tab,
    _first_character,
    _directive,
    _alias,
    _open_quote,
    _second_colon,
    _missing_colon,
    _open_bracket,
    _after_quote,
    _indentation,
)
