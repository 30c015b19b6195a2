"""How the output of a one-shot program is read: as text, as one JSON value, or as JSON lines.

Rules find things in a JSON value: `{at: item.text, when: {type: item.completed}}`, or just `item.text`. A path
is keys and list indexes joined by dots; `when` compares values at paths. Keys of `reply`: `format`; `delta`
(pieces of the answer), `text` (whole parts, unless pieces came), `error` (it failed, and why), `done` (must be
seen), `usage` (a path for each name of `Usage`, with `when`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.programs.process import Completed
from flowcraft.llm.agents.failures import failure
from flowcraft.llm.agents.terminal import PlainText
from flowcraft.llm.base import Delta, Usage

FORMATS = ("text", "json", "json-lines")
_COUNTS = tuple(field.name for field in fields(Usage) if field.name != "credits")


@dataclass(frozen=True, slots=True)
class Rule:
    """Where something stands in a JSON value, and which values it is looked for in."""

    at: str = ""
    when: Mapping[str, Any] = field(default_factory=dict)

    def of(self, value: Any) -> Any:
        """What stands there; None if nothing does or the value is of another kind."""
        if all(found_at(value, path) == wanted for path, wanted in self.when.items()):
            return found_at(value, self.at) if self.at else value
        return None


@dataclass(frozen=True, slots=True)
class Success:
    """What proves an answer beside its text: the exit code, and words on stdout or stderr (patterns)."""

    exit_codes: tuple[int, ...] = (0,)
    stdout: re.Pattern[str] | None = None
    stderr: re.Pattern[str] | None = None

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Success":
        given = given or {}
        codes = given.get("exit_codes", (0,))
        codes = codes if isinstance(codes, (list, tuple)) else (codes,)
        return cls(tuple(int(code) for code in codes), *(_pattern(given.get(name)) for name in ("stdout", "stderr")))

    def lacks(self, ended: Completed) -> str | None:
        """What of it is not there, None if all is; an exit code of another kind speaks for itself."""
        if ended.returncode not in self.exit_codes:
            return ""
        outputs = {"stdout": (self.stdout, ended.stdout), "stderr": (self.stderr, ended.stderr)}
        for name, (pattern, output) in outputs.items():
            if pattern and not pattern.search(output.decode("utf-8", "replace")):
                return f"but {name} does not match '{pattern.pattern}'"
        return None


@dataclass(frozen=True, slots=True)
class Reply:
    """The rules for one program."""

    format: str = "text"
    delta: tuple[Rule, ...] = ()
    text: tuple[Rule, ...] = ()
    error: tuple[Rule, ...] = ()
    done: tuple[Rule, ...] = ()
    usage: Mapping[str, Rule] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Reply":
        """The rules that settings give; raises UsageError if they read nothing."""
        given = given or {}
        form = str(given.get("format") or "text")
        rules = {name: _rules(given.get(name)) for name in ("delta", "text", "error", "done")}
        if form not in FORMATS:
            raise UsageError(f"reply: there is no format '{form}'", hint=f"use {', '.join(FORMATS)}")
        if form != "text" and not (rules["delta"] or rules["text"]):
            raise UsageError(
                f"reply: the format {form} needs to know where the answer is", hint="give `text` or `delta`"
            )
        usage = dict(given.get("usage") or {})
        when = usage.pop("when", {})
        return cls(form, **rules, usage={name: Rule(str(path), when) for name, path in usage.items()})

    def reader(self, name: str) -> "Reader":
        return Reader(self, name)


class Reader:
    """Reads one output; `text` is what has come, `done` whether what must be seen was seen."""

    def __init__(self, reply: Reply, name: str) -> None:
        self._reply, self._name = reply, name
        self._plain = PlainText()
        self._rest = b""
        self._text: list[str] = []
        self._pieces = False
        self.done = not reply.done
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        return "".join(self._text)

    def add(self, data: bytes, *, last: bool = False) -> Iterator[Delta]:
        """Take in the next bytes of stdout; raises ProviderError if they tell of a failure."""
        if self._reply.format == "text":
            yield from self._said(self._plain.add(data, last=last))
            return
        self._rest += data
        if self._reply.format == "json":
            documents = [self._rest] if last else []
        else:
            *documents, self._rest = (self._rest + b"\n" * last).split(b"\n")
        for document in documents:
            yield from self._read(document)

    def _read(self, document: bytes) -> Iterator[Delta]:
        try:
            value = json.loads(document)
        except (ValueError, RecursionError):
            return  # programs print other things between their lines; what is missing is noticed at the end
        self._check(value)
        for rule in self._reply.delta:
            piece = rule.of(value)
            if isinstance(piece, str) and piece:
                self._pieces = True
                yield from self._said(piece)
        for rule in () if self._pieces else self._reply.text:
            whole = rule.of(value)
            if isinstance(whole, str):
                yield from self._said(whole)

    def _check(self, value: Any) -> None:
        for rule in self._reply.error:
            problem = rule.of(value)
            if problem:
                words = problem if isinstance(problem, str) else json.dumps(problem)
                raise failure(self._name, words, partial=self.text)
        self.done = self.done or any(rule.of(value) is not None for rule in self._reply.done)
        found = {name: rule.of(value) for name, rule in self._reply.usage.items()}
        counts = {name: found[name] for name in _COUNTS if isinstance(found.get(name), int)}
        amount = _decimal(found.get("credits"))
        if counts or amount is not None:
            self.usage = Usage(**counts, credits=amount)

    def _said(self, text: str) -> Iterator[Delta]:
        if text:
            self._text.append(text)
            yield Delta(content=text)


def found_at(value: Any, path: str) -> Any:
    """What stands at a path such as `content.0.text`; None if there is nothing."""
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.lstrip("-").isdecimal() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _rules(given: Any) -> tuple[Rule, ...]:
    entries = given if isinstance(given, (list, tuple)) else [given] if given else []
    return tuple(
        Rule(entry) if isinstance(entry, str) else Rule(str(entry.get("at") or ""), dict(entry.get("when") or {}))
        for entry in entries
    )


def _pattern(given: Any) -> re.Pattern[str] | None:
    if given is None:
        return None
    try:
        return re.compile(str(given))
    except re.error as error:
        raise UsageError(f"success: '{given}' is no pattern: {error}", hint="escape signs such as ( with \\") from error


def _decimal(value: Any) -> Decimal | None:
    try:
        return None if value is None or isinstance(value, bool) else Decimal(str(value))
    except InvalidOperation:
        return None
