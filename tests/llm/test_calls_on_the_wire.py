"""Calls of the whole SDK on real sockets: retries, waits, Ctrl-C, forks, and many calls with many faults."""

import gc
import os
import signal
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fakes import settings_of
from servers import ChatServer, Handler, Reply, answer, raw, status, stream

from flowcraft.core.errors import FlowcraftError, ProviderError, RateLimitError, TransportError
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration

HELLO = [LLMMessage(role="user", content="hello")]


def sdk(server: ChatServer, *, retries: int = 2, timeouts: Timeouts | None = None) -> LLMIntegration:
    model = ModelSettings(
        name="m", provider="openai", model="m", base_url=server.base_url, timeouts=timeouts or Timeouts(total=30)
    )
    return LLMIntegration(settings_of(model, retries=retries), jitter=lambda: 0.0)


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 529])
def test_tries_again_what_may_pass(code: int) -> None:
    with ChatServer(status(code), status(code), answer("at last")) as server, sdk(server) as llm:
        assert llm.chat_completion(HELLO).content == "at last"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422, 501])
def test_does_not_try_again_what_will_not_pass(code: int) -> None:
    with ChatServer(status(code)) as server, sdk(server) as llm:
        with pytest.raises(ProviderError):
            llm.chat_completion(HELLO)
        assert len(server.requests) == 1


def test_the_service_may_decide_about_another_try() -> None:
    yes, no = {"x-should-retry": "true"}, {"x-should-retry": "false"}
    with ChatServer(status(409, headers=yes), status(500, headers=no)) as server, sdk(server) as llm:
        with pytest.raises(ProviderError) as caught:
            llm.chat_completion(HELLO)
        assert len(server.requests) == 2
    assert caught.value.status == 500


def test_a_spent_quota_is_not_asked_again() -> None:
    spent = {"error": {"message": "no credit", "code": "insufficient_quota"}}
    with ChatServer(status(429, spent, headers={"x-should-retry": "true"})) as server, sdk(server) as llm:
        with pytest.raises(RateLimitError):
            llm.chat_completion(HELLO)
        assert len(server.requests) == 1


def test_a_request_that_may_have_been_paid_for_is_repeated_once_only() -> None:
    with ChatServer(raw(b"")) as server, sdk(server, retries=5) as llm:
        with pytest.raises(TransportError) as caught:
            llm.chat_completion(HELLO)
        assert len(server.requests) == 2
    assert caught.value.sent


class Rows:
    """The books of a call: how each attempt began and ended."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def started(self, call: CallStarted) -> None:
        self.all.append(call.event)

    def finished(self, call: CallFinished) -> None:
        self.all.append("failed" if call.error else "answered")


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_what_went_out_on_a_dead_connection_is_asked_again_at_once_and_stands_in_the_books(
    end: Any, retries: int
) -> None:
    rows = Rows()
    with ChatServer(answer("a"), raw(end=end), answer("b")) as server, sdk(server, retries=retries) as llm:
        llm.chat_completion(HELLO)

        assert llm.chat_completion(HELLO, observer=rows).content == "b"
        assert (len(server.requests), server.connections) == (3, 2)
    assert rows.all == ["first", "failed", "retry", "answered"]


@pytest.mark.parametrize("retries", [0, 5])
def test_a_service_that_never_answers_on_a_kept_connection_is_asked_twice_at_most(retries: int) -> None:
    rows = Rows()
    with ChatServer(answer("a"), raw()) as server, sdk(server, retries=retries) as llm:
        llm.chat_completion(HELLO)
        with pytest.raises(TransportError):
            llm.chat_completion(HELLO, observer=rows)
        assert len(server.requests) == 3
    assert rows.all == ["first", "failed", "retry", "failed"]


def test_a_wait_that_is_too_long_ends_the_call_at_once_and_is_named() -> None:
    with ChatServer(status(429, headers={"Retry-After": "7300"})) as server, sdk(server) as llm:
        with pytest.raises(RateLimitError) as caught:
            llm.chat_completion(HELLO)
        assert len(server.requests) == 1
    assert caught.value.hint == "the service asks to wait 2.0 h before the next try"


@pytest.mark.parametrize("header", ["-5", "abc", "1e9", "Thu, 99 Foo 2099", "9" * 400, "٣"])
def test_a_nonsensical_wait_is_ignored(header: str) -> None:
    # As it comes on the wire: bytes that need not be ASCII.
    reply = raw(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + header.encode() + b"\r\n\r\n", end="keep")
    with ChatServer(reply, answer("at last")) as server, sdk(server) as llm:
        assert llm.chat_completion(HELLO).content == "at last"


def test_a_service_that_is_down_is_not_hammered_by_many_calls() -> None:
    with ChatServer(status(503)) as server, sdk(server) as llm:
        for _ in range(60):
            with pytest.raises(ProviderError):
                llm.chat_completion(HELLO)
        # 60 calls and the 35 retries that the quota of a client pays for, not 120.
        assert len(server.requests) == 60 + 500 // 14


CTRL_C = """
import sys
sys.path[:0] = sys.argv[3:]
from pathlib import Path
from flowcraft.core.values import LLMSettings, ModelSettings, Settings
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.integration import LLMIntegration

model = ModelSettings(name="m", provider="openai", model="m", base_url=sys.argv[1])
settings = Settings(llm=LLMSettings(cheap_models=("m",), expensive_models=("m",), expensive_stages=(),
                                    qwen_oauth_path=Path("none"), models={"m": model}))
hello = [LLMMessage(role="user", content="hello")]
with LLMIntegration(settings) as llm:
    try:
        if sys.argv[2] == "stream":
            list(llm.stream_completion(hello))
        else:
            llm.chat_completion(hello)
    except KeyboardInterrupt:
        sys.exit(77)
"""


@pytest.mark.parametrize("way", ["stream", "whole"])
@pytest.mark.parametrize("begun", [True, False])
def test_ctrl_c_ends_a_call_that_waits_for_the_service(way: str, begun: bool) -> None:
    ready = threading.Event()

    def stuck(handler: Handler) -> None:
        if begun:
            handler.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        ready.set()
        handler.hold()

    with ChatServer(stuck) as server:
        child = subprocess.Popen([sys.executable, "-c", CTRL_C, server.base_url, way, *sys.path])
        assert ready.wait(30)
        child.send_signal(signal.SIGINT)

        assert child.wait(10) == 77
        assert server.left.wait(5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_threads_are_calling_works_on_its_own() -> None:
    def echo(handler: Handler) -> None:
        answer(handler.received.body["messages"][0]["content"])(handler)

    def ask(llm: LLMIntegration, who: str, times: int) -> bool:
        wanted = [f"{who} {number}" for number in range(times)]
        return wanted == [llm.chat_completion([LLMMessage("user", word)]).content for word in wanted]

    with ChatServer(echo) as server, sdk(server) as llm, ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, llm, f"thread {number}", 40) for number in range(16)]
        children = []
        for number in range(8):
            child = os.fork()
            if not child:
                good = False
                try:
                    good = ask(llm, f"child {number}", 20)
                finally:
                    os._exit(0 if good else 1)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]

        assert codes == [0] * 8
        assert all(future.result() for future in asked)


class Ids:
    """The names of the attempts that were told of."""

    def __init__(self) -> None:
        self.all: list[str] = []

    def started(self, call: CallStarted) -> None:
        self.all.append(call.id)

    def finished(self, call: CallFinished) -> None:
        assert call.id in self.all


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_no_two_attempts_have_the_same_id_in_threads_clients_and_forked_children() -> None:
    ids = Ids()
    with ChatServer(answer("a")) as server, sdk(server) as llm, sdk(server) as other, ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(one.chat_completion, HELLO, observer=ids) for one in (llm, other) for _ in range(100)]
        for future in asked:
            future.result()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            mine = Ids()
            try:
                llm.chat_completion(HELLO, observer=mine)
                os.write(writing, mine.all[0].encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        ids.all.append(os.read(reading, 100).decode())
        llm.chat_completion(HELLO, observer=ids)

    assert len(set(ids.all)) == len(ids.all) == 202


@pytest.mark.parametrize("way", ["stream", "whole"])
@pytest.mark.parametrize(
    "reply",
    [
        raw(b""),
        status(503),
        status(200, b"<html>"),
        stream(b"data: {}\n\n", last_chunk=False, end="reset"),
        stream(b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'),
        raw(b"SSH-2.0\r\n"),
    ],
    ids=["closed", "refused", "page", "cut", "unfinished", "no HTTP"],
)
def test_a_failed_call_leaves_nothing_to_the_garbage_collector(reply: Reply, way: str) -> None:
    gc.collect()
    gc.disable()
    try:
        with ChatServer(reply) as server:
            llm = sdk(server)
            with pytest.raises(ProviderError) as caught:
                list(llm.stream_completion(HELLO)) if way == "stream" else llm.chat_completion(HELLO)
            left = weakref.ref(caught.value)
            del caught
            llm.close()
            assert left() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_many_calls_with_many_faults_leave_nothing_behind() -> None:
    faults = [status(503), raw(b""), stream(b'data: {"choi', last_chunk=False, end="close"), status(200, b"<html>")]
    turn = threading.Lock()
    count = [0]

    def service(handler: Handler) -> None:
        with turn:
            count[0] += 1
            number = count[0]
        (faults[number // 10 % len(faults)] if number % 10 == 0 else answer("ok"))(handler)

    def call(number: int) -> Any:
        try:
            if number % 2:
                return llm.chat_completion(HELLO).content
            return "".join(llm.stream_completion(HELLO))
        except FlowcraftError:
            return None

    with ChatServer(service) as server, sdk(server) as llm, ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(200)))
        before = (len(os.listdir("/dev/fd")), threading.active_count())
        answers = list(pool.map(call, range(3000)))

    assert answers.count("ok") > 2500
    assert set(answers) <= {"ok", None}
    assert len(os.listdir("/dev/fd")) <= before[0]
    assert threading.active_count() <= before[1]
