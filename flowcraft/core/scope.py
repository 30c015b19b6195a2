"""How long a call may take, and how another thread stops it.

A scope is the one object of a call that two threads touch: the caller works inside it, anybody may
cancel it. What blocks (a socket, a child process, a wait) registers how to be woken with `on_cancel`.
"""

import threading
import time
from collections.abc import Callable
from functools import partial

from flowcraft.core.errors import Cancelled

_LONGEST_S = 365 * 86400.0  # a longer wait than some 292 years is more than a lock takes, and nobody needs it


class Scope:
    """A total time limit in seconds (None: no limit) and a cancel switch; thread-safe.

    A scope made with a `parent` ends with it: it is cancelled when the parent is, and its
    limit is never later than the parent's. `cancelled` is for reading.
    """

    # One is made for each call: no Event, which is three locks, and no method where an attribute does.
    __slots__ = ("_callbacks", "_leave", "_lock", "cancelled", "deadline")

    def __init__(self, timeout_s: float | None = None, *, parent: "Scope | None" = None) -> None:
        self.deadline: float | None = None if timeout_s is None else time.monotonic() + min(timeout_s, _LONGEST_S)
        self.cancelled = False
        self._lock = threading.Lock()
        self._callbacks: dict[object, Callable[[], None]] = {}
        self._leave: list[Callable[[], object]] = []
        if parent:
            self.join(parent)

    def join(self, parent: "Scope") -> None:
        """End with `parent` from now on, too."""
        if parent.deadline is not None and (self.deadline is None or parent.deadline < self.deadline):
            self.deadline = parent.deadline
        self._leave.append(parent.on_cancel(self.cancel))

    def close(self) -> None:
        """Leave the parents; call it when the work of this scope is over, from any thread and again."""
        leave, self._leave = self._leave, []
        for take_back in leave:
            take_back()

    def cancel(self) -> None:
        """Stop what runs in this scope; returns at once, may be called from any thread and again."""
        with self._lock:
            self.cancelled = True
            callbacks = list(self._callbacks.items())
        for token, wake in callbacks:
            wake()
            # Only now: whoever is torn out of here by Ctrl-C can cancel again, and nobody sleeps on.
            self._callbacks.pop(token, None)

    def remaining_s(self) -> float | None:
        """Seconds left, never below 0; None without a limit."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @property
    def expired(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Raise Cancelled if somebody has cancelled."""
        if self.cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than the limit; raise Cancelled as soon as somebody cancels."""
        left = self.remaining_s()
        if seconds > 0:
            woken = threading.Event()
            take_back = self.on_cancel(woken.set)
            try:
                woken.wait(seconds if left is None else min(seconds, left))
            finally:
                take_back()
        self.check()

    def on_cancel(self, wake: Callable[[], None]) -> Callable[[], object]:
        """Have `wake` called on cancel (at once if that has happened); returns how to take it back.

        `wake` runs in the cancelling thread, must not block and must not raise.
        """
        token = object()
        with self._lock:
            if not self.cancelled:
                self._callbacks[token] = wake
                return partial(self._callbacks.pop, token, None)
        wake()
        return _nothing


def _nothing() -> None:
    """There is nothing to take back."""
