"""YAML text -> plain data, and where in the text each key and value stands; the only user of PyYAML.

Works on parser events, so that depth and size are judged before anything is built, and nothing in a
file can name a Python type. The C parser is used where PyYAML has it; both give the same.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml
from yaml.events import (
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.scanner import Scanner

from flowcraft.core.reading import scalars, syntax
from flowcraft.core.reading.syntax import Finding, cited

MAX_DEPTH = 100
# Counted as expanded: nine lines of aliases can stand for a billion nodes.
MAX_NODES = 100_000
# After so many the reader has seen enough; a wrong file of 1 MiB must not print 1 MiB.
MAX_FINDINGS = 20

# Where a key and its value start and end, as offsets into the text.
Span = tuple[int, int, int, int]
Parts = dict[str | int, Span]
Spans = dict[int, Parts]

_MERGE = "<<"
_SURROGATE = re.compile("[\ud800-\udfff]")


class PurePythonParser(Reader, Scanner, Parser):
    """PyYAML's own parser, for where it was built without libyaml; stricter with tabs, and with `? ` in `[ ]`."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


FastestParser: Any = PurePythonParser
if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # the stubs leave it out

    FastestParser = CParser


@dataclass(slots=True)
class Tree:
    """The data of a text, with `spans` by the id of each map and list in it; `empty` if there is none."""

    data: Any = None
    root: Span = (0, 0, 0, 0)
    spans: Spans = field(default_factory=dict)
    empty: bool = True
    findings: list[Finding] = field(default_factory=list)


def read(text: str, parser: Any = FastestParser) -> Tree:
    """The tree of `text`; whatever is wrong with it is in `findings`, and then the data is not to be used."""
    builder = _Builder(text)
    try:
        builder.build(parser(text).get_event)
    except yaml.MarkedYAMLError as error:
        builder.findings.append(syntax.explain(text, error))
    except _Enough as enough:
        builder.findings += enough.args
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets chr() and int() errors through
        builder.findings.append(Finding(0, 1, f"this cannot be read as YAML: {error}", hint=syntax.ESCAPE))
    return builder.tree


class _Enough(Exception):
    """Stops the reading."""


# What `<<` stands for in a map, and where that begins and ends.
_Merges = list[tuple[Any, int, int]]


class _Builder:
    """Takes events one by one; each map and list has a call of its own, so few that no depth limit is near."""

    def __init__(self, text: str) -> None:
        self.tree = Tree()
        self.findings = self.tree.findings
        self._text = text
        self._next: Callable[[], Any] = lambda: None
        self._depth = 0
        self._nodes = 0
        # Anchor -> value and its size in nodes; None while it is still open.
        self._anchors: dict[str, tuple[Any, int] | None] = {}

    def build(self, next_event: Callable[[], Any]) -> None:
        """Make the tree of all events."""
        self._next = next_event
        while (event := next_event()) is not None:
            kind = type(event)
            if kind is DocumentStartEvent:
                self._start_document(event)
            elif issubclass(kind, NodeEvent):
                start, end = event.start_mark.index, event.end_mark.index
                self.tree.data, self.tree.root = self._value(event, start, end), (start, end, start, end)

    def _start_document(self, event: Any) -> None:
        if not self.tree.empty:
            place = event.start_mark.index
            raise _Enough(Finding(place, place + 3, "a second document starts here", hint="keep one document per file"))
        self.tree.empty = False

    def _value(self, event: Any, start: int, end: int) -> Any:
        """What an event, with those that belong to it, stands for."""
        kind = type(event)
        if kind is ScalarEvent:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                self._too_many(start)
            return self._scalar(event, start, end)
        if kind is MappingStartEvent:
            return self._inner(event, start, {}, scalars.MAP_TAG, self._map)
        if kind is SequenceStartEvent:
            return self._inner(event, start, [], scalars.LIST_TAG, self._list)
        return self._alias(event, start, end)

    def _scalar(self, event: Any, start: int, end: int) -> Any:
        value = event.value
        if event.tag is not None:
            value = self._tagged(event, start, end)
        elif event.implicit[0]:
            try:
                value = scalars.plain(value)
            except ValueError as error:
                self._bad_number(start, end, error)
        elif event.style == '"' and _SURROGATE.search(value):
            self._complain(start, end, "half a character (U+D800 to U+DFFF) in double quotes", hint=syntax.ESCAPE)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        return value

    def _tagged(self, event: Any, start: int, end: int) -> Any:
        if event.tag not in scalars.TAGS:
            self._unknown_tag(start)
            return event.value
        try:
            return scalars.tagged(event.tag, event.value)
        except ValueError as error:
            self._bad_number(start, end, error)
            return event.value

    def _bad_number(self, start: int, end: int, error: ValueError) -> None:
        self._complain(start, end, str(error), code="FC009", hint="if it is text, put it in quotes")

    def _unknown_tag(self, start: int) -> None:
        start = self._text.find("!", start)
        end = start + len(self._text[start : start + 80].split(maxsplit=1)[0])
        self._complain(start, end, "tags are not used here", code="FC007", hint=syntax.TAG)

    def _alias(self, event: Any, start: int, end: int) -> Any:
        name = event.anchor
        known = self._anchors.get(name, (None, 0))
        if known is None:
            raise _Enough(Finding(start, end, f"{cited('*' + name)} stands inside the value that it repeats"))
        if name not in self._anchors:
            self._complain(start, end, f"there is no {cited('&' + name)} above", hint=syntax.ALIAS)
        value, size = known
        self._nodes += max(size, 1)
        if self._nodes > MAX_NODES:
            self._too_many(start)
        return value

    def _inner(self, event: Any, start: int, value: Any, tag: str, fill: Callable[[Any, Parts], None]) -> Any:
        """A map or list, filled with all up to its end."""
        if self._depth >= MAX_DEPTH:
            raise _Enough(Finding(start, start + 1, f"nested deeper than {MAX_DEPTH} levels", code="FC002"))
        before = self._nodes
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._too_many(start)
        if event.tag is not None and event.tag != tag:
            self._unknown_tag(start)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        parts: Parts = {}
        self.tree.spans[id(value)] = parts
        self._depth += 1
        fill(value, parts)
        self._depth -= 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._nodes - before)
        return value

    def _list(self, value: list[Any], parts: Parts) -> None:
        while type(event := self._next()) is not SequenceEndEvent:
            start, end = event.start_mark.index, event.end_mark.index
            item = self._value(event, start, end)
            parts[len(value)] = (start, end, start, end)
            value.append(item)

    def _map(self, value: dict[str, Any], parts: Parts) -> None:
        merges: _Merges = []
        while type(event := self._next()) is not MappingEndEvent:
            start, end = event.start_mark.index, event.end_mark.index
            key = self._value(event, start, end)
            # A quoted '<<' is a key like any other.
            merging = key == _MERGE and type(event) is ScalarEvent and event.implicit[0]
            if type(key) is not str:
                key = self._bad_key(key, start, end)
            elif key in value or (merging and merges):
                first = parts[key][0] if key in parts else merges[0][1]
                self._repeated_key(key, first, start, end)
            event = self._next()
            at, until = event.start_mark.index, event.end_mark.index
            inner = self._value(event, at, until)
            if at == until and type(event) is ScalarEvent:
                at = until = self._after_colon(end, at)
            if merging:
                merges.append((inner, at, until))
            else:
                value[key] = inner
                parts[key] = (start, end, at, until)
        if merges:
            self._merge(value, parts, merges)

    def _after_colon(self, key_end: int, place: int) -> int:
        """Where a missing value would stand; the parsers themselves do not agree on it in `{a: }`."""
        return self._text.find(":", key_end, place) + 1 or place

    def _bad_key(self, key: Any, start: int, end: int) -> str:
        if start and self._text.startswith("{{", start - 1):
            self._complain(start - 1, start + 1, "this is read as a map", hint=syntax.BRACES)
        elif isinstance(key, (dict, list)):
            self._complain(start, end, f"a {'map' if isinstance(key, dict) else 'list'} cannot be a key")
        else:
            hint = f"write it in quotes: {cited(self._text[start:end])}"
            self._complain(start, end, "a key must be text", code="FC008", hint=hint)
        return f"{start}"

    def _repeated_key(self, key: str, first: int, start: int, end: int) -> None:
        line = self._text.count("\n", 0, first) + 1
        message = f"the key {cited(key)} stands here a second time; the first is in line {line}"
        self._complain(start, end, message, code="FC006", hint="remove one of the two")

    def _merge(self, value: dict[str, Any], parts: Parts, merges: _Merges) -> None:
        """Put the keys of `<<: *other` under the map's own, which win; an earlier map of a list wins too."""
        merged: dict[str, Any] = {}
        spans: Parts = {}
        for other, start, end in merges:
            for source in other if type(other) is list else [other]:
                if type(source) is not dict:
                    self._complain(start, end, "'<<' takes a map, or a list of maps", hint="<<: *name")
                    continue
                merged = {**source, **merged}
                spans = {**self.tree.spans[id(source)], **spans}
        pairs: tuple[tuple[dict[Any, Any], dict[Any, Any]], ...] = ((value, merged), (parts, spans))
        for target, under in pairs:
            found = {**under, **target}
            target.clear()
            target.update(found)

    def _too_many(self, place: int) -> NoReturn:
        message = f"more than {MAX_NODES:,} values, counting each repetition by an alias"
        raise _Enough(Finding(place, place + 1, message, code="FC002"))

    def _complain(self, start: int, end: int, message: str, *, code: str = "FC001", hint: str | None = None) -> None:
        self.findings.append(Finding(start, end, message, code, hint))
        if len(self.findings) >= MAX_FINDINGS:
            raise _Enough
