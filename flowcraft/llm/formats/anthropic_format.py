"""The format of Anthropic's Messages API (version 2023-06-01): request out, answer in; no I/O.

Requests come with the parameter names of OpenAI and leave with Anthropic's; what has no counterpart is
refused, not forgotten. Stop reasons become the finish reasons of `LLMResponse`, thinking becomes reasoning.
"""

from collections.abc import Mapping
from typing import Any

from flowcraft.core.errors import ReplyError, UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest, Delta, LLMMessage, Usage
from flowcraft.llm.formats.chat_format import (
    MAX_ANSWER_CHARS,
    Format,
    Reading,
    Shape,
    as_json,
    check,
    content,
    count,
    no_text,
    too_long,
    tools_wanted,
)
from flowcraft.llm.parts import ImagePart
from flowcraft.llm.wire.status import ASK_AGAIN, quoted

MAX_TOKENS = 4096  # the service wants a limit; this one every model of it allows
_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_SYSTEM = ("system", "developer")
_UNKNOWN = ("seed", "n", "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs")
_USAGE = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
_TOOLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def encoded(request: ChatRequest, config: ModelSettings, shape: Shape | None = None) -> bytes:
    """The request as the body of a POST; parameters of the request win over those of the settings."""
    check(request, config)
    limit = {} if config.max_tokens is None else {"max_tokens": config.max_tokens}
    system = [message.text for message in request.messages if message.role in _SYSTEM]
    body: dict[str, Any] = {
        "model": config.model,
        "system": "\n\n".join(system) or None,
        "messages": [_message(message, config) for message in request.messages if message.role not in _SYSTEM],
        **_parameters({**limit, **config.params, **request.params}),
        "stream": request.stream or None,
    }
    if shape is not None:
        shape(body)
    return as_json(body)


def _image(part: ImagePart) -> dict[str, Any]:
    if part.detail not in ("", "auto"):
        raise UsageError("the provider anthropic has no 'detail' of images", hint="leave it out for this model")
    data = {"type": "base64", "media_type": part.media_type, "data": part.encoded}
    return {"type": "image", "source": {"type": "url", "url": part.url} if part.url else data}


def _message(message: LLMMessage, config: ModelSettings) -> dict[str, Any]:
    if message.role == "tool":
        raise UsageError("there are no tools for a message of the role 'tool' to answer to")
    return {"role": message.role, "content": content(message, config, _image)}


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's parameters in Anthropic's words; names that are not OpenAI's pass as they are."""
    params = {name: value for name, value in given.items() if value is not None}
    for name in _UNKNOWN:
        if name in params:
            raise UsageError(f"the provider anthropic has no parameter '{name}'", hint="leave it out for this model")
    wanted = params.pop("response_format", {"type": "text"})
    if not isinstance(wanted, Mapping) or wanted.get("type") != "text":
        raise UsageError(
            "the provider anthropic has no parameter 'response_format'", hint="ask for JSON in the prompt instead"
        )
    stop = params.pop("stop", None)
    if stop is not None:
        params["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    user = params.pop("user", None)
    if user is not None:
        params.setdefault("metadata", {"user_id": user})
    longest = params.pop("max_completion_tokens", None)
    params["max_tokens"] = longest or params.get("max_tokens") or MAX_TOKENS
    return params


class Message(Reading):
    """One answer of the Messages API as it is read."""

    def __init__(self) -> None:
        super().__init__()
        self._reported: dict[str, Any] = {}

    def knows(self, payload: Mapping[str, Any]) -> bool:
        """Everything but an error; kinds of events that are new are allowed, and ignored."""
        return "error" not in payload and isinstance(payload.get("type"), str)

    def ends(self, payload: Any) -> bool:
        """Whether a JSON value is an event that finishes the answer."""
        ending = payload.get("delta") if isinstance(payload, dict) else None
        return isinstance(ending, dict) and bool(ending.get("stop_reason"))

    def delta(self, payload: Mapping[str, Any], name: str = "delta") -> Delta | None:
        """The delta in one event of a stream; None if there is nothing in it."""
        kind = payload.get("type")
        if self.finished:
            return None
        if kind == "content_block_delta":
            return self._piece(payload.get(name))
        if kind == "content_block_start":
            return self._piece(payload.get("content_block"))
        if kind == "message_start":
            message = payload.get("message")
            if isinstance(message, dict):
                self._first_model(message)
                self._report(message.get("usage"))
        if kind == "message_delta":
            self._report(payload.get("usage"))
            ending = payload.get(name)
            return self._ended(ending.get("stop_reason") if isinstance(ending, dict) else None)
        return None

    def whole(self, payload: Mapping[str, Any]) -> Delta:
        """The one delta of an answer that was not streamed."""
        blocks = payload.get("content")
        if not isinstance(blocks, list):
            raise ReplyError("the service sent no content to take as the answer", hint=ASK_AGAIN)
        self._first_model(payload)
        self._report(payload.get("usage"))
        for block in blocks:
            if not isinstance(block, dict):
                raise no_text(block)
        pieces = [piece for piece in map(self._piece, blocks) if piece]
        end = self._ended(payload.get("stop_reason"))
        if end is None:
            raise self.unfinished()
        return Delta(
            content="".join(piece.content for piece in pieces) + end.content,
            reasoning="".join(piece.reasoning for piece in pieces),
            finish_reason=end.finish_reason,
            usage=end.usage,
            model=end.model,
            request_id=end.request_id,
        )

    def _piece(self, part: Any) -> Delta | None:
        """A content block or a piece of one; kinds that hold no text (signatures, citations) are passed over."""
        if not isinstance(part, dict):
            return None
        kind = part.get("type")
        if kind in _TOOLS or kind == "input_json_delta":
            raise tools_wanted()
        content = self._content.mend(_string(part.get("text"))) if kind in ("text", "text_delta") else ""
        thinks = kind in ("thinking", "thinking_delta")
        reasoning = self._reasoning.mend(_string(part.get("thinking"))) if thinks else ""
        if not (content or reasoning):
            return None
        self.started = True
        self._text.add(content)
        self._size += len(content) + len(reasoning)
        if self._size > MAX_ANSWER_CHARS:
            raise too_long()
        return Delta(content=content, reasoning=reasoning, model=self._model, request_id=self.request_id)

    def _ended(self, reason: Any) -> Delta | None:
        if not isinstance(reason, str) or not reason:
            return None
        if reason == "tool_use":
            raise tools_wanted()
        if reason == "pause_turn":
            raise ReplyError("the model paused in the middle of its answer", hint="remove server tools from params")
        self.finished = True
        return Delta(
            content=self._content.rest(),
            finish_reason=_FINISH.get(reason) or quoted(reason, self.secrets),
            usage=self._usage(),
            model=self._model,
            request_id=self.request_id,
        )

    def _report(self, usage: Any) -> None:
        # The end of a stream repeats some numbers of its beginning; the later ones count.
        numbers = {name: count(usage, name) for name in _USAGE}
        self._reported |= {name: number for name, number in numbers.items() if number is not None}
        details = usage.get("output_tokens_details") if isinstance(usage, dict) else None
        thinking = count(details, "thinking_tokens")
        if thinking is not None:
            self._reported["thinking"] = thinking

    def _usage(self) -> Usage | None:
        """What was reported, in OpenAI's terms: there the input includes what comes from or goes to the cache."""
        found = self._reported
        if not found:
            return None
        parts = [found[name] for name in _USAGE[:3] if name in found]
        sent = sum(parts) if "input_tokens" in found else None
        written = found.get("output_tokens")
        return Usage(
            prompt_tokens=sent,
            completion_tokens=written,
            total_tokens=None if sent is None or written is None else sent + written,
            cached_tokens=found.get("cache_read_input_tokens"),
            cache_creation_tokens=found.get("cache_creation_input_tokens"),
            reasoning_tokens=found.get("thinking"),
        )


def _string(text: Any) -> str:
    if text is None or isinstance(text, str):
        return text or ""
    raise no_text(text)


MESSAGES = Format(encoded, Message)
