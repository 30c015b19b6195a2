"""Turns of a model: how many at once, how many a minute, in which order, and when waiting ends."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from fakes import PATIENCE_S, Gate, ScriptedProvider, settings_of

from flowcraft.core.errors import Cancelled, DeadlineError, TransportError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.limits import Limiter

HELLO = [LLMMessage(role="user", content="hello")]


class Clock:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float | None] = []

    def pause(self, event: threading.Event, seconds: float | None) -> None:
        self.waits.append(seconds)
        self.now += seconds or 0.0


class Waiting:
    """A pause that tells the test that somebody waits, and then really waits."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)

    def __call__(self, event: threading.Event, seconds: float | None) -> None:
        self.begun.release()
        event.wait(PATIENCE_S if seconds is None else min(seconds, PATIENCE_S))


@contextmanager
def queued(limiter: Limiter, waiting: Waiting, order: list[str], name: str, scope: Scope) -> Iterator[threading.Thread]:
    """A thread that waits for its turn and then writes its name."""

    def work() -> None:
        try:
            with limiter.turn(scope):
                order.append(name)
        except (Cancelled, DeadlineError) as error:
            order.append(f"{name}: {type(error).__name__}")

    worker = threading.Thread(target=work)
    worker.start()
    assert waiting.begun.acquire(timeout=PATIENCE_S)
    yield worker
    worker.join(PATIENCE_S)
    assert not worker.is_alive()


def test_no_more_than_allowed_are_under_way() -> None:
    waiting, order = Waiting(), list[str]()
    limiter = Limiter(2, None, pause=waiting)
    with ExitStack() as stack, limiter.turn(Scope()), limiter.turn(Scope()):
        for name in "abcdef":
            stack.enter_context(queued(limiter, waiting, order, name, Scope()))
        assert order == []

    assert sorted(order) == list("abcdef")


def test_one_at_a_time_is_strictly_first_come_first_served() -> None:
    waiting, order = Waiting(), list[str]()
    limiter = Limiter(1, None, pause=waiting)
    with ExitStack() as stack, limiter.turn(Scope()):
        for name in "abcdef":
            stack.enter_context(queued(limiter, waiting, order, name, Scope()))

    assert order == list("abcdef")


def test_no_more_than_allowed_start_in_any_minute() -> None:
    clock = Clock()
    limiter = Limiter(None, 3, clock=lambda: clock.now, pause=clock.pause)
    starts = []
    for number in range(10):
        with limiter.turn(Scope()):
            starts.append(clock.now)
        clock.now += 5 if number < 3 else 0

    assert starts == [1000, 1005, 1010, 1060, 1065, 1070, 1120, 1125, 1130, 1180]
    assert all(later - earlier >= 60 for earlier, later in zip(starts, starts[3:], strict=False))


def test_a_turn_that_comes_too_late_is_refused_at_once() -> None:
    clock = Clock()
    limiter = Limiter(None, 1, clock=lambda: clock.now, pause=clock.pause)
    with limiter.turn(Scope()):
        pass

    with pytest.raises(DeadlineError, match=r"allow the next request in 60\.0 s") as caught, limiter.turn(Scope(30)):
        pass

    assert clock.waits == []
    assert not caught.value.sent


def test_who_has_no_more_time_gives_up_and_the_next_one_goes_on() -> None:
    waiting, order = Waiting(), list[str]()
    limiter = Limiter(1, None, pause=waiting)
    with ExitStack() as stack, limiter.turn(Scope()):
        late = Scope(PATIENCE_S)
        thread = stack.enter_context(queued(limiter, waiting, order, "late", late))
        stack.enter_context(queued(limiter, waiting, order, "next", Scope()))
        late.deadline = 0.0
        limiter._queue[0].set()
        thread.join(PATIENCE_S)

    assert order == ["late: DeadlineError", "next"]


def test_cancelling_ends_the_wait_and_the_next_one_goes_on() -> None:
    waiting, order = Waiting(), list[str]()
    limiter = Limiter(1, None, pause=waiting)
    with ExitStack() as stack, limiter.turn(Scope()):
        scope = Scope()
        first = stack.enter_context(queued(limiter, waiting, order, "first", scope))
        stack.enter_context(queued(limiter, waiting, order, "second", Scope()))
        scope.cancel()
        first.join(PATIENCE_S)
        assert order == ["first: Cancelled"]

    assert order == ["first: Cancelled", "second"]


def test_a_failure_gives_its_place_back() -> None:
    limiter = Limiter(1, None)
    for _ in range(3):
        with pytest.raises(TransportError), limiter.turn(Scope(PATIENCE_S)):
            raise TransportError("broken")


# --- in the SDK -------------------------------------------------------------------------------


def sdk(model: ScriptedProvider, observer: "Books | None" = None, **limits: int) -> LLMIntegration:
    config = replace(ModelSettings(name="m", provider="openai", model="m"), **limits)  # type: ignore[arg-type]
    return LLMIntegration(settings_of(config), providers={"m": model}, observer=observer, jitter=lambda: 0.0)


class Books:
    def __init__(self) -> None:
        self.told: list[object] = []

    def started(self, call: CallStarted) -> None:
        self.told.append(call.event)

    def finished(self, call: CallFinished) -> None:
        self.told.append(type(call.error).__name__)


def test_threads_share_the_places_of_a_model() -> None:
    gates = [Gate(), Gate()]
    model = ScriptedProvider(gates[0], gates[1], "third")
    with sdk(model, max_concurrency=2) as llm:
        workers = [threading.Thread(target=llm.chat_completion, args=(HELLO,)) for _ in range(2)]
        for worker, gate in zip(workers, gates, strict=True):
            worker.start()
            gate.reached()

        with pytest.raises(DeadlineError, match="waited for its turn"):
            llm.chat_completion(HELLO, timeout=0.05)
        assert len(model.requests) == 2

        gates[0].open()
        assert llm.chat_completion(HELLO).content == "third"
        gates[1].open()
        for worker in workers:
            worker.join(PATIENCE_S)


def test_a_stream_keeps_its_place_until_it_is_left() -> None:
    with sdk(ScriptedProvider(["one ", "two"], "after"), max_concurrency=1) as llm:
        with llm.stream_completion(HELLO) as pieces:
            assert next(pieces) == "one "
            with pytest.raises(DeadlineError):
                llm.chat_completion(HELLO, timeout=0.05)

        assert llm.chat_completion(HELLO).content == "after"


def test_each_attempt_counts_as_a_request() -> None:
    model = ScriptedProvider(TransportError("down", retryable=True, sent=False), "never asked")
    with sdk(model, requests_per_minute=1) as llm, pytest.raises(DeadlineError, match="allow the next request"):
        llm.chat_completion(HELLO, timeout=20)

    assert len(model.requests) == 1


def test_the_books_do_not_know_of_a_call_that_never_left() -> None:
    books = Books()
    with sdk(ScriptedProvider("first"), books, requests_per_minute=1) as llm:
        llm.chat_completion(HELLO)
        with pytest.raises(DeadlineError):
            llm.chat_completion(HELLO, timeout=1)

    assert books.told == ["first", "NoneType"]
