"""Asking a person on the terminal: whether a run may pass a gate, whether a command may run again."""

import getpass
import select
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from flowcraft.runner.gates import Decision


class Pausable(Protocol):
    """A view that leaves the terminal alone for a while."""

    def paused(self) -> AbstractContextManager[None]: ...


class Asker:
    """Asks on the terminal."""

    def __init__(self, view: Pausable) -> None:
        self._view = view

    def __call__(self, path: str, text: str, limit_s: float | None) -> "Decision | None":
        from flowcraft.cli.screen import clean
        from flowcraft.runner.gates import Decision

        with self._view.paused():
            click.echo(f"{clean(path)} asks:\n{clean(text).rstrip()}", err=True)
            click.echo("approve? [y]es, [n]o, or leave it for later (Enter): ", err=True, nl=False)
            if limit_s is not None and not select.select([sys.stdin], [], [], limit_s)[0]:
                return Decision(approved=False, comment=f"nobody has answered within {limit_s:.0f} s")
            answer = sys.stdin.readline().strip().lower()
            if answer in ("y", "yes"):
                return Decision(approved=True, by=user())
            if answer in ("n", "no"):
                click.echo("why? (Enter: no comment) ", err=True, nl=False)
                return Decision(approved=False, comment=sys.stdin.readline().strip(), by=user())
        return None


def asks_again(view: Pausable) -> Callable[[str], bool]:
    """Who asks whether a command may run again that may have done its work before."""

    def ask(reason: str) -> bool:
        from flowcraft.cli.screen import clean

        with view.paused():
            click.echo(f"{clean(reason)}\nrun it again? [y]es, or leave it (Enter): ", err=True, nl=False)
            return sys.stdin.readline().strip().lower() in ("y", "yes")

    return ask


def user() -> str:
    """Who sits at this terminal, as far as the system tells."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
