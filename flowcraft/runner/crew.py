"""The workers of one run: tasks go out to threads, outcomes come back, and one thread at a time goes on with the run.

The state of a run has no locks of its own: only who has the turn touches it. That is the caller's thread. While it
sleeps, and there is nobody to be told anything, the worker that lands takes the turn itself and goes on with what
comes next: two changes of threads for each stage would cost more than the stage.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import NamedTuple

from flowcraft.core.scope import Scope
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.books import Account
from flowcraft.runner.events import Event
from flowcraft.runner.flow import End
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.stages import execute
from flowcraft.runner.work import Task

_LOOK_S = 0.2  # how late Ctrl-C is noticed that came at a bad moment


class Launch(NamedTuple):
    """A task on its way: what it may use, and who is told how it has ended."""

    task: Task
    end: End
    scope: Scope
    account: Account | None


@dataclass(frozen=True, slots=True)
class Landed:
    """A worker is done with a task."""

    launch: Launch
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Torn:
    """What a worker cannot go on after: a bug of ours, a full disk; it is raised in the caller's thread."""

    error: BaseException
    launch: Launch | None = None


Message = Event | Landed | Torn | None


class Crew:
    """Carries out what is launched; `go_on` takes in what has landed and launches what that allows.

    `alone` leaves every turn to the caller's thread: somebody there has to hear each event before the next thing
    happens. Workers need no turn to send events.
    """

    def __init__(
        self, executor: Executor, llm: LLMIntegration, go_on: Callable[[Launch, Outcome], None], *, alone: bool
    ) -> None:
        self.flying: dict[str, Launch] = {}
        self._executor, self._llm, self._go_on, self._alone = executor, llm, go_on, alone
        self._ready: deque[Launch] = deque()
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._emit = self._inbox.put if alone else _unheard
        self._turn = threading.Lock()
        self._open = False

    def launch(self, launch: Launch) -> None:
        """Have a task carried out."""
        self.flying[launch.task.path] = launch
        self._ready.append(launch)

    def over(self, launch: Launch) -> bool:
        """Note that a task has landed; False if nobody waits for it any more."""
        if self.flying.get(launch.task.path) is not launch:
            return False
        del self.flying[launch.task.path]
        return True

    def given_up(self) -> list[Launch]:
        """The tasks that are still under way; nobody waits for them any more."""
        left = list(self.flying.values())
        self.flying.clear()
        return left

    def wake(self) -> None:
        """End the sleep of the caller's thread; may be called from any thread."""
        self._inbox.put(None)

    def heard(self) -> Event | Landed | None:
        """Sleep until something has to be done in the caller's thread; workers may go on meanwhile."""
        self._depart()
        try:
            self._open = not self._alone
            return self._untorn(self._next_message())
        finally:
            self.claim()

    def heard_within(self, timeout_s: float) -> Event | Landed | None:
        """Wait for what workers send, and leave them no turn; raises queue.Empty."""
        self._depart()
        return self._untorn(self._inbox.get(timeout=max(0.0, timeout_s)))

    def _next_message(self) -> Message:
        # Never a sleep without an end: a signal that comes just before it begins would be noticed only after it.
        while True:
            try:
                return self._inbox.get(timeout=_LOOK_S)
            except Empty:
                continue

    def claim(self) -> None:
        """Take the turn for the caller's thread: from now on no worker begins one."""
        self._open = False
        with self._turn:
            pass  # a worker that has begun comes to its end

    def _depart(self) -> None:
        while self._ready:
            self._executor.submit(copy_context().run, self._work, self._ready.popleft())

    def _untorn(self, message: Message) -> Event | Landed | None:
        if not isinstance(message, Torn):
            return message
        if message.launch:
            self.flying.pop(message.launch.task.path, None)
        raise message.error

    def _work(self, first: Launch) -> None:
        """What a worker does: one task, and as long as it is given the turn, the next."""
        launch: Launch | None = first
        while launch is not None:
            try:
                # In a context of its own, as a new thread would be: a copy of the caller's.
                outcome = copy_context().run(execute, launch.task, self._llm, self._emit, launch.scope, launch.account)
            except BaseException as error:
                self._inbox.put(Torn(error, launch))
                return
            launch = self._next(launch, outcome)

    def _next(self, launch: Launch, outcome: Outcome) -> Launch | None:
        """Go on with the run, if this thread may; returns what it is to do itself."""
        with self._turn:
            if not self._open:
                self._inbox.put(Landed(launch, outcome))
                return None
            try:
                self._go_on(launch, outcome)
                mine = self._ready.popleft() if self._ready else None
                self._depart()
            except BaseException as error:
                self._open = False
                self._inbox.put(Torn(error))
                return None
            if not self.flying:
                self.wake()
            return mine


def _unheard(_: Event) -> None:
    """Nobody listens."""
