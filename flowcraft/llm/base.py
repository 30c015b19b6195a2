"""The words of a model call: message, request, delta, usage, response, and what a provider is.

A provider knows one protocol and nothing of retries, cache, budget or routing. It may speak at
either of two levels: simple ones define `chat_completion` or `stream_completion`; those that know
the wire define `deltas`, which sees the whole request with its time limit. Each is derived from the others.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from types import TracebackType
from typing import Any, ClassVar, NamedTuple

from flowcraft.core.errors import IncompleteStream, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.parts import ImagePart, Part, checked, images_in, parts_of, shown
from flowcraft.llm.pieces import Pieces

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class LLMMessage:
    """One message of a conversation; `role` is system, developer, user, assistant or tool.

    `content` is text, or a sequence of parts: texts and images, as OpenAI's chat completions write them or as
    `flowcraft.llm.parts` has them. A user's are kept as a tuple of the latter; nobody else shows images, and the texts
    of others become one, a line each. Raises UsageError.
    """

    role: str
    content: str | Sequence[Part | Mapping[str, Any]]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise UsageError(f"unknown role {self.role!r}", hint=f"use one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            object.__setattr__(self, "content", checked(self.role, self.content))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content as parts."""
        return parts_of(self.content)

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The images of the message."""
        return () if isinstance(self.content, str) else images_in(self.parts)

    @property
    def text(self) -> str:
        """The content as text, with a line for each image."""
        return self.content if isinstance(self.content, str) else shown(self.content)

    def followed_by(self, text: str) -> "LLMMessage":
        """The same message with `text` at its end, after an empty line."""
        if isinstance(self.content, str):
            return LLMMessage(self.role, f"{self.content.rstrip()}\n\n{text}")
        return LLMMessage(self.role, (*self.content, {"type": "text", "text": f"\n\n{text}"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one call as the service reported them; None is unknown, never 0.

    Names follow the OpenAI chat-completions `usage` object. `cached_tokens` are part of
    `prompt_tokens` (they come from the service's cache), and so are `cache_creation_tokens` (they go into it);
    `reasoning_tokens` are part of `completion_tokens`. `credits` is what agents bill in.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_creation_tokens: int | None = None
    reasoning_tokens: int | None = None
    credits: Decimal | None = None


class Delta(NamedTuple):
    """One piece of an answer as it arrives; `finish_reason` makes the answer complete.

    `cost` is in US dollars, where whoever answers says what it takes for the answer.

    A named tuple, because a stream makes one per event and a frozen dataclass takes three times as long.
    """

    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    request_id: str | None = None
    cost: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMResponse:
    """A whole answer.

    `model` is the one that the service says has answered. `reasoning` is thinking text, kept out of
    `content`. `cost` is in US dollars, None where the price or the usage is unknown. `finish_reason`
    is `stop`, `length` (cut off at `max_tokens`) or `content_filter`.
    """

    content: str
    model: str = ""
    provider: str = ""
    finish_reason: str = "stop"
    usage: Usage | None = None
    cost: Decimal | None = None
    reasoning: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One request to a model: what is asked, whether to stream, and the limits it runs under.

    `params` are OpenAI chat-completions parameters (`temperature`, `max_tokens`, `response_format` ...).
    """

    messages: tuple[LLMMessage, ...]
    params: Mapping[str, Any] = field(default_factory=dict)
    stream: bool = False
    scope: Scope = field(default_factory=Scope)


class Answer:
    """Deltas put together; `response` refuses an answer that never finished.

    `started` says whether any text, answer or reasoning, has arrived.
    """

    def __init__(self, provider: str, model: str) -> None:
        self.started = False
        self._provider = provider
        self._model = model
        self._content = Pieces()
        self._reasoning = Pieces()
        self._finish_reason: str | None = None
        self._usage: Usage | None = None
        self._request_id: str | None = None
        self._cost: Decimal | None = None

    def add(self, delta: Delta) -> None:
        """Take in the next piece."""
        if delta.content:
            self._content.add(delta.content)
            self.started = True
        if delta.reasoning:
            self._reasoning.add(delta.reasoning)
            self.started = True
        self._finish_reason = delta.finish_reason or self._finish_reason
        self._usage = delta.usage or self._usage
        self._model = delta.model or self._model
        self._request_id = delta.request_id or self._request_id
        if delta.cost is not None:
            self._cost = delta.cost

    @property
    def text(self) -> str:
        """What has arrived of the answer's text."""
        return self._content.text

    @property
    def usage(self) -> Usage | None:
        """What has been said of its tokens."""
        return self._usage

    def response(self, cost: Decimal | None = None) -> LLMResponse:
        """The whole answer; raises IncompleteStream if no finish_reason has come.

        `cost` is what it is worth by a list of prices, used where the answer itself does not say it.
        """
        if self._finish_reason is None:
            raise IncompleteStream(
                "the answer ended before it was finished (no finish_reason)",
                provider=self._provider,
                model=self._model,
                request_id=self._request_id,
                retryable=not self.started,
                partial_text=self.text,
                hint="ask again; if it happens often, raise llm.timeouts or look at the service's status",
            )
        return LLMResponse(
            content=self.text,
            model=self._model,
            provider=self._provider,
            finish_reason=self._finish_reason,
            usage=self._usage,
            cost=cost if self._cost is None else self._cost,
            reasoning=self._reasoning.text,
            request_id=self._request_id,
        )


Deltas = Generator[Delta, None, LLMResponse]
"""Pieces of an answer; what the generator returns at its end is the whole answer."""


def answered(deltas: Iterator[Delta], answer: Answer) -> Deltas:
    """Pass `deltas` on and return the whole answer; raises IncompleteStream if it never finished."""
    for delta in deltas:
        answer.add(delta)
        yield delta
    return answer.response()


class CompletionStream(Iterator[str]):
    """The pieces of an answer as they arrive, then `response`, the whole of it; also a context manager.

    Leaving it early, by `close()` or the end of a `with` block, ends the request and its connection; asked for more,
    it then raises Cancelled.
    """

    def __init__(self, deltas: Deltas, scope: Scope) -> None:
        self._deltas = deltas
        self._scope = scope
        self._response: LLMResponse | None = None

    def __next__(self) -> str:
        while True:
            try:
                delta = next(self._deltas)
            except StopIteration as end:
                # A generator that is asked again after its end has no value.
                self._response = self._response or end.value
                if self._response is None:
                    self._scope.check()  # another thread may have closed it: this is not the end of the answer
                raise StopIteration from None
            if delta.content:
                return delta.content

    @property
    def response(self) -> LLMResponse:
        """The whole answer; only there when the last piece has been taken."""
        if self._response is None:
            raise UsageError("the stream is not finished", hint="take all its pieces before you ask for .response")
        return self._response

    def close(self) -> None:
        """End the request; safe to call again and from another thread."""
        self._scope.cancel()
        self._scope.close()  # a generator that was never asked for anything does nothing at its end
        with suppress(ValueError):  # another thread is inside the generator: the cancelled scope ends it there
            self._deltas.close()

    def __del__(self) -> None:
        self._scope.close()

    def __enter__(self) -> "CompletionStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BaseLLMProvider:
    """One protocol to one kind of model. Subclass it, name it, define one of the three methods.

    `provider_name` is how settings call it. `acts` says that it may do more than answer (an agent that can change
    files): its answers are never used again in another run. `json_schema` says that the service itself can hold an
    answer to a schema (`response_format: {type: json_schema}`). Without `at_list_price` (a login, a plan) what a call
    costs is unknown unless the settings give prices. `takes_images` says that it knows what to do with a message that
    is more than text; without it such a request is refused before it is asked. `own_max_tokens` is the limit of an
    answer that it asks for where nobody else sets one, None if it sets none. Providers are shared by threads.
    """

    provider_name: ClassVar[str] = ""
    at_list_price: bool = True
    acts: ClassVar[bool] = False
    json_schema: ClassVar[bool] = False
    takes_images: ClassVar[bool] = False
    own_max_tokens: ClassVar[int | None] = None

    def __init__(self, config: ModelSettings | None = None) -> None:
        self.config = config or ModelSettings(name=self.provider_name, provider=self.provider_name, model="")

    def chat_completion(self, messages: Sequence[LLMMessage], **params: Any) -> LLMResponse:
        """Ask and wait for the whole answer; `params` are OpenAI chat-completions parameters.

        `timeout` among them is the total time in seconds. Raises ProviderError.
        """
        request = self._request(messages, params, stream=False)
        answer = Answer(self.provider_name, self.config.model)
        for delta in self.deltas(request):
            answer.add(delta)
        return answer.response()

    def stream_completion(self, messages: Sequence[LLMMessage], **params: Any) -> Iterator[str]:
        """Ask and get the pieces of the answer as they arrive (a `CompletionStream`)."""
        request = self._request(messages, params, stream=True)
        answer = Answer(self.provider_name, self.config.model)
        return CompletionStream(answered(self.deltas(request), answer), request.scope)

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """Answer `request` piece by piece; what FlowCraft itself calls.

        The last content-bearing delta may carry the `finish_reason`; without one the answer counts as cut.
        A request that is not streamed may come as a single delta. Must end soon after
        `request.scope` is cancelled or its time is over.
        """
        own = type(self)
        if own.stream_completion is not BaseLLMProvider.stream_completion and (
            request.stream or own.chat_completion is BaseLLMProvider.chat_completion
        ):
            return _from_pieces(self.stream_completion(request.messages, **request.params))
        if own.chat_completion is not BaseLLMProvider.chat_completion:
            return _from_response(self.chat_completion, request)
        raise TypeError(f"{own.__name__} must define chat_completion, stream_completion or deltas")

    def missing(self) -> str | None:
        """What this provider lacks to answer at all (a package, a key, a login), or None; cheap and offline."""
        return None

    def close(self) -> None:
        """Give back connections and child processes; the provider may be used again afterwards."""

    def _request(self, messages: Sequence[LLMMessage], params: Mapping[str, Any], *, stream: bool) -> ChatRequest:
        params = dict(params)
        timeout_s = params.pop("timeout", None)
        scope = Scope(self.config.timeouts.total if timeout_s is None else checked_timeout_s(timeout_s))
        return ChatRequest(messages=checked_messages(messages), params=params, stream=stream, scope=scope)


def checked_messages(messages: Sequence[LLMMessage]) -> tuple[LLMMessage, ...]:
    """The messages as a tuple; raises UsageError for anything else than a list of LLMMessage."""
    if isinstance(messages, (str, bytes, LLMMessage)) or not isinstance(messages, (list, tuple, Sequence)):
        raise UsageError("messages must be a list", hint='pass [LLMMessage(role="user", content="...")]')
    for message in messages:
        if not isinstance(message, LLMMessage):
            raise UsageError(
                f"a message must be an LLMMessage, not {type(message).__name__}",
                hint='LLMMessage(role="user", content="...")',
            )
    if not messages:
        raise UsageError("there are no messages", hint="pass at least one LLMMessage")
    return tuple(messages)


def checked_timeout_s(timeout_s: float) -> float:
    """The total time for a call in seconds; raises UsageError unless it is a number above 0."""
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not timeout_s > 0:
        raise UsageError(
            f"timeout is {timeout_s!r}, a number above 0 is wanted", hint="give seconds, such as timeout=30"
        )
    return timeout_s


def takes_images(model: ModelSettings, provider: BaseLLMProvider) -> bool:
    """Whether images can be sent to `model` by `provider`, as far as that is known."""
    return model.vision is not False and provider.takes_images


def refuse_images(messages: Sequence[LLMMessage], model: str) -> None:
    """Raise UsageError if there is an image, which `model` does not take."""
    for message in messages:
        for image in message.images:
            raise UsageError(
                f"'{model}' takes no images, and it is shown {image.called}",
                hint="name a model that does (of your own models say so: llm: {models: {NAME: {vision: true}}})",
            )


def _from_response(chat: Callable[..., LLMResponse], request: ChatRequest) -> Iterator[Delta]:
    response = chat(request.messages, **request.params)
    if not isinstance(response, LLMResponse):
        raise TypeError(f"chat_completion returned {type(response).__name__}, LLMResponse is wanted")
    yield Delta(
        content=response.content,
        reasoning=response.reasoning,
        finish_reason=response.finish_reason or "stop",
        usage=response.usage,
        model=response.model or None,
        request_id=response.request_id,
        cost=response.cost,
    )


def _from_pieces(pieces: Iterator[str]) -> Iterator[Delta]:
    for piece in pieces:
        if not isinstance(piece, str):
            raise TypeError(f"stream_completion yielded {type(piece).__name__}, str is wanted")
        yield Delta(content=piece)
    response = getattr(pieces, "response", None)
    if isinstance(response, LLMResponse):
        yield Delta(
            finish_reason=response.finish_reason,
            usage=response.usage,
            model=response.model or None,
            request_id=response.request_id,
            cost=response.cost,
        )
    else:  # a plain iterator of str that ended without an error is a whole answer
        yield Delta(finish_reason="stop")
