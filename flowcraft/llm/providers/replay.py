"""Answers from a recording and nothing else: for tests, examples and offline work.

A recording is a JSONL file, one answer a line; `path` in the model's settings names it (relative to the
settings file). Each line has a `response` (the text, or `content`, `finish_reason`, `usage`, `reasoning`,
`model`) and says which requests it answers; the first of these that fits a request wins:

    {"request": {"messages": [{"role": "user", "content": "..."}], "params": {...}}, "response": "..."}
        exactly this request; `model` and `params` count only where they are given, and images by their hash
    {"match": "text" or ["text", ...], "response": "..."}
        each of the texts occurs in the messages
    {"response": "..."}
        any request

Lines of one kind that fit the same request are given in the order of the file; the last one is repeated.
"""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from flowcraft.core.errors import DocumentError, ReplayMiss, UsageError
from flowcraft.core.problems import Problem
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, LLMMessage, Usage
from flowcraft.llm.parts import recorded, shown

Kind = Literal["request", "match", "any"]
KINDS: tuple[Kind, ...] = ("request", "match", "any")
SHOWN_CHARACTERS = 60  # of a text that differs, in a miss

_PIECE = re.compile(r"\s*\S+|\s+")
_RESPONSE_KEYS = {"content", "finish_reason", "usage", "reasoning", "model", "request_id"}
_USAGE_KEYS = {field.name for field in fields(Usage)} - {"credits"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a recording."""

    number: int
    kind: Kind
    request: Mapping[str, Any]
    texts: tuple[str, ...]
    response: Mapping[str, Any]


class ReplayProvider(BaseLLMProvider):
    """Plays a recording; thread-safe, never opens a connection."""

    provider_name = "replay"
    takes_images = True

    def __init__(self, config: ModelSettings | None = None) -> None:
        super().__init__(config)
        self.path = _recording_path(self.config)
        self._lines = load_recording(self.path)
        self._given: set[int] = set()
        self._lock = threading.Lock()

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """Play the answer recorded for `request`; raises ReplayMiss if there is none."""
        request.scope.check()
        response = self._next(request).response
        content = response["content"]
        yield Delta(reasoning=response.get("reasoning", ""), model=response.get("model"))
        for piece in _PIECE.findall(content) if request.stream else [content]:
            yield Delta(content=piece)
        usage = response.get("usage")
        yield Delta(
            finish_reason=response.get("finish_reason", "stop"),
            usage=Usage(**usage) if usage else None,
            request_id=response.get("request_id"),
        )

    def _next(self, request: ChatRequest) -> Line:
        asked = _as_data(request, self.config.model)
        with self._lock:
            for kind in KINDS:
                fitting = [line for line in self._lines if line.kind == kind and _fits(line, asked)]
                if fitting:
                    line = next((line for line in fitting if line.number not in self._given), fitting[-1])
                    self._given.add(line.number)
                    return line
        raise self._miss(asked)

    def _miss(self, asked: Mapping[str, Any]) -> ReplayMiss:
        name = self.path.name
        exact = [line for line in self._lines if line.kind == "request"]
        if exact:
            nearest = min(exact, key=lambda line: _distance(line.request, asked))
            fields = "; ".join(_differences(nearest.request, asked))
            near = f"the nearest one, {name}:{nearest.number}, differs in {fields}"
        else:
            wanted = [f"{line.number}: {' and '.join(map(repr, line.texts))}" for line in self._lines[:5]]
            near = f"no line matches; the lines want {'; '.join(wanted)}" if wanted else f"{name} is empty"
        return ReplayMiss(
            f"the recording holds no answer to this request: {near}",
            provider=self.provider_name,
            model=self.config.name,
            sent=False,
            hint=f"add a line for it to {self.path}, or use a real model",
        )


def load_recording(path: Path) -> tuple[Line, ...]:
    """Read and check a recording; raises DocumentError with all lines that cannot be used."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"the recording {path} cannot be read: {reason}", hint="check `path` of the model") from error
    lines, problems = [], []
    for number, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            lines.append(_line(number, json.loads(row)))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(file=str(path), line=number, column=1, code="FC400", message=str(error)))
    if problems:
        raise DocumentError(problems)
    return tuple(lines)


def _recording_path(config: ModelSettings) -> Path:
    path = config.options.get("path")
    if not isinstance(path, str) or not path:
        raise UsageError(
            "the replay provider needs a recording",
            hint="llm: {models: {recorded: {provider: replay, path: answers.jsonl}}}",
        )
    place = Path(path).expanduser()
    settings = Path(config.origin.file)
    return place if place.is_absolute() or not settings.is_absolute() else settings.parent / place


def _line(number: int, row: Any) -> Line:
    if not isinstance(row, dict) or "response" not in row:
        raise ValueError("a line is an object with a 'response'")
    unknown = set(row) - {"request", "match", "response"}
    if unknown or ("request" in row and "match" in row):
        raise ValueError("a line has a 'response', and either a 'request' or a 'match', and nothing else")
    kind: Kind = "request" if "request" in row else "match" if "match" in row else "any"
    match = row.get("match", [])
    texts = (match,) if isinstance(match, str) else tuple(match) if isinstance(match, list) else ()
    if not all(isinstance(text, str) for text in texts) or (kind == "match" and not texts):
        raise ValueError("'match' is a text or a list of texts")
    return Line(number=number, kind=kind, request=_request(row), texts=texts, response=_response(row["response"]))


def _request(row: Mapping[str, Any]) -> Mapping[str, Any]:
    request = row.get("request", {"messages": []})
    if not isinstance(request, dict) or set(request) - {"messages", "model", "params"}:
        raise ValueError("'request' has 'messages' and perhaps 'model' and 'params'")
    messages = request.get("messages")
    if not isinstance(messages, list) or not all(
        isinstance(message, dict) and set(message) == {"role", "content"} for message in messages
    ):
        raise ValueError("'messages' is a list of objects with 'role' and 'content'")
    if not isinstance(request.get("params", {}), dict):
        raise ValueError("'params' is an object")
    return {**request, "messages": [_message(one["role"], one["content"]) for one in messages]}


def _message(role: str, content: Any) -> dict[str, Any]:
    try:
        return {"role": role, "content": recorded(content)}
    except (UsageError, TypeError) as error:
        raise ValueError(f"the 'content' of a message: {error}") from error


def _response(response: Any) -> Mapping[str, Any]:
    if isinstance(response, str):
        return {"content": response}
    if not isinstance(response, dict) or not isinstance(response.get("content"), str):
        raise ValueError("'response' is a text or an object with a 'content'")
    if set(response) - _RESPONSE_KEYS:
        raise ValueError(f"'response' has unknown keys: {', '.join(sorted(set(response) - _RESPONSE_KEYS))}")
    usage = response.get("usage") or {}
    if not isinstance(usage, dict) or set(usage) - _USAGE_KEYS:
        raise ValueError(f"'usage' has only {', '.join(sorted(_USAGE_KEYS))}")
    return response


def _as_data(request: ChatRequest, model: str) -> Mapping[str, Any]:
    return {"model": model, "messages": _messages(request.messages), "params": dict(request.params)}


def _messages(messages: Sequence[LLMMessage]) -> list[dict[str, Any]]:
    return [
        {"role": one.role, "content": one.content if isinstance(one.content, str) else recorded(one.content)}
        for one in messages
    ]


def _fits(line: Line, asked: Mapping[str, Any]) -> bool:
    if line.kind == "request":
        return all(asked[key] == value for key, value in line.request.items())
    return all(any(text in shown(message["content"]) for message in asked["messages"]) for text in line.texts)


def _differences(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    old, new = recorded.get("params", asked["params"]), asked["params"]
    values = {f"params.{name}": (old.get(name), new.get(name)) for name in sorted({*old, *new})}
    values["model"] = (recorded.get("model", asked["model"]), asked["model"])
    values["the number of messages"] = (len(recorded["messages"]), len(asked["messages"]))
    texts = {
        f"messages[{index}].{name}": (_text(before[name]), _text(now[name]))
        for index, (before, now) in enumerate(zip(recorded["messages"], asked["messages"], strict=False))
        for name in ("role", "content")
    }
    return [
        *(f"{field} (recorded {old!r}, asked {new!r})" for field, (old, new) in values.items() if old != new),
        *(f"{field} ({_first_difference(old, new)})" for field, (old, new) in texts.items() if old != new),
    ]


def _distance(recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> tuple[int, int]:
    """How many fields differ, and of two equals the one whose texts begin and end more alike."""
    texts = [
        (_text(before["content"]), _text(now["content"]))
        for before, now in zip(recorded["messages"], asked["messages"], strict=False)
    ]
    alike = sum(_shared_start(old, new) + _shared_start(old[::-1], new[::-1]) for old, new in texts)
    return len(_differences(recorded, asked)), -alike


def _text(content: Any) -> str:
    """Content as text in which a different image is a difference."""
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _first_difference(recorded: str, asked: str) -> str:
    place = _shared_start(recorded, asked)
    start = max(0, place - SHOWN_CHARACTERS // 3)
    old, new = recorded[start : start + SHOWN_CHARACTERS], asked[start : start + SHOWN_CHARACTERS]
    return f"from character {place}: recorded {old!r}, asked {new!r}"


def _shared_start(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
