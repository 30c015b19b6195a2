"""The provider `anthropic` against a scripted service on loopback, and against llama.cpp's own Messages API."""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import settings_of
from servers import ChatServer, Reply, answer, raw, status, stream

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    IncompleteStream,
    ProviderError,
    QuotaError,
    RateLimitError,
    ReplyError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest, Delta, LLMMessage, LLMResponse, Usage
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.local import llama, weights
from flowcraft.llm.providers.anthropic import AnthropicProvider

HELLO = [LLMMessage("user", "hello")]
KEY = "sk-ant-secret-0123456789"
BASE = ModelSettings(name="m", provider="anthropic", model="claude-test")


def provider(server: ChatServer, **config: Any) -> AnthropicProvider:
    settings = {"base_url": server.base_url, **config}
    return AnthropicProvider(
        ModelSettings(name="m", provider="anthropic", model="claude-test", **settings), api_key=KEY
    )


def event(payload: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (payload["type"].encode(), json.dumps(payload).encode())


USAGE = {"input_tokens": 10, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 7, "output_tokens": 1}
START = event(
    {"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "claude-served", "usage": USAGE}}
)
STOP = event({"type": "message_stop"})


def block(index: int, kind: str, **content: Any) -> bytes:
    return event({"type": "content_block_start", "index": index, "content_block": {"type": kind, **content}})


def piece(kind: str, **content: Any) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": kind, **content}})


def text(*pieces: str) -> bytes:
    return block(0, "text", text="") + b"".join(piece("text_delta", text=one) for one in pieces)


def end(reason: str = "end_turn", output_tokens: int = 5) -> bytes:
    usage = {"output_tokens": output_tokens}
    return event({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}) + STOP


def message(content: Sequence[dict[str, Any]], stop_reason: str | None = "end_turn") -> Reply:
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-served", "content": content}
    return status(200, {**body, "stop_reason": stop_reason, "usage": USAGE}, headers={"request-id": "req-a"})


def streamed(*pieces: bytes) -> LLMResponse:
    with ChatServer(stream(*pieces, headers={"request-id": "req-a"})) as server:
        answered = provider(server).stream_completion(HELLO)
        list(answered)
        response = answered.response  # type: ignore[attr-defined]
    assert isinstance(response, LLMResponse)
    return response


def stream_error(*pieces: bytes, **how: Any) -> ProviderError:
    with ChatServer(stream(*pieces, **how)) as server, pytest.raises(ProviderError) as caught:
        list(provider(server).stream_completion(HELLO))
    return caught.value


def sent(messages: Sequence[LLMMessage] = HELLO, config: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    with ChatServer(message([{"type": "text", "text": "ok"}])) as server:
        provider(server, **(config or {})).chat_completion(messages, **params)
    return server.requests[0].body


# --- requests ---------------------------------------------------------------------------------


def test_is_known_to_the_factory() -> None:
    assert LLMProviderFactory.provider_class("anthropic") is AnthropicProvider


@pytest.mark.parametrize("path", ["", "/v1", "/v1/"])
def test_sends_key_and_version_to_the_messages_of_the_address(path: str) -> None:
    with ChatServer(message([{"type": "text", "text": "ok"}])) as server:
        provider(server, base_url=server.base_url.removesuffix("/v1") + path).chat_completion(HELLO)
        request = server.requests[0]

    assert request.path == "/v1/messages"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in request.headers


def test_system_messages_go_where_anthropic_wants_them() -> None:
    body = sent([LLMMessage("system", "Be brief."), LLMMessage("developer", "Be kind."), *HELLO])

    assert body["system"] == "Be brief.\n\nBe kind."
    assert body["messages"] == [{"role": "user", "content": "hello"}]


def test_there_is_always_a_limit_of_tokens() -> None:
    assert sent()["max_tokens"] == 4096
    assert sent(config={"max_tokens": 100})["max_tokens"] == 100
    assert sent(config={"max_tokens": 100, "params": {"max_tokens": 50}})["max_tokens"] == 50
    assert sent(config={"max_tokens": 100}, max_tokens=7)["max_tokens"] == 7
    assert sent(max_completion_tokens=9)["max_tokens"] == 9


def test_translates_the_parameters_of_openai() -> None:
    body = sent(stop="END", temperature=0.5, user="u-1", top_k=3, response_format={"type": "text"}, seed=None)

    assert body == {
        "model": "claude-test",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 4096,
        "stop_sequences": ["END"],
        "temperature": 0.5,
        "top_k": 3,
        "metadata": {"user_id": "u-1"},
    }


@pytest.mark.parametrize(
    "params", [{"seed": 1}, {"n": 2}, {"response_format": {"type": "json_object"}}, {"model": "x"}, {"top_p": {1}}]
)
def test_refuses_parameters_that_anthropic_does_not_have(params: dict[str, Any]) -> None:
    with ChatServer(answer("ok")) as server:
        with pytest.raises(UsageError):
            provider(server).chat_completion(HELLO, **params)
        assert server.requests == []


def test_says_which_variable_is_missing() -> None:
    with pytest.raises(AuthError, match="ANTHROPIC_API_KEY is not set") as caught:
        AnthropicProvider(BASE).chat_completion(HELLO)

    assert not caught.value.sent


def test_another_service_never_gets_the_key_of_anthropic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with ChatServer(message([{"type": "text", "text": "ok"}])) as server:
        AnthropicProvider(
            ModelSettings(name="m", provider="anthropic", model="m", base_url=server.base_url)
        ).chat_completion(HELLO)

        assert "x-api-key" not in server.requests[0].headers


# --- answers ----------------------------------------------------------------------------------


def test_reads_a_whole_answer() -> None:
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "abc"},
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "text", "text": "one "},
        {"type": "text", "text": "two"},
    ]
    with ChatServer(message(content)) as server:
        response = provider(server).chat_completion(HELLO)

    assert response == LLMResponse(
        content="one two",
        model="claude-served",
        provider="anthropic",
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=1, total_tokens=21, cached_tokens=7, cache_creation_tokens=3),
        reasoning="hm",
        request_id="req-a",
    )


def test_reads_a_stream() -> None:
    response = streamed(
        START,
        block(0, "thinking", thinking=""),
        piece("thinking_delta", thinking="let me "),
        piece("thinking_delta", thinking="see"),
        piece("signature_delta", signature="abc"),
        event({"type": "content_block_stop", "index": 0}),
        event({"type": "ping"}),
        event({"type": "a_kind_of_tomorrow", "error_free": True}),
        text("one ", "two"),
        end(),
    )

    assert response == LLMResponse(
        content="one two",
        model="claude-served",
        provider="anthropic",
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=5, total_tokens=25, cached_tokens=7, cache_creation_tokens=3),
        reasoning="let me see",
        request_id="req-a",
    )


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("tomorrow", "tomorrow"),
    ],
)
def test_stop_reasons_become_finish_reasons(stop_reason: str, finish_reason: str) -> None:
    assert streamed(START, text("a"), end(stop_reason)).finish_reason == finish_reason
    with ChatServer(message([{"type": "text", "text": "a"}], stop_reason)) as server:
        assert provider(server).chat_completion(HELLO).finish_reason == finish_reason


def test_joins_an_emoji_that_was_cut_in_two() -> None:
    assert streamed(START, text("\ud83d", "\ude00!", "\ud83d"), end()).content == "\U0001f600!\ufffd"


def test_keeps_its_connection() -> None:
    with ChatServer(stream(START, text("a"), end())) as server:
        client = provider(server)
        for _ in range(3):
            assert list(client.stream_completion(HELLO)) == ["a"]
        assert server.connections == 1


@pytest.mark.parametrize(
    "broken",
    [
        block(0, "tool_use", id="t", name="f", input={}),
        piece("input_json_delta", partial_json="{"),
        end("tool_use"),
        end("pause_turn"),
        piece("text_delta", text=5),
    ],
)
def test_refuses_what_is_no_text_answer(broken: bytes) -> None:
    assert isinstance(stream_error(START, broken, end()), ReplyError)


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "how"),
    [
        ((START, text("so", " far")), {}),
        ((START, text("so", " far")), {"last_chunk": False, "end": "close"}),
        ((START, text("so", " far")), {"chunked": False}),
        ((START, text("so", " far"), STOP), {}),
        ((START, text("so", " far"), end()[:-40].split(b"\n\n")[0][:-1]), {"chunked": False}),
    ],
    ids=["clean end", "cut", "unframed", "stop without a reason", "half an end"],
)
def test_an_answer_without_its_stop_reason_is_incomplete(pieces: tuple[bytes, ...], how: dict[str, Any]) -> None:
    error = stream_error(*pieces, **how)

    assert isinstance(error, IncompleteStream)
    assert error.partial_text == "so far"
    assert not error.retryable


def test_a_whole_answer_without_its_stop_reason_is_incomplete() -> None:
    with ChatServer(message([{"type": "text", "text": "a"}], None)) as server, pytest.raises(IncompleteStream):
        provider(server).chat_completion(HELLO)


@pytest.mark.parametrize(
    ("word", "kind", "code", "retryable"),
    [
        ("overloaded_error", ProviderError, 529, True),
        ("api_error", ProviderError, 500, True),
        ("timeout_error", ProviderError, 504, True),
        ("rate_limit_error", RateLimitError, 429, True),
        ("authentication_error", AuthError, None, False),
        ("invalid_request_error", ProviderError, None, False),
        ("billing_error", QuotaError, None, False),
    ],
)
def test_an_error_in_a_stream_is_typed(word: str, kind: type[ProviderError], code: int, retryable: bool) -> None:
    failure = event({"type": "error", "error": {"type": word, "message": "Sorry"}})
    early, late = stream_error(START, failure), stream_error(START, text("so far"), failure)

    for error in (early, late):
        assert type(error) is kind
        assert "Sorry" in error.message
        assert error.status == code
    assert early.retryable is retryable
    assert late.retryable is False
    assert late.partial_text == "so far"


@pytest.mark.parametrize(
    ("code", "word", "kind", "retryable"),
    [
        (400, "invalid_request_error", ProviderError, False),
        (401, "authentication_error", AuthError, False),
        (403, "permission_error", AuthError, False),
        (404, "not_found_error", ProviderError, False),
        (413, "request_too_large", ProviderError, False),
        (429, "rate_limit_error", RateLimitError, True),
        (500, "api_error", ProviderError, True),
        (529, "overloaded_error", ProviderError, True),
    ],
)
def test_a_status_is_typed(code: int, word: str, kind: type[ProviderError], retryable: bool) -> None:
    body = {"type": "error", "error": {"type": word, "message": f"Sorry, {KEY}"}, "request_id": "req-b"}
    reply = status(code, body, headers={"request-id": "req-b", "retry-after": "3"})
    with ChatServer(reply) as server, pytest.raises(ProviderError) as caught:
        provider(server).chat_completion(HELLO)
    error = caught.value

    assert type(error) is kind
    assert (error.status, error.retryable, error.request_id, error.retry_after_s) == (code, retryable, "req-b", 3)
    assert "Sorry" in str(error)
    assert KEY not in str(error)


def test_an_overload_in_a_stream_is_tried_again() -> None:
    overload = event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    with ChatServer(stream(START, overload), stream(START, overload), stream(START, text("at last"), end())) as server:
        config = ModelSettings(name="m", provider="anthropic", model="m", base_url=server.base_url)
        with LLMIntegration(settings_of(config), jitter=lambda: 0.0) as client:
            assert "".join(client.stream_completion(HELLO)) == "at last"


@pytest.mark.parametrize("reply", [answer("hello"), status(200, {"type": "message"}), raw(b"HTTP/1.1 200 OK\r\n\r\n")])
def test_what_is_no_message_is_a_typed_error(reply: Reply) -> None:
    with ChatServer(reply) as server, pytest.raises((ReplyError, TransportError)):
        provider(server).chat_completion(HELLO)


# --- a foreign peer ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peer() -> Iterator[llama.Llama]:
    """The real llama.cpp server, which has a Messages API of its own."""
    folder = os.environ.get("FLOWCRAFT_TEST_WEIGHTS") or str(weights.cache_folder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCRAFT_CACHE", folder)
        weights.pull()
    server = llama.start(Path(folder) / weights.SMOLLM2.file_name, context=512, scope=Scope(120))
    yield server
    server.child.stop()


needs_llama = pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the extra `embedded`")


def at(server: llama.Llama, key: str | None = None) -> AnthropicProvider:
    config = ModelSettings(name="m", provider="anthropic", model="any", base_url=server.url)
    return AnthropicProvider(config, api_key=key or server.key, keep_alive=False)


@pytest.mark.embedded
@needs_llama
@pytest.mark.parametrize("streaming", [False, True])
def test_llama_cpp_understands_the_requests_and_is_understood(peer: llama.Llama, streaming: bool) -> None:
    request = ChatRequest(
        messages=(LLMMessage("system", "Be brief."), *HELLO), params={"max_tokens": 8, "stop": "zzz"}, stream=streaming
    )

    deltas: list[Delta] = list(at(peer).deltas(request))

    usage = next(delta.usage for delta in reversed(deltas) if delta.usage)
    assert "".join(delta.content for delta in deltas)
    assert deltas[-1].finish_reason in ("stop", "length")
    assert usage.prompt_tokens
    assert usage.completion_tokens
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.embedded
@needs_llama
def test_llama_cpp_refuses_a_wrong_key(peer: llama.Llama) -> None:
    with pytest.raises(AuthError):
        at(peer, "wrong-key").chat_completion(HELLO, max_tokens=4)


@pytest.mark.embedded
@needs_llama
def test_llama_cpp_is_left_in_the_middle_of_an_answer(peer: llama.Llama) -> None:
    scope = Scope(60)
    pieces = at(peer).deltas(
        ChatRequest(messages=tuple(HELLO), params={"max_tokens": 400, "ignore_eos": True}, stream=True, scope=scope)
    )
    next(pieces)
    scope.cancel()

    with pytest.raises(Cancelled):
        list(pieces)
