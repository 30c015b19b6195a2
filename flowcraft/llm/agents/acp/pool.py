"""The agent processes of one provider: lent to one call at a time, kept between calls, replaced when dead."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowcraft.core.scope import Scope
from flowcraft.llm.agents.acp.agent import Agent


class Agents:
    """Thread-safe; calls at the same time get a process each."""

    def __init__(self, start: Callable[[Scope], Agent]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._idle: list[Agent] = []
        self._lent: set[Agent] = set()

    @contextmanager
    def lent(self, scope: Scope) -> Iterator[Agent]:
        """An agent for one call; it comes back if it can serve another, else it is stopped."""
        agent = self._kept() or self._start(scope)
        with self._lock:
            self._lent.add(agent)
        try:
            yield agent
        finally:
            with self._lock:
                ours = agent in self._lent
                self._lent.discard(agent)
                kept = ours and agent.reusable
                if kept:
                    self._idle.append(agent)
            if not kept:
                agent.stop()

    def close(self) -> None:
        """Stop all of them, those at work too."""
        with self._lock:
            agents = [*self._idle, *self._lent]
            self._idle.clear()
            self._lent.clear()
        for agent in agents:
            agent.stop()

    def _kept(self) -> Agent | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                agent = self._idle.pop()
            if agent.reusable:
                return agent
            agent.stop()
