"""What a service can do wrong, byte by byte: for each fault one typed error, or the whole answer; in both formats.

Faults that have a test of their own where their part is tested (`test_http`, `test_openai`, `test_status`, ...)
are not here again.
"""

import json
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from fakes import settings_of
from servers import ChatServer, Handler, Reply, raw

from flowcraft.core.errors import DeadlineError, IncompleteStream, ProviderError, ReplyError, TransportError
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.integration import LLMIntegration

KEY, PROMPT = "canary-key-0123456789", "canary-prompt-0123456789"
TEXT = "Hello wörld"


def openai_body(streamed: bool) -> bytes:
    if not streamed:
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice]}).encode()
    pieces: list[dict[str, Any]] = [{"delta": {"content": "Hello "}}, {"delta": {"content": "wörld"}}]
    pieces += [{"delta": {}, "finish_reason": "stop"}]
    return b"".join(b"data: " + json.dumps({"choices": [piece]}).encode() + b"\n\n" for piece in pieces) + DONE


def anthropic_body(streamed: bool) -> bytes:
    if not streamed:
        content = [{"type": "text", "text": TEXT}]
        return json.dumps({"type": "message", "content": content, "stop_reason": "end_turn"}).encode()
    events: list[dict[str, Any]] = [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}} for word in ("Hello ", "wörld")
    ]
    events += [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}]
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


DONE = b"data: [DONE]\n\n"
BODIES: dict[str, Callable[[bool], bytes]] = {"openai": openai_body, "anthropic": anthropic_body}


def sdk(server: ChatServer, provider: str = "openai", *, total: float = 20) -> LLMIntegration:
    model = ModelSettings(
        name="m",
        provider=provider,
        model="m",
        base_url=server.base_url,
        api_key_env="FAULTS_KEY",
        timeouts=Timeouts(total=total),
    )
    return LLMIntegration(settings_of(model), jitter=lambda: 0.0)


def ask(llm: LLMIntegration, streamed: bool) -> str:
    messages = [LLMMessage(role="user", content=PROMPT)]
    return "".join(llm.stream_completion(messages)) if streamed else llm.chat_completion(messages).content


def kind_of(streamed: bool) -> bytes:
    return b"Content-Type: text/event-stream" if streamed else b"Content-Type: application/json"


Faulty = Callable[[bytes, bytes], Reply]
"""From the header with the type and a good body: the reply with a fault."""


def sized(kind: bytes, body: bytes, *more: bytes, status: bytes = b"200 OK", before: bytes = b"") -> bytes:
    lines = [b"HTTP/1.1 " + status, kind, b"Content-Length: %d" % len(body), *more]
    return before + b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(kind: bytes, coded: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n" + coded


def chunk(body: bytes, sign: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(body), sign, body)


# Odd, but whole answers: name -> the bytes on the socket.
WHOLE: dict[str, Callable[[bytes, bytes], bytes]] = {
    "continue": lambda kind, body: sized(kind, body, before=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": lambda kind, body: sized(kind, body, before=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "processing twice": lambda kind, body: sized(kind, body, before=b"HTTP/1.1 102 Processing\r\n\r\n" * 2),
    "chunk extensions and trailers": lambda kind, body: chunked(
        kind, chunk(body, b';a="b;c";d') + b"000;last\r\nX-Digest: 0\r\nX-More: 1\r\n\r\n"
    ),
    "chunks of one byte": lambda kind, body: chunked(
        kind, b"".join(chunk(body[at : at + 1]) for at in range(len(body))) + b"0\r\n\r\n"
    ),
    "a length and chunks": lambda kind, body: chunked(kind + b"\r\nContent-Length: 5", chunk(body) + b"0\r\n\r\n"),
    "the same length twice": lambda kind, body: sized(kind, body, b"Content-Length: %d" % len(body)),
    "a folded header": lambda kind, body: sized(kind + b";\r\n charset=utf-8", body),
    "lines that end in LF": lambda kind, body: sized(kind, body).replace(b"\r\n", b"\n"),
    "an unknown encoding": lambda kind, body: sized(kind, body, b"Content-Encoding: banana"),
    "HTTP/1.0": lambda kind, body: b"HTTP/1.0 200 OK\r\n" + kind + b"\r\n\r\n" + body,
    "status 203": lambda kind, body: sized(kind, body, status=b"203 Transformed"),
    "a BOM": lambda kind, body: sized(kind, b"\xef\xbb\xbf" + body),
}

# Name -> the bytes on the socket, how often it is asked, the kind of error and a word of it.
BROKEN: dict[str, tuple[Callable[[bytes, bytes], bytes], int, type[ProviderError], str]] = {
    "two lengths": (
        lambda kind, body: sized(kind, body, b"Content-Length: 5"),
        1,
        TransportError,
        "does not speak HTTP",
    ),
    "another protocol": (
        lambda kind, body: sized(kind, body).replace(b"HTTP/1.1", b"HTTP/2.0"),
        1,
        TransportError,
        "does not speak HTTP",
    ),
    "switching protocols": (
        lambda kind, body: b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        1,
        ProviderError,
        "refused the request",
    ),
    "more headers than are read": (
        lambda kind, body: sized(kind, body, b"X-Many: 1\r\n" * 100),
        1,
        TransportError,
        "more than 100 headers",
    ),
    "a chunk size without end": (
        lambda kind, body: chunked(kind, b"5;" + b"a" * 70_000),
        1,
        TransportError,
        "does not speak HTTP",
    ),
    "a negative chunk size": (
        lambda kind, body: chunked(kind, b"-5\r\nabc"),
        1,
        TransportError,
        "does not speak HTTP",
    ),
    "a chunk longer than its size": (
        lambda kind, body: chunked(kind, b"5\r\n" + body + b"\r\n0\r\n\r\n"),
        1,
        TransportError,
        "does not speak HTTP",
    ),
    "a cut chunk": (lambda kind, body: chunked(kind, b"ffff\r\n" + body[:20]), 2, IncompleteStream, "was cut off"),
    "nothing": (lambda kind, body: sized(kind, b""), 2, TransportError, "nothing|before it had begun"),
    "a cut header": (
        lambda kind, body: b"HTTP/1.1 200 OK\r\n" + kind + b"\r\nX-Ha",
        2,
        TransportError,
        "nothing|before it",
    ),
    "an address that is none": (
        lambda kind, body: sized(kind, body, b"Location: http://[::1/\x1b[31m", status=b"307 Moved"),
        1,
        TransportError,
        "redirects to an address that is none",
    ),
    "not modified": (
        lambda kind, body: b"HTTP/1.1 304 Not Modified\r\n\r\n",
        1,
        ProviderError,
        "refused the request",
    ),
    "status 600": (lambda kind, body: sized(kind, body, status=b"600 Odd"), 1, ProviderError, "refused the request"),
    "status 505": (lambda kind, body: sized(kind, body, status=b"505 Odd"), 1, ProviderError, "the service failed"),
}


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", WHOLE)
def test_reads_an_answer_that_is_odd_but_whole(
    fault: str, provider: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTS_KEY", KEY)
    reply = raw(WHOLE[fault](kind_of(streamed), BODIES[provider](streamed)))
    with ChatServer(reply) as server, sdk(server, provider) as llm:
        assert ask(llm, streamed) == TEXT
        assert len(server.requests) == 1


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_is_one_typed_error(
    fault: str, provider: str, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAULTS_KEY", KEY)
    write, times, kind, word = BROKEN[fault]
    reply = raw(write(kind_of(streamed), BODIES[provider](streamed)))
    with ChatServer(reply) as server, sdk(server, provider) as llm:
        with pytest.raises(ProviderError, match=word) as caught:
            ask(llm, streamed)
        assert len(server.requests) == times

    error = caught.value
    assert isinstance(error, kind)
    assert error.hint
    assert TEXT.startswith(error.partial_text)
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert KEY not in shown
    assert PROMPT not in shown


def test_an_event_inside_a_large_slow_chunk_is_handed_out_when_it_is_there() -> None:
    first, rest = threading.Event(), threading.Event()
    body = openai_body(True)
    cut = body.index(b"\n\n") + 2

    def slow(handler: Handler) -> None:
        handler.write(chunked(kind_of(True), b"10000\r\n" + body[:cut]))
        handler.wait(first)
        handler.write(body[cut:] + b"\n" * (0x10000 - len(body)) + b"\r\n0\r\n\r\n")
        rest.set()

    with ChatServer(slow) as server, sdk(server) as llm:
        stream = llm.stream_completion([LLMMessage(role="user", content=PROMPT)])
        assert next(stream) == "Hello "
        assert not rest.is_set()
        first.set()
        assert "".join(stream) == "wörld"


def wrong_everywhere(value: Any, wrong: Sequence[Any]) -> list[Any]:
    """Copies of a JSON value, each with one of its parts replaced by something else."""
    copies = list(wrong)
    if isinstance(value, dict):
        copies += [{**value, name: bad} for name in value for bad in wrong_everywhere(value[name], wrong)]
        copies += [{name: part for name, part in value.items() if name != left} for left in value]
    if isinstance(value, list):
        copies += [
            [*value[:at], bad, *value[at + 1 :]]
            for at in range(len(value))
            for bad in wrong_everywhere(value[at], wrong)
        ]
    return copies


WRONG = [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [[]], ["x"], [{}], {"a": 1}, 10**400, "\ud800"]


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_wrong_type_anywhere_in_a_whole_answer_is_an_answer_or_a_typed_error(provider: str) -> None:
    good = json.loads(BODIES[provider](False))
    good["usage"] = {"prompt_tokens": 1, "completion_tokens": 2, "input_tokens": 1, "output_tokens": 2}
    bodies = [json.dumps(bad).encode() for bad in wrong_everywhere(good, WRONG)]
    outcomes = []
    with ChatServer(*(raw(sized(kind_of(False), body), end="keep") for body in bodies)) as server:
        with sdk(server, provider) as llm:
            model = llm.provider(llm.choose().model)
            for _ in bodies:
                try:
                    answer = model.chat_completion([LLMMessage(role="user", content="x")])
                    tokens = (answer.usage and answer.usage.completion_tokens) or 0
                    outcomes.append((answer.content, 0 <= tokens < 2**53))
                except ProviderError as error:
                    outcomes.append((type(error).__name__, bool(error.hint)))
        assert len(server.requests) == len(bodies)

    kinds = {"ReplyError", "TransportError", "IncompleteStream", "ProviderError"}
    assert set(outcomes) <= {(answer, True) for answer in {TEXT, "", "x", "\ufffd", *kinds}}


@pytest.mark.parametrize(
    ("provider", "body"),
    [
        ("openai", {"choices": [{"message": "x", "finish_reason": "stop"}]}),
        ("openai", {"choices": [{"message": {"content": {}}, "finish_reason": "stop"}]}),
        ("openai", {"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
        ("openai", {"choices": [{"message": None, "finish_reason": "stop"}]}),
        ("openai", {"choices": [{"finish_reason": "stop"}]}),
        ("openai", {"choices": []}),
        ("anthropic", {"content": [1], "stop_reason": "end_turn"}),
        ("anthropic", {"content": [{"type": "text", "text": 0}], "stop_reason": "end_turn"}),
        ("anthropic", {"content": None, "stop_reason": "end_turn"}),
    ],
)
def test_something_else_in_place_of_the_text_is_no_empty_answer(provider: str, body: dict[str, Any]) -> None:
    with ChatServer(raw(sized(kind_of(False), json.dumps(body).encode()))) as server, sdk(server, provider) as llm:
        with pytest.raises(ReplyError) as caught:
            ask(llm, False)
        assert len(server.requests) == 1
    assert caught.value.hint


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_interim_answers_without_end_are_given_up(streamed: bool) -> None:
    def endless(handler: Handler) -> None:
        try:
            while not handler.server.owner.stopping.is_set():
                handler.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)
        except OSError:
            handler.close_connection = True

    with ChatServer(endless) as server, sdk(server, total=0.3) as llm, pytest.raises(DeadlineError):
        ask(llm, streamed)


def test_an_anthropic_stream_may_lack_its_last_blank_line() -> None:
    body = anthropic_body(True).split(b'data: {"type": "message_stop"}')[0].rstrip(b"\n")
    with ChatServer(raw(sized(kind_of(True), body))) as server, sdk(server, "anthropic") as llm:
        assert ask(llm, True) == TEXT
