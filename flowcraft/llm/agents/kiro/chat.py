"""Kiro CLI without ACP: one `chat` run per prompt, as structured lines or as plain text.

An answer counts only when it is proven. Exit code 0 proves nothing: it is also how a spent quota, a
rejected key and an overloaded model end. The proof is the line with the credits, or `runFinished`.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from flowcraft.core.errors import AuthError, ProviderError
from flowcraft.llm.agents.failures import kind_of, unproven
from flowcraft.llm.agents.kiro.probe import NAME, Kiro
from flowcraft.llm.agents.oneshot import OneShot
from flowcraft.llm.agents.presets import PRESETS
from flowcraft.llm.agents.terminal import PlainText, asks_for_login, plain
from flowcraft.llm.agents.turn import Turn
from flowcraft.llm.agents.usage import trailer_credits
from flowcraft.llm.base import Delta, Usage

_LOGIN_WINDOW = 16384  # bytes in which a login prompt is looked for


def chat_command(
    kiro: Kiro, *, structured: bool, model: str | None, agent: str | None, effort: str | None
) -> list[str]:
    """The command line of one prompt, which goes to stdin; no tool is trusted."""
    argv = [kiro.path, "chat", "--no-interactive"]
    argv += ["--agent-engine", "v2"] if "--agent-engine" in kiro.flags else []
    argv += ["--output-format", "stream-json"] if structured else []
    argv += ["--wrap", "never"] if "--wrap" in kiro.flags and not structured else []
    return [*argv, *choices(kiro, model=model, agent=agent, effort=effort), "--trust-tools="]


def choices(kiro: Kiro, *, model: str | None, agent: str | None, effort: str | None) -> list[str]:
    """The flags for what settings choose."""
    argv = ["--model", model] if model else []
    argv += ["--agent", agent] if agent else []
    return argv + (["--effort", effort] if effort and "--effort" in kiro.flags else [])


class Reader(Protocol):
    """Makes deltas of stdout; `text` is what has come, `finished` raises unless the answer is proven."""

    @property
    def text(self) -> str: ...

    def add(self, data: bytes) -> Iterator[Delta]: ...

    def finished(self, stderr: str, ended: str) -> Iterator[Delta]: ...


def answers(program: OneShot, reader: Reader) -> Iterator[Delta]:
    """The answer of a `chat` run; raises ProviderError. A login prompt is an error at once."""
    try:
        yield from _output(program, reader)
        code = program.completed.returncode
        stderr = plain(program.completed.stderr.decode("utf-8", "replace"))
        yield from reader.finished(stderr, f"with exit code {code}" if code >= 0 else f"by signal {-code}")
    except ProviderError as error:
        error.partial_text = error.partial_text or reader.text
        if isinstance(error, AuthError):
            error.hint = PRESETS["kiro"].login
        raise


def _output(program: OneShot, reader: Reader) -> Iterator[Delta]:
    seen = {"stdout": b"", "stderr": b""}
    for stream, data in program:
        seen[stream] = (seen[stream] + data)[-_LOGIN_WINDOW:]
        if not reader.text and asks_for_login(b"\n".join(seen.values()).decode("utf-8", "replace")):
            raise AuthError(f"{NAME} waits for somebody to log in")
        if stream == "stdout":
            yield from reader.add(data)


class PlainReader:
    """Plain mode: the answer is stdout without colours and sign, proven by the credits on stderr."""

    def __init__(self) -> None:
        self._plain = PlainText(marked=True)
        self._text: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._text)

    def add(self, data: bytes, *, last: bool = False) -> Iterator[Delta]:
        text = self._plain.add(data, last=last)
        if text:
            self._text.append(text)
            yield Delta(content=text)

    def finished(self, stderr: str, ended: str) -> Iterator[Delta]:
        yield from self.add(b"", last=True)
        proven, amount = trailer_credits(stderr)
        text = self.text
        if not (proven and text.strip() and ended == "with exit code 0"):
            # Without an answer the reason may be on stdout.
            said = stderr if kind_of(stderr) or proven else f"{stderr}\n{text}"
            raise unproven(NAME, said, partial=text, ended=ended)
        yield Delta(finish_reason="stop", usage=Usage(credits=amount))


class StructuredReader:
    """`stream-json`: lines of ACP updates between others; proven by `runFinished`."""

    def __init__(self) -> None:
        self._turn = Turn(NAME)
        self._rest = b""
        self._end: Mapping[str, Any] | None = None

    @property
    def text(self) -> str:
        return self._turn.text

    def add(self, data: bytes) -> Iterator[Delta]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            delta = self._line(line)
            if delta:
                yield delta

    def finished(self, stderr: str, ended: str) -> Iterator[Delta]:
        yield from self.add(b"\n")
        end = self._end
        if end is None or ended != "with exit code 0" or _failed(end):
            raise unproven(NAME, f"{stderr}\n{_said(end)}", partial=self.text, ended=ended)
        yield self._turn.finished({**end, "stopReason": end.get("stopReason") or "end_turn"})

    def _line(self, line: bytes) -> Delta | None:
        data = _data(line)
        kind = data.pop("type", None)
        if kind == "sessionUpdate" and isinstance(data.get("update"), Mapping):
            return self._turn.update(data["update"])
        if kind == "metadata":
            self._turn.metadata(data)
        if kind == "runFinished":
            self._end = data
        return None


def _data(line: bytes) -> dict[str, Any]:
    """The `data` of a line and its type; empty for the log lines that some versions print."""
    try:
        value = json.loads(line) if line.lstrip().startswith(b"{") else None
    except ValueError:
        return {}
    if not isinstance(value, dict):
        return {}
    data = value.get("data")
    return {**(data if isinstance(data, dict) else {}), "type": value.get("type")}


def _failed(end: Mapping[str, Any]) -> bool:
    # The values of `status` are not documented; these words say that it went wrong in any case.
    status = str(end.get("status") or "").lower()
    return bool(end.get("error")) or any(word in status for word in ("fail", "error", "cancel", "abort"))


def _said(end: Mapping[str, Any] | None) -> str:
    return "\n".join(str(value) for value in (end or {}).values() if isinstance(value, (str, Mapping)))
