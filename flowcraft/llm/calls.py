"""What is told about a call to whoever keeps the books: one pair of values per attempt.

They are named tuples, as all that is made for every call and that nobody keeps: a frozen dataclass takes three times
as long.
"""

from contextlib import ExitStack
from decimal import Decimal
from typing import Literal, NamedTuple, Protocol

from flowcraft.core.errors import FlowcraftError
from flowcraft.llm.base import ChatRequest, LLMResponse
from flowcraft.llm.routing import Choice

Event = Literal["first", "retry", "fallback", "again", "escalation", "check"]


class CallStarted(NamedTuple):
    """An attempt that is about to leave; `event` says why it is made.

    first, retry or fallback; again (the answer before was rejected), escalation (so were all of a cheaper model),
    check (whether a result is accepted).
    `attempt` counts the attempts of one call from 1, over all its models.
    """

    id: str
    choice: Choice
    request: ChatRequest
    event: Event = "first"
    attempt: int = 1


class CallFinished(NamedTuple):
    """How an attempt ended: with a response or an error; `cost` in US dollars, None if unknown."""

    id: str
    seconds: float
    response: LLMResponse | None = None
    error: FlowcraftError | None = None

    @property
    def cost(self) -> Decimal | None:
        return self.response.cost if self.response else None


class CallObserver(Protocol):
    """Called in the thread of the call; what it raises ends the call (a ledger that cannot write, say)."""

    def started(self, call: CallStarted) -> None:
        """The request leaves when this has returned."""

    def finished(self, call: CallFinished) -> None:
        """The answer is handed on when this has returned."""


class Observers:
    """Tells several observers, in their order; all are told of an end, even if one of them raises."""

    def __init__(self, *observers: CallObserver) -> None:
        self._observers = observers

    def started(self, call: CallStarted) -> None:
        for observer in self._observers:
            observer.started(call)

    def finished(self, call: CallFinished) -> None:
        with ExitStack() as stack:
            for observer in reversed(self._observers):
                stack.callback(observer.finished, call)
