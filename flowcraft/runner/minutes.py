"""The minutes of a run: how each part has ended, in which order; kept for the record, written down, told."""

from collections.abc import Callable

from flowcraft.runner.events import Event, StageFinished
from flowcraft.runner.flow import Order
from flowcraft.runner.outcome import Outcome
from flowcraft.runner.session import Session

INTERRUPTED = "not started because the run was interrupted"


class Minutes:
    """Kept by who has the turn. `listener` and `session` are None where nobody listens or nothing is written."""

    def __init__(self, listener: Callable[[Event], None] | None, session: Session | None) -> None:
        self.listener = listener
        self.session = session
        self._outcomes: dict[str, Outcome] = {}
        self._order: dict[str, Order] = {}

    def note(self, outcome: Outcome, order: Order) -> None:
        """Keep how something has ended, and tell of it."""
        self._outcomes[outcome.path] = outcome
        self._order[outcome.path] = order
        if self.session and outcome.reason != INTERRUPTED and outcome.status != "waiting":
            self.session.ended(outcome)
        if self.listener:
            self.listener(StageFinished(outcome))

    def tell(self, event: Event) -> None:
        """Tell the listener."""
        if self.listener:
            self.listener(event)

    def close(self) -> None:
        """Tell nobody any more, and write nothing."""
        self.listener = self.session = None

    def in_order(self) -> tuple[Outcome, ...]:
        """How everything has ended, in the order of the file."""
        return tuple(self._outcomes[path] for path in sorted(self._outcomes, key=self._order.__getitem__))
