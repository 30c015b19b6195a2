"""The chat-completions format of OpenAI and its many speakers: request out, answer in; no I/O.

Takes what is well meant (content as a list of parts, null for empty, reasoning under two names) and
refuses what would be mistaken for an answer.
"""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from flowcraft.core.errors import IncompleteStream, ProviderError, ReplyError, TransportError, UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest, Delta, LLMMessage, Usage, refuse_images
from flowcraft.llm.parts import ImagePart, TextPart
from flowcraft.llm.pieces import Pieces
from flowcraft.llm.wire.status import ASK_AGAIN, quoted

MAX_ANSWER_CHARS = 16 * 1024 * 1024
_MOST_TOKENS = 10**15  # more is nonsense, and more than a database takes
_OURS = ("messages", "model", "stream")
_UNKNOWN = Usage()
# What services call an end that is none: OpenRouter, vLLM, DeepSeek.
_BROKEN_OFF = ("error", "abort", "aborted", "insufficient_system_resource")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode


WriteImage = Callable[[ImagePart], dict[str, Any]]
Shape = Callable[[dict[str, Any]], None]
"""Changes the body of a request to what one service expects beyond the usual format."""


def encoded(request: ChatRequest, config: ModelSettings, shape: Shape | None = None) -> bytes:
    """The request as the body of a POST; parameters of the request win over those of the settings."""
    check(request, config)
    messages = [{"role": message.role, "content": content(message, config, _image)} for message in request.messages]
    body: dict[str, Any] = {"model": config.model, "messages": messages, **config.params}
    if config.max_tokens is not None and "max_completion_tokens" not in (body.keys() | request.params.keys()):
        body.setdefault("max_tokens", config.max_tokens)
    body.update(request.params)
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if shape is not None:
        shape(body)
    return as_json(body)


def _image(part: ImagePart) -> dict[str, Any]:
    detail = {"detail": part.detail} if part.detail else {}
    return {"type": "image_url", "image_url": {"url": part.address, **detail}}


def check(request: ChatRequest, config: ModelSettings) -> None:
    """Raise UsageError if there is no model, or a parameter that follows from the call itself."""
    for name in _OURS:
        if name in request.params:
            raise UsageError(f"'{name}' cannot be given as a parameter", hint="it follows from the call itself")
    if not config.model:
        raise UsageError("no model is named for the service", hint="set llm.models.NAME.model, e.g. gpt-4o-mini")


def content(message: LLMMessage, config: ModelSettings, image: WriteImage) -> str | list[dict[str, Any]]:
    """The content of a message as services take it; `image` writes its images.

    Raises UsageError if there are any and the model takes none.
    """
    if isinstance(message.content, str):
        return message.content
    if config.vision is False:
        refuse_images([message], config.name)
    return [part.record if isinstance(part, TextPart) else image(part) for part in message.parts]


def as_json(body: Mapping[str, Any]) -> bytes:
    """The body of a request; what is None is left out. Raises UsageError for what JSON cannot say."""
    try:
        return _encode({name: value for name, value in body.items() if value is not None}).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"the parameters cannot be sent as JSON: {quoted(str(error))}") from error


def decoded(text: str) -> Any:
    """The JSON value that is all of `text`; raises ValueError for everything else, NaN included."""
    text = text.strip()
    try:
        value, end = _decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if end != len(text):
        raise ValueError("there is more than one value")
    return value


class Reading:
    """One answer as it is read: what has come of it, and the deltas that its parts make."""

    def __init__(self) -> None:
        self.started = False  # some text, answer or reasoning, is there
        self.finished = False
        self.request_id: str | None = None
        self.secrets: Collection[str] = ()  # of the request, which the service may repeat
        self._model: str | None = None
        self._text = Pieces()
        self._refusal = ""
        self._size = 0
        self._content = _Mender()
        self._reasoning = _Mender()

    @property
    def text(self) -> str:
        """What has come of the answer's text."""
        return self._text.text

    def knows(self, payload: Mapping[str, Any]) -> bool:
        """Whether this is a part of an answer; if not, it may be an error."""
        return "choices" in payload and "error" not in payload

    def ends(self, payload: Any) -> bool:
        """Whether a JSON value is an event that finishes the answer."""
        return isinstance(payload, dict) and bool(_first_choice(payload).get("finish_reason"))

    def delta(self, payload: Mapping[str, Any], name: str = "delta") -> Delta | None:
        """The delta in one event of a stream; None if there is nothing in it."""
        usage = _usage(payload["usage"]) if payload.get("usage") else None
        if self.finished:  # the answer is complete; what is still of interest is its price
            return Delta(usage=usage) if usage else None
        try:
            choice = payload["choices"][0]  # as nearly all events have it
            if choice["index"]:
                choice = _first_choice(payload)
        except (LookupError, TypeError):
            choice = _first_choice(payload)
        part = choice.get(name)
        content: Any = part.get("content") if part.__class__ is dict else None
        reasoning = ""
        # Nearly every event is a piece of plain text; the rest takes the long way.
        if content.__class__ is not str or len(part) > 1 or self._content.half or not content.isascii():
            content, reasoning = self._rich(part)
        finish_reason = choice.get("finish_reason")
        if finish_reason:
            content += self._content.rest()
            finish_reason = self._finish(finish_reason, bool(content))
        if not (content or reasoning or finish_reason or usage):
            return None
        if content or reasoning:
            self.started = True
            self._text.add(content)
            self._size += len(content) + len(reasoning)
            if self._size > MAX_ANSWER_CHARS:
                raise too_long()
        return Delta(
            content=content,
            reasoning=reasoning,
            finish_reason=finish_reason or None,
            usage=usage,
            model=self._model or self._first_model(payload),
            request_id=self.request_id,
        )

    def whole(self, payload: Mapping[str, Any]) -> Delta:
        """The one delta of an answer that was not streamed."""
        delta = self.delta(payload, "message")
        if _first_choice(payload).get("message") is None:
            raise ReplyError("the service sent no message to take as the answer", hint=ASK_AGAIN)
        if delta is None or not self.finished:
            raise self.unfinished()
        return delta

    def unfinished(self) -> IncompleteStream:
        """The error for an answer that ended without a finish_reason."""
        return IncompleteStream(
            "the answer ended before it was finished (no finish_reason)"
            if self.started
            else "the service ended its answer before it had begun",
            retryable=not self.started,
            hint=ASK_AGAIN,
        )

    def complete(self, error: ProviderError, provider: str, model: str) -> None:
        """Add to the error all that is known here; once text has come nothing is tried again."""
        error.provider = error.provider or provider
        error.model = error.model or self._model or model or None
        error.request_id = error.request_id or self.request_id
        error.partial_text = error.partial_text or self.text
        error.retryable = error.retryable and not self.started

    def _rich(self, part: Any) -> tuple[str, str]:
        """Content and reasoning of a part that is more than a piece of plain text."""
        if part is None:
            return "", ""
        if not isinstance(part, dict):
            raise ReplyError(f"the answer is a {type(part).__name__}, not a message", hint=ASK_AGAIN)
        if part.get("tool_calls") or part.get("function_call"):
            raise tools_wanted()
        self._refusal += str(part.get("refusal") or "")
        content = self._content.mend(_text(part.get("content")))
        return content, self._reasoning.mend(_text(part.get("reasoning_content") or part.get("reasoning")))

    def _first_model(self, payload: Mapping[str, Any]) -> str | None:
        model = payload.get("model")
        self._model = quoted(model, self.secrets) if isinstance(model, str) and model else None
        return self._model

    def _finish(self, reason: Any, content: bool) -> str | None:
        if not isinstance(reason, str):
            return None
        if reason in _BROKEN_OFF:
            raise TransportError(f"the service broke off its answer ({reason})", retryable=True, hint="ask again")
        if reason in ("tool_calls", "function_call"):
            raise tools_wanted()
        if self._refusal and not (content or self.text):
            raise ReplyError(
                f"the model refused: {quoted(self._refusal, self.secrets)}", hint="change the prompt or the model"
            )
        self.finished = True
        return quoted(reason, self.secrets)


class _Mender:
    """Makes text that can be encoded: joins emoji cut in two by the service, replaces lone halves."""

    def __init__(self) -> None:
        self.half = ""

    def mend(self, text: str) -> str:
        if text.isascii() and not self.half:
            return text
        text, self.half = self.half + text, ""
        if "\ud800" <= text[-1:] <= "\udbff":
            text, self.half = text[:-1], text[-1]
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def rest(self) -> str:
        rest, self.half = "\ufffd" if self.half else "", ""
        return rest


def _first_choice(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = payload.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and not choice.get("index"):
                return choice
    return {}


def _text(content: Any) -> str:
    if content.__class__ is str:
        return str(content)
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(_part_text(part) for part in content)
    raise no_text(content)


def _part_text(part: Any) -> str:
    text = part.get("text") if isinstance(part, dict) else part  # a part without text is of another kind
    if text is None or isinstance(text, str):
        return text or ""
    raise no_text(text)


def no_text(content: Any) -> ReplyError:
    """The error for an answer that has something else where its text should be."""
    return ReplyError(f"the content of the answer is a {type(content).__name__}, not text", hint=ASK_AGAIN)


def too_long() -> TransportError:
    """The error for an answer without end."""
    return TransportError(f"the answer is longer than {MAX_ANSWER_CHARS} characters", hint="limit max_tokens")


def tools_wanted() -> ReplyError:
    """The error for an answer that is a call of a tool."""
    return ReplyError("the model asked for a tool, but there are none", hint="remove tools from params")


def _usage(reported: Any) -> Usage | None:
    if not isinstance(reported, dict):
        return None
    details = reported.get("prompt_tokens_details")
    usage = Usage(
        prompt_tokens=count(reported, "prompt_tokens"),
        completion_tokens=count(reported, "completion_tokens"),
        total_tokens=count(reported, "total_tokens"),
        cached_tokens=count(details, "cached_tokens"),
        # DashScope's name for it, or OpenRouter's.
        cache_creation_tokens=count(details, "cache_creation_input_tokens") or count(details, "cache_write_tokens"),
        reasoning_tokens=count(reported.get("completion_tokens_details"), "reasoning_tokens"),
    )
    return usage if usage != _UNKNOWN else None


def count(reported: Any, name: str) -> int | None:
    """The number called `name` in what a service reported; None if there is none."""
    value = reported.get(name) if isinstance(reported, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS else None


class Format(NamedTuple):
    """How one family of services writes requests and answers."""

    encoded: Callable[[ChatRequest, ModelSettings, Shape | None], bytes]
    reading: Callable[[], Reading]


CHAT_COMPLETIONS = Format(encoded, Reading)
