"""Asking an agent in tests: providers for the stand-ins of this folder, and what is left of processes."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, LLMMessage, LLMResponse
from flowcraft.llm.providers.acp import AcpProvider
from flowcraft.llm.providers.command import CommandProvider

HERE = Path(__file__).parent
ACP_STUB, KIRO_STUB = HERE / "acp_stub.py", HERE / "kiro_stub.py"
PATIENCE_S = 60.0


def acp(behaviour: str = "hello", *, first_event_s: float = 10, idle_s: float = 10, **config: Any) -> AcpProvider:
    """A provider for acp_stub.py; `log`, `model`, and options by their names."""
    log = config.pop("log", None)
    command = [sys.executable, "-S", str(ACP_STUB), behaviour, *(["--log", str(log)] if log else [])]
    model = config.pop("model", "")
    return AcpProvider(
        ModelSettings(
            name="agent",
            provider="acp",
            model=model,
            timeouts=Timeouts(first_event=first_event_s, idle=idle_s),
            options={"command": command, **config},
        )
    )


def acp_of(command: list[str] | None = None, *, model: str = "", **options: Any) -> AcpProvider:
    """A provider for a real agent, by its command line or by `agent`."""
    if command:
        options["command"] = command
    return AcpProvider(ModelSettings(name="real", provider="acp", model=model, options=options))


def command_of(model: dict[str, Any]) -> CommandProvider:
    """A provider for a model as it stands in a settings file."""
    options = {key: value for key, value in model.items() if key not in ("provider", "model")}
    return CommandProvider(
        ModelSettings(name="real", provider="command", model=model.get("model", ""), options=options)
    )


def documented_settings() -> list[str]:
    """The YAML examples of docs/agents.md."""
    text = (HERE.parent.parent / "docs" / "agents.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def documented_models() -> dict[str, Any]:
    """All models in these examples, by name."""
    found: dict[str, Any] = {}
    for text in documented_settings():
        found |= yaml.safe_load(text)["llm"].get("models", {})
    return found


def request(text: str = "hi", scope: Scope | None = None) -> ChatRequest:
    return ChatRequest(messages=(LLMMessage("user", text),), stream=True, scope=scope or Scope(PATIENCE_S))


def ask(provider: BaseLLMProvider, text: str = "hi") -> LLMResponse:
    """One answer; the provider stays open."""
    return provider.chat_completion([LLMMessage("user", text)], timeout=PATIENCE_S)


@contextmanager
def closing(provider: BaseLLMProvider) -> Iterator[BaseLLMProvider]:
    try:
        yield provider
    finally:
        provider.close()


def children() -> set[int]:
    """The processes below this one, zombies too."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that somebody else has to reap counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(true: Callable[[], bool]) -> bool:
    """Whether it becomes true; for what other processes do in their own time."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.01)
    return False


class Asking(threading.Thread):
    """A question in another thread; `pieces` come in, `error` is how it ended if not well."""

    def __init__(self, provider: BaseLLMProvider, text: str = "hi", scope: Scope | None = None) -> None:
        super().__init__(daemon=True)
        self.scope = scope or Scope(PATIENCE_S)
        self.pieces: list[Delta] = []
        self.error: BaseException | None = None
        self.ended_at = 0.0
        self._first = threading.Event()
        self._provider, self._text = provider, text
        self.start()

    def run(self) -> None:
        try:
            for delta in self._provider.deltas(request(self._text, self.scope)):
                self.pieces.append(delta)
                self._first.set()
        except BaseException as error:
            self.error = error
        finally:
            self.ended_at = time.monotonic()
            self._first.set()

    def first(self) -> "Asking":
        """Wait for the first piece."""
        assert self._first.wait(PATIENCE_S), "nothing came"
        return self

    def end(self) -> "Asking":
        self.join(PATIENCE_S)
        assert not self.is_alive(), "it hangs"
        return self
