"""The question on a terminal whether a run may use more than its budget (`on_exceed: ask`)."""

import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING

import click

from flowcraft.core.errors import UsageError

if TYPE_CHECKING:
    from flowcraft.cli.live import View
    from flowcraft.core.scope import Scope

_LOOK_S = 0.1  # how late it is noticed that the run was stopped


class Raiser:
    """Asks for a new limit, in the thread of the call that does not fit."""

    def __init__(self, view: "View") -> None:
        self._view = view
        self._one = threading.Lock()  # the budgets of a run and of its stages may ask at the same moment

    def __call__(self, text: str, unit: str, limit: Decimal, scope: "Scope") -> Decimal | None:
        """The new limit, or None to stop; raises Cancelled if the run is stopped meanwhile."""
        with self._turn(scope), self._view.paused():
            click.echo(text, err=True)
            while answer := _answer(unit, scope):
                new = _amount(unit, answer)
                if new is not None and new > limit:
                    return new
                click.echo("a limit has to be an amount above the old one", err=True)
        return None

    @contextmanager
    def _turn(self, scope: "Scope") -> Iterator[None]:
        while not self._one.acquire(timeout=_LOOK_S):
            scope.check()
        try:
            yield
        finally:
            self._one.release()


def _answer(unit: str, scope: "Scope") -> str:
    click.echo(f"new limit in {unit} (Enter: stop here): ", err=True, nl=False)
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        scope.check()
    return sys.stdin.readline().strip()


def _amount(unit: str, text: str) -> Decimal | None:
    from flowcraft.runner.budget import limits

    try:
        return limits({unit: text})[unit]
    except UsageError:
        return None
