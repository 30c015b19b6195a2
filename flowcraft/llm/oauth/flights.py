"""Work that many threads want at the same moment is done once, and to its end.

It runs in a thread of its own, so that a caller who is cancelled (or hit by Ctrl-C) leaves at once while
an answer that is already on its way is still received and saved.
"""

import copy
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from flowcraft.core.errors import DeadlineError, FlowcraftError
from flowcraft.core.scope import Scope

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self) -> None:
        self.result: Future[T] = Future()
        self.scope = Scope()  # ends when nobody waits any more
        self.waiting = 0


class Flights(Generic[T]):
    """Running pieces of work by key; callers of a key that is running share its result or its error."""

    def __init__(self) -> None:
        self._forget()
        # In a forked child the threads that would land these flights do not exist.
        os.register_at_fork(after_in_child=self._forget)

    def join(self, key: str, work: Callable[[Scope], T], scope: Scope) -> T:
        """The result of `work(its own scope)`, which is started unless it runs already.

        Raises Cancelled or DeadlineError as soon as `scope` ends. `work` is asked to stop (by its
        scope) when the last caller has left.
        """
        with self._lock:
            flight = self._running.get(key)
            if flight is None:
                flight = self._running[key] = _Flight()
                threading.Thread(target=self._fly, args=(key, flight, work), name="flowcraft-refresh").start()
            flight.waiting += 1
        try:
            _wait(flight.result, scope)
        finally:
            self._leave(key, flight)
        error = flight.result.exception()
        if isinstance(error, FlowcraftError):
            raise copy.copy(error) from error  # each caller notes its own facts on its own error
        return flight.result.result()

    def _fly(self, key: str, flight: _Flight[T], work: Callable[[Scope], T]) -> None:
        try:
            result = work(flight.scope)
        except BaseException as error:
            self._land(key, flight)
            flight.result.set_exception(error)
        else:
            self._land(key, flight)
            flight.result.set_result(result)

    def _leave(self, key: str, flight: _Flight[T]) -> None:
        with self._lock:
            flight.waiting -= 1
            abandoned = flight.waiting == 0 and not flight.result.done()
            if abandoned and self._running.get(key) is flight:
                del self._running[key]  # whoever comes now gets a flight that nobody has given up
        if abandoned:
            flight.scope.cancel()

    def _land(self, key: str, flight: _Flight[T]) -> None:
        with self._lock:
            if self._running.get(key) is flight:
                del self._running[key]

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, _Flight[T]] = {}


def _wait(result: "Future[T]", scope: Scope) -> None:
    woken = threading.Event()
    take_back = scope.on_cancel(woken.set)
    result.add_done_callback(lambda _: woken.set())
    try:
        woken.wait(scope.remaining_s())
    finally:
        take_back()
    scope.check()
    if not result.done():
        raise DeadlineError("no time left while the login was refreshed", sent=False, hint="raise the timeout")
