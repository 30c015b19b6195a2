"""How often a model is asked at once and per minute, by all threads that share an LLMIntegration.

A caller waits for its turn within its own scope: its deadline and its cancel hold. Turns are given in the
order of asking. The minute is a sliding one: never more requests than allowed in any 60 seconds.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowcraft.core.errors import DeadlineError
from flowcraft.core.scope import Scope

MINUTE_S = 60.0


class Limiter:
    """The limits of one model; None is no limit. `clock` and `pause` are for tests."""

    def __init__(
        self,
        concurrency: int | None,
        per_minute: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Event, float | None], object] = threading.Event.wait,
    ) -> None:
        self._places = math.inf if concurrency is None else concurrency
        self._per_minute = per_minute
        self._clock = clock
        self._pause = pause
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()
        self._busy = 0
        self._starts: deque[float] = deque(maxlen=per_minute or 0)  # of the latest requests

    @contextmanager
    def turn(self, scope: Scope) -> Iterator[None]:
        """Wait for a turn, and hold a place until the end of the block.

        Raises Cancelled, and DeadlineError as soon as it is known that the turn comes too late.
        """
        self._enter(scope)
        try:
            yield
        finally:
            with self._lock:
                self._busy -= 1
                self._wake_first()

    def _enter(self, scope: Scope) -> None:
        mine = threading.Event()
        with self._lock:
            self._queue.append(mine)
        forget = scope.on_cancel(mine.set)
        try:
            while (wait_s := self._wait_s(mine)) > 0:
                scope.check()
                self._pause(mine, _within(scope, wait_s))
                mine.clear()
            scope.check()
            self._take()
        except BaseException:
            with self._lock:
                self._queue.remove(mine)
                self._wake_first()
            raise
        finally:
            forget()

    def _wait_s(self, mine: threading.Event) -> float:
        """How long to wait at least; infinite where somebody else has to go first."""
        with self._lock:
            if self._queue[0] is not mine or self._busy >= self._places:
                return math.inf
            if self._per_minute is None or len(self._starts) < self._per_minute:
                return 0.0
            return self._starts[0] + MINUTE_S - self._clock()

    def _take(self) -> None:
        # Only the first of the queue comes here, and nobody else can have taken its place.
        with self._lock:
            self._queue.popleft()
            self._busy += 1
            self._starts.append(self._clock())
            self._wake_first()

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].set()


def _within(scope: Scope, wait_s: float) -> float | None:
    left_s = scope.remaining_s()
    if left_s is not None and (left_s <= 0 or left_s < wait_s < math.inf):
        raise DeadlineError(
            f"the limits of the model allow the next request in {wait_s:.1f} s, which is too late for this call"
            if wait_s < math.inf
            else "the time for the whole call is over while it waited for its turn",
            sent=False,
            hint="ask less at once, raise max_concurrency or requests_per_minute of the model, or the timeout",
        )
    if left_s is not None:
        return min(wait_s, left_s)
    return None if wait_s == math.inf else wait_s
