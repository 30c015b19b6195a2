"""YAML text -> plain data, and where in the text each key and value stands; the only user of PyYAML.

Works on parser events, so that depth and size are judged before anything is built, and nothing in a
file can name a Python type. The C parser is used where PyYAML has it; both give the same.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
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
Spans = dict[int, dict[str | int, Span]]

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
        source = parser(text)
        while (event := source.get_event()) is not None:
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        builder.findings.append(syntax.explain(text, error))
    except _Enough as enough:
        builder.findings += enough.args
    except (yaml.YAMLError, ValueError) as error:  # PyYAML lets chr() and int() errors through
        builder.findings.append(Finding(0, 1, f"this cannot be read as YAML: {error}", hint=syntax.ESCAPE))
    return builder.tree


class _Enough(Exception):
    """Stops the reading."""


@dataclass(slots=True)
class _Open:
    """A map or list that has begun and not ended; `key` is the key that waits for its value."""

    value: Any
    spans: dict[str | int, Span]
    start: int
    end: int
    before: int
    anchor: str | None
    key: str | None = None
    key_start: int = 0
    key_end: int = 0
    merging: bool = False
    merges: list[tuple[Any, int, int]] = field(default_factory=list)


class _Builder:
    def __init__(self, text: str) -> None:
        self.tree = Tree()
        self.findings = self.tree.findings
        self._text = text
        self._stack: list[_Open] = []
        self._nodes = 0
        # Anchor -> value and its size in nodes; None while it is still open.
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._take = {
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.MappingStartEvent: self._start_map,
            yaml.SequenceStartEvent: self._start_list,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceEndEvent: self._end,
            yaml.DocumentStartEvent: self._start_document,
        }

    def take(self, event: Any) -> None:
        handle = self._take.get(type(event))
        if handle:
            handle(event)

    def _start_document(self, event: Any) -> None:
        if not self.tree.empty:
            place = event.start_mark.index
            raise _Enough(Finding(place, place + 3, "a second document starts here", hint="keep one document per file"))
        self.tree.empty = False

    def _scalar(self, event: Any) -> None:
        start, end, value = event.start_mark.index, event.end_mark.index, event.value
        self._count(1, start)
        if event.tag is not None or event.implicit[0]:
            value = self._resolved(event, start, end)
        elif event.style == '"' and _SURROGATE.search(value):
            self._complain(start, end, "half a character (U+D800 to U+DFFF) in double quotes", hint=syntax.ESCAPE)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        if start == end and self._stack:
            start = end = self._after_colon(self._stack[-1], start)
        self._add(value, start, end, plain=event.implicit[0])

    def _after_colon(self, top: _Open, place: int) -> int:
        """Where a missing value would stand; the parsers themselves do not agree on it in `{a: }`."""
        colon = self._text.find(":", top.key_end, place) if top.key is not None else -1
        return colon + 1 or place

    def _resolved(self, event: Any, start: int, end: int) -> Any:
        try:
            if event.tag is None:
                return scalars.plain(event.value)
            if event.tag in scalars.TAGS:
                return scalars.tagged(event.tag, event.value)
        except ValueError as error:
            self._complain(start, end, str(error), code="FC009", hint="if it is text, put it in quotes")
        else:
            self._unknown_tag(start)
        return event.value

    def _unknown_tag(self, start: int) -> None:
        start = self._text.find("!", start)
        end = start + len(self._text[start : start + 80].split(maxsplit=1)[0])
        self._complain(start, end, "tags are not used here", code="FC007", hint=syntax.TAG)

    def _alias(self, event: Any) -> None:
        start, end, name = event.start_mark.index, event.end_mark.index, event.anchor
        known = self._anchors.get(name, (None, 0))
        if known is None:
            raise _Enough(Finding(start, end, f"{cited('*' + name)} stands inside the value that it repeats"))
        if name not in self._anchors:
            self._complain(start, end, f"there is no {cited('&' + name)} above", hint=syntax.ALIAS)
        value, size = known
        self._count(max(size, 1), start)
        self._add(value, start, end)

    def _start_map(self, event: Any) -> None:
        self._start(event, {}, scalars.MAP_TAG)

    def _start_list(self, event: Any) -> None:
        self._start(event, [], scalars.LIST_TAG)

    def _start(self, event: Any, value: Any, tag: str) -> None:
        start = event.start_mark.index
        if len(self._stack) >= MAX_DEPTH:
            raise _Enough(Finding(start, start + 1, f"nested deeper than {MAX_DEPTH} levels", code="FC002"))
        self._count(1, start)
        if event.tag is not None and event.tag != tag:
            self._unknown_tag(start)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        spans: dict[str | int, Span] = {}
        self.tree.spans[id(value)] = spans
        self._stack.append(_Open(value, spans, start, event.end_mark.index, self._nodes - 1, event.anchor))

    def _end(self, _event: Any) -> None:
        done = self._stack.pop()
        if done.merges:
            self._merge(done)
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._nodes - done.before)
        self._add(done.value, done.start, done.end)

    def _take_key(self, top: _Open, key: Any, start: int, end: int, *, plain: bool) -> None:
        if type(key) is not str:
            key = self._bad_key(key, start, end)
        elif key in top.value or (key == _MERGE and plain and top.merges):
            self._repeated_key(top, key, start, end)
        top.key, top.key_start, top.key_end = key, start, end
        top.merging = plain and key == _MERGE  # a quoted '<<' is a key like any other

    def _bad_key(self, key: Any, start: int, end: int) -> str:
        if start and self._text.startswith("{{", start - 1):
            self._complain(start - 1, start + 1, "this is read as a map", hint=syntax.BRACES)
        elif isinstance(key, (dict, list)):
            self._complain(start, end, f"a {'map' if isinstance(key, dict) else 'list'} cannot be a key")
        else:
            hint = f"write it in quotes: {cited(self._text[start:end])}"
            self._complain(start, end, "a key must be text", code="FC008", hint=hint)
        return f"{start}"

    def _repeated_key(self, top: _Open, key: str, start: int, end: int) -> None:
        first = top.spans[key][0] if key in top.spans else top.merges[0][1]
        line = self._text.count("\n", 0, first) + 1
        message = f"the key {cited(key)} stands here a second time; the first is in line {line}"
        self._complain(start, end, message, code="FC006", hint="remove one of the two")

    def _add(self, value: Any, start: int, end: int, *, plain: bool = False) -> None:
        """Put a finished node where it belongs; `plain` says that it is an unquoted scalar."""
        if not self._stack:
            self.tree.data, self.tree.root = value, (start, end, start, end)
            return
        top = self._stack[-1]
        if type(top.value) is list:
            top.spans[len(top.value)] = (start, end, start, end)
            top.value.append(value)
        elif top.key is None:
            self._take_key(top, value, start, end, plain=plain)
        elif top.merging:
            top.merges.append((value, start, end))
            top.key, top.merging = None, False
        else:
            top.value[top.key] = value
            top.spans[top.key] = (top.key_start, top.key_end, start, end)
            top.key = None

    def _merge(self, done: _Open) -> None:
        """Put the keys of `<<: *other` under the map's own, which win; an earlier map of a list wins too."""
        own, own_spans = dict(done.value), dict(done.spans)
        merged: dict[str, Any] = {}
        spans: dict[str | int, Span] = {}
        for value, start, end in done.merges:
            for source in value if type(value) is list else [value]:
                if type(source) is not dict:
                    self._complain(start, end, "'<<' takes a map, or a list of maps", hint="<<: *name")
                    continue
                merged = {**source, **merged}
                spans = {**self.tree.spans[id(source)], **spans}
        for target, parts in ((done.value, (merged, own)), (done.spans, (spans, own_spans))):
            target.clear()
            for part in parts:
                target.update(part)

    def _count(self, nodes: int, place: int) -> None:
        self._nodes += nodes
        if self._nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} values, counting each repetition by an alias"
            raise _Enough(Finding(place, place + 1, message, code="FC002"))

    def _complain(self, start: int, end: int, message: str, *, code: str = "FC001", hint: str | None = None) -> None:
        self.findings.append(Finding(start, end, message, code, hint))
        if len(self.findings) >= MAX_FINDINGS:
            raise _Enough
