"""Provider `kiro-cli`: Kiro's own command line, usable as it is installed, with no setting at all.

Transports in order: its ACP mode, `chat` with structured lines where it offers them, plain `chat`. Options:
`transport` (auto, acp, stream-json, plain), `command`, `agent` (a custom agent of Kiro), `effort`, `cwd`, `env`,
`permission`, `reads`, `writes`.
"""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from flowcraft.core.errors import AuthError, DeadlineError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.agents.acp.agent import Agent
from flowcraft.llm.agents.acp.link import Launch
from flowcraft.llm.agents.acp.options import command, folder, model_of, policy, start, variables
from flowcraft.llm.agents.acp.pool import Agents
from flowcraft.llm.agents.failures import kind_of, without_secrets
from flowcraft.llm.agents.kiro.chat import PlainReader, StructuredReader, answers, chat_command, choices
from flowcraft.llm.agents.kiro.probe import NAME, Kiro, check, credential_missing, find
from flowcraft.llm.agents.oneshot import OneShot
from flowcraft.llm.agents.presets import PRESETS, EmptyFolder
from flowcraft.llm.agents.prompt import prompt_parts, prompt_text
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta

log = logging.getLogger(__name__)

TRANSPORTS = AUTO, ACP, STRUCTURED, PLAIN = "auto", "acp", "stream-json", "plain"
_PRESET = PRESETS["kiro"]


class _Choices(TypedDict):
    """What settings choose for the command line."""

    model: str | None
    agent: str | None
    effort: str | None


class _NoAcp(Exception):
    """This version does not start its ACP mode; nothing was asked yet."""

    def __init__(self, reason: TransportError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class KiroProvider(BaseLLMProvider):
    """Asks Kiro as a plain model: in an empty folder, with no tool allowed.

    It is checked once that the program is there, is the right one and somebody is logged in; a failed
    login is checked again with the next call.
    """

    provider_name = NAME
    acts = True
    takes_images = True  # by its ACP mode only

    def __init__(self, config: ModelSettings | None = None) -> None:
        super().__init__(config)
        self._agents = Agents(self._start)
        self._lock = threading.Lock()
        self._checked: dict[tuple[str, int], Kiro] = {}  # by path and time of change: it updates itself
        self._without_acp: set[Kiro] = set()

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        try:
            with without_secrets(self._env()):
                yield from self._asked(self._kiro(request.scope), request)
        except AuthError:
            with self._lock:
                self._checked.clear()
            raise

    def missing(self) -> str | None:
        env = self._env()
        if find(env, self._program()) is None:
            return f"the program '{NAME}' ({_PRESET.install})"
        missing = credential_missing(env)
        return f"a login ({missing}: {_PRESET.login})" if missing else None

    def close(self) -> None:
        self._agents.close()

    @property
    def _transport(self) -> str:
        wanted = str(self.config.options.get("transport") or AUTO)
        if wanted not in TRANSPORTS:
            raise UsageError(
                f"model '{self.config.name}': there is no transport '{wanted}'", hint=f"use {', '.join(TRANSPORTS)}"
            )
        return wanted

    def _program(self) -> str | None:
        """The path in `command`, if there is one; its arguments are ours."""
        if not self.config.options.get("command"):
            return None
        program, *more = command(self.config)
        if more:
            raise UsageError(
                f"model '{self.config.name}': `command` is only the path of {NAME} here",
                hint="use the provider `acp` to choose the arguments, too",
            )
        return program

    def _env(self) -> dict[str, str]:
        env = variables(self.config, _PRESET.variables)
        key = env.get(self.config.api_key_env or "")
        return {**env, "KIRO_API_KEY": key} if key else env

    def _choices(self) -> "_Choices":
        model, required = model_of(self.config)
        options = self.config.options
        return {"model": model if required else None, "agent": options.get("agent"), "effort": options.get("effort")}

    def _kiro(self, scope: Scope) -> Kiro:
        """The program, found and checked; raises ProviderError."""
        env = self._env()
        path = find(env, self._program())
        if path is None:
            given = self._program()
            raise TransportError(
                f"the program '{given or NAME}' was not found or may not be executed", sent=False, hint=_PRESET.install
            )
        key = (path, os.stat(path).st_mtime_ns)
        with self._checking(scope):
            if key not in self._checked:
                self._checked[key] = _checked(path, env, scope)
            return self._checked[key]

    @contextmanager
    def _checking(self, scope: Scope) -> Iterator[None]:
        """One thread checks, the others wait for it, but not beyond their own limits."""
        while not self._lock.acquire(timeout=0.05):
            scope.check()
            if scope.expired:
                raise DeadlineError(f"{NAME} was not ready within the time limit", sent=False, hint="ask again")
        try:
            yield
        finally:
            self._lock.release()

    def _asked(self, kiro: Kiro, request: ChatRequest) -> Iterator[Delta]:
        wanted = self._transport
        if wanted == ACP or (wanted == AUTO and kiro not in self._without_acp):
            try:
                yield from self._ask_agent(request)
                return
            except _NoAcp as error:
                if wanted == ACP:
                    raise error.reason from error
                log.info("%s, so its chat command is used", error.reason)
                self._without_acp.add(kiro)
        structured = wanted == STRUCTURED or (wanted != PLAIN and "--output-format" in kiro.flags)
        text = prompt_text(request.messages, f"{NAME} chat")
        yield from self._ask_chat(kiro, text, request.scope, structured=structured)

    def _ask_agent(self, request: ChatRequest) -> Iterator[Delta]:
        model, required = model_of(self.config)
        offered = None if required else model  # a required one stands on the command line
        prompt = prompt_parts(request.messages)
        with self._agents.lent(request.scope) as agent:
            yield from agent.answer(prompt, request.scope, model=offered, required=False)

    def _start(self, scope: Scope) -> Agent:
        kiro = self._kiro(scope)
        engine = ("--agent-engine", "v2") if "--agent-engine" in kiro.flags else ()
        launch = Launch(
            name=NAME,
            argv=(kiro.path, "acp", *engine, *choices(kiro, **self._choices())),
            env=self._env(),
            cwd=folder(self.config),
            policy=policy(self.config),
            authenticates=_PRESET.authenticates,
            evict=_PRESET.evict,
            login=_PRESET.login,
            start_s=self.config.timeouts.first_event,
            idle_s=self.config.timeouts.idle,
        )
        try:
            return start(launch, scope, _PRESET.install)
        except TransportError as error:
            if kind_of(error.message):
                raise
            raise _NoAcp(error) from error

    def _ask_chat(self, kiro: Kiro, text: str, scope: Scope, *, structured: bool) -> Iterator[Delta]:
        argv = chat_command(kiro, structured=structured, **self._choices())
        empty = EmptyFolder()
        try:
            with OneShot(
                NAME,
                argv,
                scope=scope,
                limits=self.config.timeouts,
                env=self._env(),
                cwd=folder(self.config) or empty.path,
                stdin=text.encode("utf-8", "replace"),
            ) as program:
                yield from answers(program, StructuredReader() if structured else PlainReader())
        finally:
            empty.close()


def _checked(path: str, env: dict[str, str], scope: Scope) -> Kiro:
    empty = EmptyFolder()
    try:
        return check(path, env, empty.path, scope)
    finally:
        empty.close()
