"""Time limits that hold while a thread is blocked in a read, and cancelling it from another thread.

A `Guard` watches over one request. It knows when the request has to end and how its connection is
aborted; one shared daemon thread aborts what is overdue, `Scope.cancel` aborts at once. The blocked
thread then sees a broken connection, and `check` tells it why. Socket timeouts cannot do this: each
byte that drips in starts them anew.
"""

import math
import os
import threading
import time
from collections.abc import Callable

from flowcraft.core.errors import DeadlineError
from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts

Abort = Callable[["Guard"], None]
_LONG_S = 3600.0
# A connection that the service had closed before the request says so in a round trip; one that breaks later may have
# broken over a request that is being answered, and paid for.
_AT_ONCE_S = 1.0


class Guard:
    """One request under watch. `sent`, `answered` and `reused` are what its connection has seen."""

    def __init__(self, scope: Scope, timeouts: Timeouts, *, streamed: bool) -> None:
        self._scope = scope
        self._total = time.monotonic() + timeouts.total if scope.deadline is None else scope.deadline
        # A whole answer comes in one piece when it is written: for that there is only the total.
        self._first_s = timeouts.first_event if streamed else math.inf
        self._idle_s = timeouts.idle if streamed else math.inf
        self._due = math.inf
        self._abort: Abort | None = None
        self.waiting = True  # for the service; set it to False while it is our side that works
        self.overdue: str | None = None  # which limit is over
        self.trusted_s = 0.0  # a kept connection made before this (monotonic clock) will not do
        self.reused = False  # the connection has carried a request before
        self.sent = False  # bytes of the request may have left
        self._sent_s = math.inf
        self.answered = False  # a byte of the answer has come
        self.spoiled = False  # the connection may hold more than this answer: no other is to be read from it
        self.stopped = False  # the connection was broken by us, or will be as soon as there is one
        self.read: Callable[[int], bytes] | None = None  # reads on in a plain answer whose end is known, past urllib3
        self._forget = scope.on_cancel(self.abort)
        _watchdog.add(self)
        self.limit("connect", timeouts.connect)

    @property
    def broke_at_once(self) -> bool:
        """Whether, of a connection that has just broken, it must have been dead before the request left."""
        return self.reused and not self.answered and time.monotonic() - self._sent_s < _AT_ONCE_S

    def sending(self) -> None:
        """The connection is there, the request is about to leave."""
        self.sent, self._sent_s = True, time.monotonic()
        self.limit("first_event", self._first_s)

    def started(self) -> None:
        """The first event has come: from now on the limit is `idle`."""
        self.limit("idle", self._idle_s)

    def limit(self, what: str, seconds: float) -> None:
        """Begin a phase that may last `seconds`; `what` is its name in llm.timeouts."""
        # By then the watchdog looks at this guard anyway, and sees what is new.
        looked = self._due if self.waiting else math.inf
        self._limit = what
        self._limit_s = seconds
        self.resume()
        due = min(self._due, self._total)
        if due < looked:
            _watchdog.hurry(due)

    def resume(self) -> None:
        """Start the clock of the phase anew: from here on we wait for the service."""
        self._due = time.monotonic() + self._limit_s
        self.waiting = True

    def hold(self, abort: Abort) -> None:
        """From now on `abort(self)` breaks the connection; it must not block or raise."""
        self._abort = abort
        if self.stopped:  # before there was anything to break
            abort(self)

    def abort(self) -> None:
        """Break the connection; called from any thread."""
        self.stopped = True
        abort = self._abort
        if abort is not None:
            abort(self)

    def left_s(self) -> float:
        """Seconds left of the phase and of the whole; raises Cancelled or DeadlineError when there are none."""
        now = time.monotonic()
        self.expire(now)
        self.check()
        return min(self._due, self._total) - now

    def next_look(self, now: float) -> float:
        """When the watchdog has to look at this one again."""
        return min(self._due if self.waiting else now + self._limit_s, self._total)

    def expire(self, now: float) -> None:
        """If a limit is over, note which, and break the connection."""
        if self.overdue is None:
            if now >= self._total:
                self.overdue = "total"
            elif self.waiting and now >= self._due:
                self.overdue = self._limit
            else:
                return
        self.abort()

    def check(self) -> None:
        """Raise Cancelled or DeadlineError if the request was stopped."""
        self._scope.check()
        if self.overdue is not None:
            raise self._error(self.overdue)

    def close(self) -> None:
        """End the watch."""
        self._abort = self.read = None
        self._forget()
        _watchdog.remove(self)

    def _error(self, what: str) -> DeadlineError:
        limit = f"{self._limit_s:g} s"
        message = {
            "total": "the time for the whole call is over",
            "connect": f"no connection after {limit}",
            "first_event": f"nothing of the answer had come after {limit}",
            "idle": f"the answer stopped: nothing more came for {limit}",
        }[what]
        limits = "the timeout of the call, or llm.timeouts.total," if what == "total" else f"llm.timeouts.{what}"
        hint = f"raise {limits} if the service is only slow"
        return DeadlineError(message, sent=self.sent, retryable=what != "total", hint=hint)


class _Watchdog:
    """The thread that breaks overdue requests; started with the first one, shared by all."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._guards: set[Guard] = set()
        self._wake = math.inf  # when the thread looks next
        self._thread: threading.Thread | None = None

    def add(self, guard: Guard) -> None:
        # Without the lock, which all threads share: each operation of a set is one step for them.
        self._guards.add(guard)
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._changed:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="flowcraft-deadlines", daemon=True)
                thread.start()
                self._thread = thread

    def remove(self, guard: Guard) -> None:
        self._guards.discard(guard)

    def hurry(self, due: float) -> None:
        """Have the thread look no later than `due`; nearly always it would anyway, and is not woken."""
        with self._changed:
            if due < self._wake:
                self._wake = due
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                now = time.monotonic()
                self._wake = min((guard.next_look(now) for guard in list(self._guards)), default=math.inf)
                while (left := self._wake - time.monotonic()) > 0:
                    self._changed.wait(min(left, _LONG_S))
                guards = list(self._guards)
            now = time.monotonic()
            for guard in guards:
                guard.expire(now)
            with self._changed:
                # What is broken needs no further look, even if its thread takes long to notice.
                self._guards.difference_update([guard for guard in guards if guard.overdue])


_watchdog = _Watchdog()


def _after_fork() -> None:
    # Threads do not survive a fork, and a lock may have been held: start anew in the child.
    global _watchdog
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
