"""A provider that plays a script, and gates that hold a call until the test lets it go.

A test says what the model answers and then looks at what it was asked:

    model = ScriptedProvider("first answer", RateLimitError("slow down", retryable=True), ["two ", "pieces"])
    factory.register_provider("scripted", model.as_class())
    ...
    assert model.requests[0].messages[-1].content == "..."

A reply is a str, a Reply, a list of pieces (str, Delta, Gate or an exception, in order), an exception,
a Gate (waits, then answers ""), or a function from the request to any of these.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowcraft.core.scope import Scope
from flowcraft.core.values import LLMSettings, ModelSettings, Prices, Settings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, Usage
from flowcraft.llm.integration import LLMIntegration

USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)
PATIENCE_S = 20.0  # a gate that nobody opens fails the test, it does not hang it


class Gate:
    """A place where a worker stops: the test waits for `reached`, then calls `open`."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def reached(self) -> None:
        """Block the test until a worker stands at the gate."""
        assert self._reached.wait(PATIENCE_S), "nobody came to the gate"

    @property
    def visited(self) -> bool:
        return self._reached.is_set()

    def open(self) -> None:
        self._open.set()

    def wait(self, scope: Scope | None = None) -> None:
        """Stand here until the gate opens; raises Cancelled as soon as the scope is cancelled."""
        self._reached.set()
        take_back = scope.on_cancel(self._open.set) if scope else None
        try:
            assert self._open.wait(PATIENCE_S), "nobody opened the gate"
        finally:
            if take_back:
                take_back()
        if scope:
            scope.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer with its details."""

    content: str = ""
    finish_reason: str | None = "stop"
    usage: Usage | None = USAGE
    model: str | None = None
    reasoning: str = ""


Piece = str | Delta | BaseException | Gate
Scripted = str | Reply | BaseException | Gate | Sequence[Piece] | Callable[[ChatRequest], Any]


class ScriptedProvider(BaseLLMProvider):
    """Answers with the given replies, one per request, then with `otherwise`; keeps every request.

    `otherwise` is a reply for all further requests (a function, where the answer depends on what is
    asked); without it a request too many fails the test. One instance serves any number of threads.
    """

    provider_name = "scripted"

    def __init__(self, *replies: Scripted, otherwise: Scripted | None = None, json_schema: bool = False) -> None:
        super().__init__()
        self.json_schema = json_schema  # type: ignore[misc]  # a class variable for real providers
        self.requests: list[ChatRequest] = []
        self.models: list[str] = []
        self.closed = 0
        self._replies = deque(replies)
        self._otherwise = otherwise
        self._lock = threading.Lock()

    def enqueue(self, *replies: Scripted) -> None:
        """More replies, after those that are left."""
        with self._lock:
            self._replies.extend(replies)

    @property
    def last(self) -> ChatRequest:
        return self.requests[-1]

    def prompts(self) -> list[str]:
        """The last message of every request, in the order they came."""
        return [request.messages[-1].content for request in self.requests]

    def as_class(self, name: str | None = None) -> type[BaseLLMProvider]:
        """A provider class for the factory; all its instances play this one script."""
        script = self

        class Bound(BaseLLMProvider):
            provider_name = name or script.provider_name
            json_schema = script.json_schema

            def deltas(self, request: ChatRequest) -> Iterator[Delta]:
                return script.play(request, self.config)

            def close(self) -> None:
                script.closed += 1

        return Bound

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        return self.play(request, self.config)

    def play(self, request: ChatRequest, config: ModelSettings) -> Iterator[Delta]:
        """Answer one request, whichever instance it came through."""
        with self._lock:
            self.requests.append(request)
            self.models.append(config.model)
            reply = self._replies.popleft() if self._replies else self._otherwise
        assert reply is not None, f"the script has no reply for request {len(self.requests)}: {request.messages[-1]}"
        return _performed(reply, request)

    def close(self) -> None:
        self.closed += 1


def settings_of(*models: ModelSettings, expensive_stages: Sequence[str] = ("expensive_*",), **more: Any) -> Settings:
    """Settings whose first model is the cheap one and whose last is the expensive one."""
    names = [model.name for model in models]
    return Settings(
        llm=LLMSettings(
            cheap_models=(names[0],),
            expensive_models=(names[-1],),
            expensive_stages=tuple(expensive_stages),
            qwen_oauth_path=Path("no-such-file"),
            models={model.name: model for model in models},
            **more,
        )
    )


def llm_of(
    cheap: BaseLLMProvider,
    expensive: BaseLLMProvider | None = None,
    prices: Prices | None = None,
    *,
    max_tokens: int | None = None,
    **settings: Any,
) -> LLMIntegration:
    """An integration that knows the models `small` (cheap) and `large` (expensive; without one, `small` again).

    Settings as for `settings_of`; no wait between retries.
    """
    providers = {"small": cheap, "large": expensive or cheap}
    models = [
        ModelSettings(name=name, provider=name, model=f"{name}-1", prices=prices, max_tokens=max_tokens)
        for name in providers
    ]
    return LLMIntegration(settings_of(*models, **settings), providers=providers, jitter=lambda: 0.0)


def _performed(reply: Any, request: ChatRequest) -> Iterator[Delta]:
    if callable(reply) and not isinstance(reply, Gate):
        reply = reply(request)
    if isinstance(reply, Reply):
        yield Delta(reasoning=reply.reasoning, content=reply.content, model=reply.model)
        yield Delta(finish_reason=reply.finish_reason, usage=reply.usage)
        return
    pieces = [reply] if isinstance(reply, (str, BaseException, Gate, Delta)) else list(reply)
    finished = False
    for piece in pieces:
        if isinstance(piece, BaseException):
            raise piece
        if isinstance(piece, Gate):
            piece.wait(request.scope)
        elif isinstance(piece, Delta):
            finished = finished or piece.finish_reason is not None
            yield piece
        else:
            yield Delta(content=piece)
    if not finished:
        yield Delta(finish_reason="stop", usage=USAGE)
