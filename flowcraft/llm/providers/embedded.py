"""The embedded model: a small real one in a child process, asked through the ordinary `openai` provider.

It proves that everything is wired, not what a model can do. The child has one slot, so requests take
turns on our side: waiting for the turn counts for the total limit only. A dead child is replaced at the
next request; a fork of this process starts its own.
"""

import contextlib
import importlib.util
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from flowcraft.core.errors import DeadlineError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, refuse_images
from flowcraft.llm.local import llama, weights
from flowcraft.llm.providers.openai import OpenAIProvider

CONTEXT = 4096
MAX_TOKENS = 512
TURN_S = 0.05  # between two tries to get the turn
# The template of the shipped model has no tools, and llama.cpp ignores them without a word.
REFUSED = ("tools", "tool_choice", "functions", "function_call")


class EmbeddedProvider(BaseLLMProvider):
    """A GGUF model in a process of its own; `path` in the options names another file than the shipped one."""

    provider_name: ClassVar[str] = "embedded"
    json_schema: ClassVar[bool] = True
    own_max_tokens: ClassVar[int | None] = MAX_TOKENS

    def __init__(self, config: ModelSettings | None = None) -> None:
        super().__init__(config)
        self._running: tuple[llama.Llama, OpenAIProvider] | None
        self._forget()

    def missing(self) -> str | None:
        """What has to be done before it can answer, None if nothing."""
        if importlib.util.find_spec("xllamacpp") is None:
            return llama.INSTALL
        return None

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """Answer in turn, starting the child if there is none."""
        refused = [name for name in REFUSED if request.params.get(name)]
        if refused:
            raise UsageError(f"the embedded model cannot use '{refused[0]}'", hint="choose another model for this")
        refuse_images(request.messages, self.config.name)
        if self._pid != os.getpid():
            self._forget()
        with self._turn(request.scope):
            server, wire = self._ready(request.scope)
            try:
                # Always as a stream: only then is the beginning of an answer that the caller has
                # given (a last message of the assistant) not repeated in the content.
                yield from wire.deltas(replace(request, params=_bounded(request, self.config), stream=True))
            except TransportError as error:
                dead = server.why_dead()
                if dead is None:
                    raise
                dead.partial_text = error.partial_text
                raise dead from error

    def close(self) -> None:
        """End the child; the next request starts another one."""
        if self._pid != os.getpid():
            self._forget()
        with self._swap:
            running, self._running = self._running, None
        if running:
            server, wire = running
            wire.close()
            server.child.stop()

    def _forget(self) -> None:
        """Begin anew; after a fork, because the child is the parent's and its threads hold the old locks."""
        self._pid = os.getpid()
        self._slot = threading.Lock()
        self._swap = threading.Lock()  # guards the next one
        self._running = None

    @contextlib.contextmanager
    def _turn(self, scope: Scope) -> Iterator[None]:
        slot = self._slot
        while not slot.acquire(timeout=TURN_S):
            scope.check()
            if scope.expired:
                raise DeadlineError(
                    "the embedded model was busy with other requests until the time limit",
                    provider=self.provider_name,
                    model=self.config.model,
                    sent=False,
                    hint="it answers one request at a time: raise llm.timeouts.total or ask less at once",
                )
        try:
            yield
        finally:
            slot.release()

    def _ready(self, scope: Scope) -> tuple[llama.Llama, OpenAIProvider]:
        """The running child, or a new one; called by the thread whose turn it is."""
        with self._swap:
            running = self._running
        if running and running[0].alive:
            return running
        self.close()
        path = weights.named_by_user(self.config.options.get("path")) or weights.pull(scope=scope)
        server = llama.start(path, context=self.config.context or CONTEXT, scope=scope)
        started = server, _Wire(self.config, server, path)
        with self._swap:
            self._running = started
        return started


class _Wire(OpenAIProvider):
    """The openai provider, pointed at the child. Its server closes streamed connections without saying so."""

    provider_name: ClassVar[str] = "embedded"

    def __init__(self, config: ModelSettings, server: llama.Llama, path: Path) -> None:
        model = config.model or path.stem
        super().__init__(
            replace(config, model=model, base_url=f"{server.url}/v1", api_key_env=None),
            api_key=server.key,
            keep_alive=False,
            direct=True,
        )


def _bounded(request: ChatRequest, config: ModelSettings) -> dict[str, object]:
    params = dict(request.params)
    if not params.keys() & {"max_tokens", "max_completion_tokens"}:
        params["max_tokens"] = config.max_tokens or MAX_TOKENS
    return params
