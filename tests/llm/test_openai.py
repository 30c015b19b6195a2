"""The OpenAI provider against a real server on loopback: requests, answers, and all the ways they break."""

import gzip
import threading
from typing import Any

import pytest
from servers import ChatServer, Reply, answer, delta, frame, raw, status, stream

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    IncompleteStream,
    ProviderError,
    QuotaError,
    RateLimitError,
    ReplyError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.base import ChatRequest, LLMMessage, LLMResponse, Usage
from flowcraft.llm.providers.openai import OpenAIProvider

HI = [LLMMessage(role="user", content="hi")]
KEY = "sk-canary-0123456789abcdef"
DONE = b"data: [DONE]\n\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
FINISH = delta({}, finish_reason="stop")
EARLY = Timeouts(first_event=0.3, idle=10, total=20)
LATE = Timeouts(first_event=10, idle=0.3, total=20)


def provider(server: ChatServer, *, timeouts: Timeouts = Timeouts(total=10), **settings: Any) -> OpenAIProvider:
    config = ModelSettings(
        name="m", provider="openai", model="some-model", base_url=server.base_url, timeouts=timeouts, **settings
    )
    return OpenAIProvider(config, api_key=KEY)


def streamed(*replies: Reply, **settings: Any) -> tuple[str, LLMResponse]:
    with ChatServer(*replies) as server:
        pieces = provider(server, **settings).stream_completion(HI)
        text = "".join(pieces)
        return text, pieces.response  # type: ignore[attr-defined]


def asked(*replies: Reply, **settings: Any) -> LLMResponse:
    with ChatServer(*replies) as server:
        return provider(server, **settings).chat_completion(HI)


def stream_error(reply: Reply, **settings: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        streamed(reply, **settings)
    return caught.value


def whole_error(reply: Reply, **settings: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        asked(reply, **settings)
    return caught.value


# --- what is sent -----------------------------------------------------------------------------


def test_sends_model_messages_and_parameters_in_openai_form() -> None:
    with ChatServer(answer("ok")) as server:
        provider(server, params={"temperature": 0.5, "seed": 1}, max_tokens=100).chat_completion(HI, temperature=0.1)

    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["accept-encoding"] == "identity"
    assert request.body == {
        "model": "some-model",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0.1,
        "seed": 1,
        "max_tokens": 100,
    }


def test_asks_for_the_usage_of_a_stream() -> None:
    with ChatServer(answer("ok")) as server:
        list(provider(server).stream_completion(HI))

    assert server.requests[0].body["stream"] is True
    assert server.requests[0].body["stream_options"] == {"include_usage": True}


def test_leaves_out_parameters_that_are_none() -> None:
    with ChatServer(answer("ok")) as server:
        provider(server).chat_completion(HI, temperature=None)

    assert "temperature" not in server.requests[0].body


def test_does_not_limit_twice_when_max_completion_tokens_is_given() -> None:
    with ChatServer(answer("ok")) as server:
        provider(server, max_tokens=100).chat_completion(HI, max_completion_tokens=50)

    assert "max_tokens" not in server.requests[0].body


@pytest.mark.parametrize("params", [{"stop": {1}}, {"temperature": float("nan")}, {"stream": True}, {"model": "other"}])
def test_refuses_parameters_that_cannot_be_sent(params: dict[str, Any]) -> None:
    with ChatServer(answer("ok")) as server, pytest.raises(UsageError):
        provider(server).chat_completion(HI, **params)

    assert server.requests == []


def test_sends_any_text_however_odd() -> None:
    with ChatServer(answer("ok")) as server:
        provider(server).chat_completion([LLMMessage(role="user", content="a\ud800\x00\U0001f600\u2028")])

    assert server.requests[0].body["messages"][0]["content"] == "a\ud800\x00\U0001f600\u2028"


# --- keys -------------------------------------------------------------------------------------


def test_takes_the_key_from_the_named_variable_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(answer("ok")) as server:
        config = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url, api_key_env="MY_KEY")
        openai = OpenAIProvider(config)
        monkeypatch.setenv("MY_KEY", "first-key\n")
        openai.chat_completion(HI)
        monkeypatch.setenv("MY_KEY", "second-key")
        openai.chat_completion(HI)

    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first-key",
        "Bearer second-key",
    ]


def test_says_which_variable_is_missing_before_anything_is_sent() -> None:
    config = ModelSettings(name="m", provider="openai", model="gpt")

    with pytest.raises(AuthError, match="OPENAI_API_KEY is not set") as caught:
        OpenAIProvider(config).chat_completion(HI)

    assert caught.value.hint is not None
    assert "export OPENAI_API_KEY=" in caught.value.hint
    assert not caught.value.sent
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt")


def test_another_service_never_gets_the_key_of_openai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer(answer("ok")) as server:
        OpenAIProvider(ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)).chat_completion(
            HI
        )

    assert "authorization" not in server.requests[0].headers


def test_a_public_service_without_a_key_is_not_asked() -> None:
    config = ModelSettings(name="m", provider="openai", model="m", base_url="https://llm.example.com/v1")

    with pytest.raises(AuthError, match="no API key") as caught:
        OpenAIProvider(config).chat_completion(HI)

    assert "api_key_env" in str(caught.value.hint)


@pytest.mark.parametrize("address", ["http://[::1/v1", "http://℀.test/v1", "nonsense"])
def test_an_address_that_is_none_is_a_usage_error(address: str) -> None:
    config = ModelSettings(name="m", provider="openai", model="m", base_url=address)
    with pytest.raises(UsageError):
        OpenAIProvider(config, api_key="x").chat_completion([LLMMessage(role="user", content="x")])


def test_asks_the_hook_for_headers_before_each_call() -> None:
    tokens = iter(["one-token", "two-token"])
    with ChatServer(answer("ok")) as server:
        config = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)
        openai = OpenAIProvider(config, headers=lambda: {"X-Token": next(tokens)})
        openai.chat_completion(HI)
        openai.chat_completion(HI)

    assert [request.headers["x-token"] for request in server.requests] == ["one-token", "two-token"]


def test_netrc_does_not_replace_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with ChatServer(answer("ok")) as server:
        provider(server).chat_completion(HI)

    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-line\nend-0123", "sk-naïve-€-0123"])
def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    with ChatServer(answer("ok")) as server:
        config = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)
        with pytest.raises(AuthError) as caught:
            OpenAIProvider(config, api_key=key).chat_completion(HI)

    assert "0123" not in repr(caught.value) + str(caught.value) + str(caught.value.__cause__)


# --- whole answers ----------------------------------------------------------------------------


def test_reads_a_whole_answer() -> None:
    response = asked(answer("hello there", reasoning="hm", usage=(7, 9), request_id="abc"))

    assert response == LLMResponse(
        content="hello there",
        model="test-model",
        provider="openai",
        finish_reason="stop",
        usage=Usage(prompt_tokens=7, completion_tokens=9, total_tokens=16),
        reasoning="hm",
        request_id="abc",
    )


def chat(message: Any, **rest: Any) -> Reply:
    return status(200, {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop", **rest}]})


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ({"content": "a"}, "a"),
        ({"content": None}, ""),
        ({}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}, "c"]}, "abc"),
        ({"content": "a\ud83d\ude00b\udc00"}, "a😀b\ufffd"),
        ({"content": "a", "tool_calls": [], "function_call": None, "refusal": None, "audio": None}, "a"),
    ],
)
def test_takes_the_content_in_every_form(message: Any, content: str) -> None:
    assert asked(chat(message)).content == content


@pytest.mark.parametrize(
    ("message", "rest", "match"),
    [
        ({"content": 5}, {}, "is a int, not text"),
        ({"content": {"a": 1}}, {}, "is a dict, not text"),
        ({"content": {}}, {}, "is a dict, not text"),
        ({"content": 0}, {}, "is a int, not text"),
        ({"content": ["a", 5]}, {}, "is a int, not text"),
        ("text", {}, "is a str, not a message"),
        (None, {}, "no message to take"),
        ({"tool_calls": [{"id": "1"}]}, {}, "asked for a tool"),
        ({"content": ""}, {"finish_reason": "tool_calls"}, "asked for a tool"),
        ({"content": None, "refusal": "I cannot"}, {}, "the model refused: I cannot"),
    ],
)
def test_refuses_what_is_no_text_answer(message: Any, rest: dict[str, Any], match: str) -> None:
    error = whole_error(chat(message, **rest))

    assert isinstance(error, ReplyError)
    assert match in str(error)
    assert not error.retryable


@pytest.mark.parametrize("reason", [None, "", 5, False])
def test_an_answer_without_a_finish_reason_is_none(reason: Any) -> None:
    assert isinstance(whole_error(chat({"content": "a"}, finish_reason=reason)), IncompleteStream)


@pytest.mark.parametrize("reason", ["error", "abort", "insufficient_system_resource"])
def test_an_answer_that_the_service_broke_off_is_none(reason: str) -> None:
    error = whole_error(chat({"content": "a"}, finish_reason=reason))

    assert isinstance(error, TransportError)
    assert error.retryable


@pytest.mark.parametrize("choices", [[], None, 5, [5], {}])
def test_an_answer_without_choices_is_none(choices: Any) -> None:
    assert isinstance(whole_error(status(200, {"choices": choices})), ReplyError)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        (
            {
                "prompt_tokens": 5,
                "completion_tokens": 6,
                "total_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 2},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
            Usage(prompt_tokens=5, completion_tokens=6, total_tokens=11, cached_tokens=2, reasoning_tokens=3),
        ),
        ({"prompt_tokens": 0, "completion_tokens": None, "total_tokens": "7"}, Usage(prompt_tokens=0)),
        ({"prompt_tokens": -1, "total_tokens": True, "prompt_tokens_details": 5}, None),
        ({}, None),
        ("many", None),
        (None, None),
    ],
)
def test_takes_only_numbers_as_usage(reported: Any, usage: Usage | None) -> None:
    body = {"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}], "usage": reported}

    assert asked(status(200, body)).usage == usage


@pytest.mark.parametrize(
    ("body", "kind", "match"),
    [
        (
            b"<html><title>Sign in</title>\x1b[31m",
            TransportError,
            r"instead of a chat answer: <html><title>Sign in</title> \[31m",
        ),
        (b"", TransportError, "answered with nothing"),
        (b"  \n", TransportError, "answered with nothing"),
        (b"[1]", TransportError, "instead of a chat answer"),
        (b"null", TransportError, "instead of a chat answer"),
        (b'{"error": {"message": "boom", "code": 502}}', ProviderError, "the service failed: boom"),
        (b'{"error": {"message": "slow", "code": "rate_limit_exceeded"}}', RateLimitError, "slow"),
        (b'{"choices": [', TransportError, "instead of a chat answer"),
        (b'{"a": NaN}', TransportError, "instead of a chat answer"),
        (b"[" * 100_000, TransportError, "instead of a chat answer"),
        (b"9" * 5000, TransportError, "instead of a chat answer"),
    ],
)
def test_a_200_that_is_no_answer_is_a_typed_error(body: bytes, kind: type[ProviderError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        asked(status(200, body, headers={"Content-Type": "text/html"}))

    assert len(str(caught.value)) < 800
    assert "\x1b" not in str(caught.value)


def test_a_cut_json_answer_is_incomplete() -> None:
    error = whole_error(
        status(200, b'{"choices": [{"mess', headers={"Content-Type": "application/json; charset=utf-8"})
    )

    assert isinstance(error, IncompleteStream)
    assert error.retryable


# --- streams ----------------------------------------------------------------------------------


def test_streams_pieces_as_they_arrive() -> None:
    gate = threading.Event()
    with ChatServer(stream(delta({"content": "a"}), gate, delta({"content": "b"}), FINISH, DONE)) as server:
        pieces = provider(server).stream_completion(HI)

        assert next(pieces) == "a"
        gate.set()
        assert list(pieces) == ["b"]


@pytest.mark.parametrize("chunked", [True, False])
def test_hands_out_an_event_with_its_last_byte_on_any_framing(chunked: bool) -> None:
    gates = [threading.Event() for _ in range(3)]
    pieces = [item for gate in gates for item in (delta({"content": "x"}), gate)]
    with ChatServer(stream(*pieces, FINISH, DONE, chunked=chunked)) as server:
        answered = provider(server).stream_completion(HI)
        for gate in gates:
            assert next(answered) == "x"
            gate.set()
        assert list(answered) == []


def test_a_stream_gives_the_same_answer_as_a_whole_one() -> None:
    text, response = streamed(answer("a b c", reasoning="think", usage=(1, 2)))

    assert text == "a b c"
    assert response == asked(answer("a b c", reasoning="think", usage=(1, 2)))


def test_the_deltas_tell_reasoning_from_content() -> None:
    with ChatServer(answer("text", reasoning="thought", usage=None)) as server:
        deltas = list(provider(server).deltas(ChatRequest(messages=tuple(HI), stream=True)))

    assert [(delta.reasoning, delta.content, delta.finish_reason) for delta in deltas] == [
        ("thought", "", None),
        ("", "text", None),
        ("", "", "stop"),
    ]


@pytest.mark.parametrize(
    "frames",
    [
        [delta({"role": "assistant", "content": None}), delta({"content": "ab"}), FINISH, DONE],
        [delta({"content": "a"}), delta({"content": "b"}, finish_reason="stop"), DONE],
        [delta({"content": "ab"}), FINISH],
        [b": hi\n\n", delta({"content": "ab"}), b"data:\n\n", b"event: ping\ndata: {}\n\n", FINISH, DONE],
        [delta({"content": [{"type": "text", "text": "ab"}]}), FINISH, DONE],
        [delta({"content": "ab"}), FINISH, delta({"content": "more"}), DONE],
        [delta({"content": "ab"}), FINISH, b'data: {"error": {"message": "late"}}\n\n', DONE],
        [delta({"content": "ab"}), FINISH, b"data: not JSON\n\n"],
        [
            frame({"choices": []}),
            frame({"choices": [{"index": 1, "delta": {"content": "other"}}]}),
            delta({"content": "ab"}),
            FINISH,
        ],
        [frame({}), frame({"choices": None}), frame({"choices": [None]}), delta({"content": "ab"}), FINISH],
        [frame({"error": None, "choices": [{"delta": {"content": "ab"}}]}), FINISH, DONE],
        [frame({"choices": [{"delta": None}]}), delta({"content": "ab", "tool_calls": None}), FINISH, DONE],
        [b"".join([delta({"content": "a"}), delta({"content": "b"}), FINISH, DONE])],
        [(delta({"content": "ab"}) + FINISH).replace(b"\n", b"\r\n"), DONE],
        [b"\xef\xbb\xbf" + delta({"content": "ab"}), FINISH],
    ],
)
def test_reads_the_dialects_of_a_stream(frames: list[bytes]) -> None:
    text, response = streamed(stream(*frames))

    assert text == "ab"
    assert response.finish_reason == "stop"


def test_joins_an_emoji_that_the_service_cut_in_two() -> None:
    frames = [delta({"content": "a\ud83d"}), delta({"content": "\ude00b"}), delta({"content": "\ud83d"}), FINISH]

    assert streamed(stream(*frames))[0] == "a😀b\ufffd"


def test_takes_the_usage_that_comes_after_the_finish() -> None:
    usage = frame({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})

    assert streamed(stream(delta({"content": "a"}), FINISH, usage, DONE))[1].usage == Usage(
        prompt_tokens=3, completion_tokens=4
    )


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r"])
def test_takes_a_last_event_without_its_blank_line_if_it_finishes_the_answer(tail: bytes) -> None:
    last = delta({"content": "b"}, finish_reason="stop").rstrip() + tail

    assert streamed(stream(delta({"content": "a"}), last))[0] == "ab"


@pytest.mark.parametrize(
    "last", [delta({"content": "b"}).rstrip(), FINISH[:40], b"data: [DONE]", b"data: 5", b"data: {}"]
)
def test_never_takes_another_unfinished_event(last: bytes) -> None:
    error = stream_error(stream(delta({"content": "a"}), last))

    assert isinstance(error, IncompleteStream)
    assert error.partial_text == "a"


# --- streams that break -----------------------------------------------------------------------

BEGUN = delta({"content": "so"}) + delta({"content": " far"})
CUT = delta({"content": "never"})[:-30]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(stream(BEGUN, last_chunk=False, end="close"), id="chunked, closed after an event"),
        pytest.param(stream(BEGUN + CUT, last_chunk=False, end="close"), id="chunked, closed in an event"),
        pytest.param(stream(BEGUN, last_chunk=False, end="reset"), id="chunked, reset"),
        pytest.param(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % 9999 + BEGUN), id="cut in a chunk"),
        pytest.param(raw(HEAD + b"Content-Length: 9999\r\n\r\n" + BEGUN), id="Content-Length too long"),
        pytest.param(raw(HEAD + b"Connection: close\r\n\r\n" + BEGUN), id="unframed, after an event"),
        pytest.param(raw(HEAD + b"Connection: close\r\n\r\n" + BEGUN + CUT), id="unframed, in an event"),
        pytest.param(stream(BEGUN), id="whole, without finish_reason or [DONE]"),
        pytest.param(stream(BEGUN, DONE), id="[DONE] without finish_reason"),
        pytest.param(stream(BEGUN, b'data: {"choices": [{"del\n\n', DONE), id="cut JSON in a whole event"),
        pytest.param(stream(BEGUN, b'data: {"choices": NaN}\n\n'), id="NaN"),
        pytest.param(stream(BEGUN, b"data: " + b"[" * 100_000 + b"\n\n"), id="nested too deeply"),
        pytest.param(stream(BEGUN, b"data: " + b"9" * 5000 + b"\n\n"), id="too many digits"),
    ],
)
def test_a_broken_stream_is_incomplete_and_keeps_what_had_come(reply: Reply) -> None:
    error = stream_error(reply)

    assert isinstance(error, IncompleteStream)
    assert error.partial_text == "so far"
    assert not error.retryable
    assert error.sent
    assert (error.provider, error.model) == ("openai", "test-model")


def test_a_gzip_stream_is_read_although_nobody_asked_for_it() -> None:
    body = gzip.compress(BEGUN + FINISH + DONE)

    assert streamed(stream(body, headers={"Content-Encoding": "gzip"}))[0] == "so far"


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_gzip_stream_is_never_taken_for_an_answer(chunked: bool) -> None:
    body = gzip.compress(BEGUN + b"".join(delta({"content": str(n)}) for n in range(500)) + FINISH + DONE)
    with pytest.raises(TransportError):
        streamed(stream(body[: len(body) // 2], headers={"Content-Encoding": "gzip"}, chunked=chunked))


def test_a_corrupt_gzip_stream_is_a_typed_error() -> None:
    error = stream_error(stream(b"this is not gzip at all", headers={"Content-Encoding": "gzip"}))

    assert isinstance(error, TransportError)
    assert "corrupt" in str(error)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_gzip_bomb_is_refused(streaming: bool) -> None:
    bomb = gzip.compress(b"data: " + b"x" * 40_000_000)
    reply = stream(
        bomb,
        headers={"Content-Encoding": "gzip", "Content-Type": "text/event-stream" if streaming else "application/json"},
    )
    error = stream_error(reply) if streaming else whole_error(reply)

    assert isinstance(error, TransportError)
    assert "larger than" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("size", [b"zz", b"-5", b"FFFFFFFFFFFFFFFF", b"9" * 40, b"", b"1" * 70_000])
def test_a_nonsensical_chunk_size_is_a_typed_error(size: bytes) -> None:
    error = stream_error(raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + size + b"\r\nabc"))

    assert isinstance(error, TransportError)


@pytest.mark.parametrize(
    ("body", "kind", "retryable"),
    [
        (b'{"error": {"message": "said why", "type": "server_error"}}', ProviderError, True),
        (b'\n {"error": {"message": "said why", "code": "insufficient_quota"}}', QuotaError, False),
        (b'{"error": "said why", "cut', TransportError, False),
        (b"<html>said why</html>", TransportError, False),
    ],
)
def test_what_is_called_a_stream_and_is_none_is_shown(body: bytes, kind: type[ProviderError], retryable: bool) -> None:
    error = stream_error(raw(HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body))

    assert type(error) is kind
    assert "said why" in str(error)
    assert error.retryable is retryable


def test_a_stream_that_ended_before_it_began_may_be_asked_for_again() -> None:
    error = stream_error(stream(delta({"role": "assistant"})))

    assert isinstance(error, IncompleteStream)
    assert error.retryable


@pytest.mark.parametrize(
    ("payload", "kind", "retryable"),
    [
        ({"error": {"message": "boom", "type": "server_error"}}, ProviderError, True),
        ({"error": {"message": "boom", "type": "overloaded_error"}}, ProviderError, True),
        ({"error": {"message": "boom", "code": 502}}, ProviderError, True),
        ({"error": {"message": "boom", "code": "429"}}, RateLimitError, True),
        ({"error": {"message": "boom", "code": "insufficient_quota"}}, QuotaError, False),
        ({"error": {"message": "boom", "code": "invalid_api_key"}}, AuthError, False),
        ({"error": {"message": "boom", "type": "invalid_request_error"}}, ProviderError, False),
        ({"error": {"message": "boom", "code": 400}}, ProviderError, False),
        ({"error": "boom"}, ProviderError, True),
        ({"error": {"message": "boom"}, "choices": [{"delta": {}, "finish_reason": "error"}]}, ProviderError, True),
        ({"code": "Throttling.RateQuota", "message": "boom", "request_id": "1"}, RateLimitError, True),
        ({"object": "error", "message": "boom"}, ProviderError, True),
    ],
)
def test_an_error_in_a_stream_is_typed_and_retryable_only_before_the_first_text(
    payload: dict[str, Any], kind: type[ProviderError], retryable: bool
) -> None:
    early = stream_error(stream(frame(payload)))
    late = stream_error(stream(BEGUN, frame(payload)))

    assert type(early) is type(late) is kind
    assert "boom" in str(early)
    assert early.retryable == retryable
    assert not late.retryable
    assert late.partial_text == "so far"


def test_an_answer_that_asks_for_a_tool_is_refused() -> None:
    error = stream_error(stream(delta({"tool_calls": [{"index": 0}]}), FINISH, DONE))

    assert isinstance(error, ReplyError)


def test_a_refusal_in_pieces_is_shown_whole() -> None:
    error = stream_error(stream(delta({"refusal": "I "}), delta({"refusal": "cannot"}), FINISH, DONE))

    assert isinstance(error, ReplyError)
    assert "the model refused: I cannot" in str(error)


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        (status(200, b"<html>\x1b]0;x\x07Hello"), "instead of a chat answer: <html> ]0;x Hello"),
        (status(200, b""), "answered with nothing"),
        (status(200, {"error": {"message": "boom", "code": 500}}), "the service failed: boom"),
        (status(200, {"choices": []}), "application/json instead of a chat answer"),
        (status(200, BEGUN + FINISH, headers={"Content-Type": "text/html"}), "text/html instead of a chat answer"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Ty"), "answered with nothing"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Head"), "ended its answer before it had begun"),
        (raw(HEAD + b"Content-Length: 0\r\n\r\n"), "ended its answer before it had begun"),
        (status(204, b""), "answered with nothing"),
    ],
)
def test_a_200_that_is_no_stream_is_a_typed_error(reply: Reply, match: str) -> None:
    error = stream_error(reply)

    assert match in str(error)
    assert "\x1b" not in str(error)


# --- statuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("code", "body", "headers", "kind", "retryable"),
    [
        (400, None, {}, ProviderError, False),
        (401, None, {}, AuthError, False),
        (402, None, {}, QuotaError, False),
        (403, None, {}, AuthError, False),
        (404, None, {}, ProviderError, False),
        (408, None, {}, ProviderError, True),
        (409, None, {}, ProviderError, False),
        (409, None, {"x-should-retry": "true"}, ProviderError, True),
        (413, None, {}, ProviderError, False),
        (425, None, {}, ProviderError, True),
        (429, None, {}, RateLimitError, True),
        (429, None, {"x-should-retry": "false"}, RateLimitError, False),
        (429, {"error": {"message": "m", "code": "insufficient_quota"}}, {}, QuotaError, False),
        (
            429,
            {"error": {"message": "m", "type": "insufficient_quota"}},
            {"x-should-retry": "true"},
            QuotaError,
            False,
        ),
        (403, {"error": {"message": "m", "code": "insufficient_quota"}}, {}, QuotaError, False),
        (500, None, {}, ProviderError, True),
        (500, b"<html>Internal Server Error</html>", {}, ProviderError, True),
        (500, None, {"x-should-retry": "false"}, ProviderError, False),
        (501, None, {}, ProviderError, False),
        (502, b"", {}, ProviderError, True),
        (503, b"\xff\x00\x1b", {}, ProviderError, True),
        (504, None, {}, ProviderError, True),
        (529, None, {}, ProviderError, True),
    ],
)
def test_a_status_becomes_its_error(
    code: int, body: Any, headers: dict[str, str], kind: type[ProviderError], retryable: bool, streaming: bool
) -> None:
    reply = status(code, body, headers={"x-request-id": "r-7", **headers})
    error = stream_error(reply) if streaming else whole_error(reply)

    assert type(error) is kind
    assert (error.status, error.retryable, error.request_id) == (code, retryable, "r-7")
    assert (error.provider, error.model) == ("openai", "some-model")
    assert str(error).isprintable()


def test_quotes_no_more_than_500_characters_of_a_body() -> None:
    assert len(whole_error(status(500, b"x" * 100_000)).message) < 600


def test_hints_at_model_and_address_for_a_404() -> None:
    assert "base_url" in str(whole_error(status(404)).hint)


def test_hints_at_the_variable_for_a_401(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with ChatServer(status(401)) as server:
        config = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url, api_key_env="MY_KEY")
        with pytest.raises(AuthError) as caught:
            OpenAIProvider(config).chat_completion(HI)

    assert "MY_KEY" in str(caught.value.hint)


def test_a_key_that_the_service_repeats_is_not_shown() -> None:
    for reply in (
        status(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        status(500, f"Authorization: Bearer {KEY}"),
        status(200, f"<html>{KEY}"),
        status(500, headers={"x-request-id": KEY}),
        status(302, headers={"Location": f"https://{KEY}.test/{KEY}"}),
    ):
        error = whole_error(reply)
        assert KEY not in str(error) + repr(error) + repr(vars(error))


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_in_the_facts_of_an_answer_is_not_shown(stream: bool) -> None:
    with ChatServer(answer("hello", model=KEY, finish_reason=f"end of {KEY}", request_id=KEY)) as server:
        deltas = list(provider(server).deltas(ChatRequest(messages=tuple(HI), stream=stream)))

    assert KEY not in repr(deltas)
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["end of ***"]
    assert (deltas[0].model, deltas[0].request_id) == ("***", "***")


def test_keeps_the_connection_after_an_error() -> None:
    with ChatServer(status(500), answer("ok")) as server:
        openai = provider(server)
        with pytest.raises(ProviderError):
            openai.chat_completion(HI)
        openai.chat_completion(HI)

    assert server.connections == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_that_names_the_other_host(code: int) -> None:
    with ChatServer(answer("stolen")) as thief:
        location = f"http://localhost:{thief.port}/v1?token=x"
        error = whole_error(status(code, b"", headers={"Location": location}))

    assert "redirects to localhost" in str(error)
    assert "token" not in str(error)
    assert thief.requests == []
    assert not error.retryable


# --- time and cancelling ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "match"),
    [
        pytest.param(raw(end="hold"), "nothing of the answer", id="silence before the headers"),
        pytest.param(raw(*[b"H", b"T", b"T"] * 100, pause_s=0.05), "nothing of the answer", id="drip of headers"),
        pytest.param(stream(end="hold", last_chunk=False), "nothing of the answer", id="silence after the headers"),
        pytest.param(stream(*[b": ping\n\n"] * 100, pause_s=0.05), "nothing of the answer", id="pings from the start"),
        pytest.param(stream(*[b"\n"] * 100, pause_s=0.05), "nothing of the answer", id="blank lines"),
        pytest.param(stream(BEGUN, end="hold", last_chunk=False), "the answer stopped", id="silence in the stream"),
        pytest.param(
            stream(BEGUN, *[b": ping\n\n"] * 100, pause_s=0.05), "the answer stopped", id="pings in the stream"
        ),
        pytest.param(stream(BEGUN, *[b"data:\n\n"] * 100, pause_s=0.05), "the answer stopped", id="empty events"),
        pytest.param(stream(BEGUN, *[b"d"] * 100, pause_s=0.05), "the answer stopped", id="drip of an event"),
        pytest.param(
            stream(BEGUN, *[b"d"] * 100, pause_s=0.05, chunked=False), "the answer stopped", id="unframed drip"
        ),
    ],
)
def test_limits_hold_whatever_drips_in(reply: Reply, match: str) -> None:
    error = stream_error(reply, timeouts=LATE if "stopped" in match else EARLY)

    assert isinstance(error, DeadlineError)
    assert match in str(error)
    assert error.partial_text == ("so far" if "stopped" in match else "")
    assert error.retryable == ("stopped" not in match)


@pytest.mark.parametrize(
    "reply",
    [
        raw(end="hold"),
        raw(*[b"H"] * 100, pause_s=0.05),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", *[b" "] * 100, pause_s=0.05),
    ],
    ids=["silence", "drip of headers", "drip of the body"],
)
def test_the_total_holds_for_a_whole_answer(reply: Reply) -> None:
    error = whole_error(reply, timeouts=Timeouts(total=0.3))

    assert isinstance(error, DeadlineError)
    assert "whole call" in str(error)
    assert not error.retryable


def test_the_total_holds_while_events_keep_coming() -> None:
    error = stream_error(
        stream(*[delta({"content": "x"})] * 200, pause_s=0.02), timeouts=Timeouts(first_event=5, idle=5, total=1)
    )

    assert isinstance(error, DeadlineError)
    assert error.partial_text.startswith("x")


def test_a_slow_consumer_does_not_make_the_service_look_idle() -> None:
    with ChatServer(stream(delta({"content": "a"}), delta({"content": "b"}), FINISH, DONE)) as server:
        pieces = provider(server, timeouts=Timeouts(first_event=10, idle=0.3, total=20)).stream_completion(HI)
        first = next(pieces)
        threading.Event().wait(0.5)

        assert first + "".join(pieces) == "ab"


def test_a_finished_answer_does_not_wait_for_the_end_of_its_stream() -> None:
    scope = Scope(30)
    with ChatServer(stream(delta({"content": "a"}), FINISH, end="hold", last_chunk=False)) as server:
        request = ChatRequest(messages=tuple(HI), stream=True, scope=scope)
        deltas = list(provider(server, timeouts=Timeouts()).deltas(request))

    assert deltas[-1].finish_reason == "stop"
    assert (scope.remaining_s() or 0) > 25


def cancelled(server: ChatServer, *, streaming: bool, ready: threading.Event) -> BaseException:
    """What a call raises that is cancelled from another thread once `ready` is set."""
    scope = Scope(30)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            list(provider(server).deltas(ChatRequest(messages=tuple(HI), stream=streaming, scope=scope)))
        except BaseException as error:
            caught.append(error)

    worker = threading.Thread(target=call)
    worker.start()
    assert ready.wait(5)
    scope.cancel()
    worker.join(2)
    assert not worker.is_alive()
    return caught[0]


@pytest.mark.parametrize("streaming", [True, False])
def test_cancels_a_call_that_waits_for_headers(streaming: bool) -> None:
    ready = threading.Event()

    def silent(handler: Any) -> None:
        ready.set()
        handler.hold()

    with ChatServer(silent) as server:
        assert isinstance(cancelled(server, streaming=streaming, ready=ready), Cancelled)
        assert server.left.wait(2)


def test_cancels_a_call_in_the_middle_of_a_stream() -> None:
    ready = threading.Event()

    def stuck(handler: Any) -> None:
        handler.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        handler.chunk(BEGUN)
        ready.set()
        handler.hold()

    with ChatServer(stuck) as server:
        assert isinstance(cancelled(server, streaming=True, ready=ready), Cancelled)
        assert server.left.wait(2)


def test_a_call_in_a_cancelled_scope_sends_nothing() -> None:
    scope = Scope(5)
    scope.cancel()
    with ChatServer(answer("ok")) as server:
        with pytest.raises(Cancelled):
            list(provider(server).deltas(ChatRequest(messages=tuple(HI), scope=scope)))
        assert server.requests == []


def test_a_call_whose_time_is_over_sends_nothing() -> None:
    with ChatServer(answer("ok")) as server:
        with pytest.raises(DeadlineError) as caught:
            list(provider(server).deltas(ChatRequest(messages=tuple(HI), scope=Scope(0))))
        assert server.requests == []
    assert not caught.value.sent


def test_leaving_a_stream_early_closes_its_connection() -> None:
    def endless(handler: Any) -> None:
        handler.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        handler.chunk(BEGUN)
        handler.hold()

    with ChatServer(endless) as server:
        with provider(server).stream_completion(HI) as pieces:  # type: ignore[attr-defined]
            next(pieces)
        assert server.left.wait(2)


# --- connections ------------------------------------------------------------------------------


def test_keeps_one_connection_over_calls_and_streams() -> None:
    with ChatServer(answer("a b c")) as server:
        openai = provider(server)
        for _ in range(3):
            openai.chat_completion(HI)
            list(openai.stream_completion(HI))

    assert server.connections == 1


def test_works_again_after_close() -> None:
    with ChatServer(answer("ok")) as server:
        openai = provider(server)
        openai.chat_completion(HI)
        openai.close()
        openai.chat_completion(HI)

    assert server.connections == 2


def test_can_have_each_connection_closed() -> None:
    with ChatServer(answer("ok")) as server:
        config = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)
        openai = OpenAIProvider(config, keep_alive=False)
        openai.chat_completion(HI)
        list(openai.stream_completion(HI))

    assert [request.headers["connection"] for request in server.requests] == ["close", "close"]
    assert server.connections == 2


def test_sixteen_threads_never_get_each_others_answers() -> None:
    def echo(handler: Any) -> None:
        answer(handler.received.body["messages"][0]["content"])(handler)

    wrong: list[str] = []
    with ChatServer(echo) as server:
        openai = provider(server)

        def work(name: int) -> None:
            for turn in range(10):
                mine = f"{name} {turn}"
                messages = [LLMMessage(role="user", content=mine)]
                got = openai.chat_completion(messages).content
                wrong.extend([] if got == mine else [got])
                got = "".join(openai.stream_completion(messages))
                wrong.extend([] if got == mine else [got])

        threads = [threading.Thread(target=work, args=(name,)) for name in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert wrong == []
    assert len(server.requests) == 320
    assert server.connections <= 16


def test_a_service_that_takes_the_request_and_leaves_may_be_asked_again() -> None:
    error = whole_error(raw())

    assert isinstance(error, TransportError)
    assert (error.sent, error.retryable) == (True, True)


def test_what_does_not_speak_http_is_not_asked_again() -> None:
    error = whole_error(raw(b"220 smtp.example.com ESMTP\r\n"))

    assert isinstance(error, TransportError)
    assert not error.retryable


def test_a_header_line_without_end_is_not_asked_again() -> None:
    error = whole_error(raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n{}"))

    assert isinstance(error, TransportError)
    assert not error.retryable
