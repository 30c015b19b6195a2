"""The view of a run: a live list with the text as it arrives on a terminal, a line per event elsewhere."""

import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flowcraft.cli.screen import clean, money, seconds
from flowcraft.cli.surroundings import say
from flowcraft.core.errors import Cancelled
from flowcraft.core.problems import counted
from flowcraft.runner.events import (
    AnswerRejected,
    AttemptEnded,
    Event,
    RunFinished,
    RunStarted,
    StageFinished,
    StageStarted,
    TextPiece,
)
from flowcraft.runner.outcome import Outcome, RunRecord, totals

_MARKS = {
    "succeeded": ("ok", "green"),
    "waiting": ("waiting", "yellow"),
    "failed": ("failed", "red"),
    "skipped": ("skipped", "yellow"),
    "cancelled": ("stopped", "yellow"),
}
_TAIL_LINES = 8


class View(Protocol):
    """Shows the events of a run."""

    def show(self, event: Event) -> None:
        """Take in the next event."""

    def paused(self) -> AbstractContextManager[None]:
        """A block in which the terminal belongs to somebody else."""


@contextmanager
def open_view(stream: TextIO) -> Iterator[View]:
    """A view on `stream`: live if it is a terminal, plain lines if not."""
    if not stream.isatty():
        yield Lines(stream)
        return
    view = LiveList(Console(file=stream, highlight=False))
    with view.live:
        yield view


class Lines:
    """One line per event."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told: dict[str, str] = {}

    def show(self, event: Event) -> None:
        for line in lines(event, self._told):
            say(line, self._stream)

    def paused(self) -> AbstractContextManager[None]:
        return nullcontext()


class LiveList:
    """The stages with their state, and the end of the text that is arriving; finished text scrolls away above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._shown: set[str] = set()
        self._told: dict[str, str] = {}
        self.live = Live(console=console, refresh_per_second=12, get_renderable=self._picture)

    def show(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            self._states = dict.fromkeys(event.stages, Text("waiting", style="dim"))
        elif isinstance(event, StageStarted):
            self._states[event.path] = Spinner("dots", Text(_who(event)))
            self._texts[event.path] = ""
        elif isinstance(event, TextPiece):
            self._texts[event.path] = self._texts.get(event.path, "") + clean(event.text)
        elif isinstance(event, StageFinished):
            self._finish(event.outcome)
        elif isinstance(event, RunFinished):
            self.live.stop()  # the list stays, what follows comes below it
            self._say(_summary(event.record, self._shown))
        else:
            if isinstance(event, AnswerRejected) or (isinstance(event, AttemptEnded) and event.attempt.error):
                self._texts[event.path] = ""  # it was no answer; another one begins anew, or none comes
            self._say(lines(event, self._told))

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.live.stop()
        try:
            yield
        finally:
            self.live.start()

    def _finish(self, outcome: Outcome) -> None:
        word, style = _MARKS[outcome.status]
        self._states[outcome.path] = Text(f"{word}  {_details(outcome)}".rstrip(), style=style)
        text = self._texts.pop(outcome.path, "").strip("\n")
        self.live.refresh()  # what is printed above the list comes with the list as it is now
        if text:
            self._console.print(Text(f"{outcome.path}:", style="bold"))
            self._console.print(Text(text), soft_wrap=True)
            self._shown.add(text)
        self._say(_trouble(outcome, self._told))

    def _say(self, texts: list[str]) -> None:
        for text in texts:
            self._console.print(Text(text), soft_wrap=True)

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for path, state in self._states.items():
            table.add_row(Text(clean(path)), state)
        running = next((text for text in self._texts.values() if text), "")
        tail = "\n".join(running.splitlines()[-_TAIL_LINES:])
        return Group(Text(tail, style="dim"), table) if tail else Group(table)


def lines(event: Event, told: dict[str, str]) -> list[str]:
    """The event as plain lines; pieces of text are not shown, an answer is when it is whole.

    `told` is the last error that was shown of each path: none is shown twice.
    """
    if isinstance(event, StageStarted):
        again = clean(f"; runs again: {event.again}") if event.again else ""
        return [f"{event.path}: started, {_who(event)}{again}"]
    if isinstance(event, AttemptEnded) and event.attempt.error == str(Cancelled()):
        return []  # told by the end of the stage
    if isinstance(event, AttemptEnded) and event.attempt.error:
        error, before = event.attempt.error, told.get(event.path)
        told[event.path] = error
        how = "failed again in the same way" if error == before else f"failed: {error}"
        return [clean(f"{event.path}: {event.attempt.name} {how}")]
    if isinstance(event, AnswerRejected):
        reasons = clean("; ".join(event.reasons))
        return [f"{event.path}: answer {event.number} rejected{'' if event.last else ', asking again'}: {reasons}"]
    if isinstance(event, StageFinished):
        outcome = event.outcome
        details = _details(outcome)
        return [
            clean(f"{outcome.path}: {_MARKS[outcome.status][0]}" + (f", {details}" if details else "")),
            *_question(outcome),
            *_trouble(outcome, told),
        ]
    if isinstance(event, RunFinished):
        return _summary(event.record)
    return []


def _who(event: StageStarted) -> str:
    if event.model is None:
        return "command" if event.kind == "run" else event.kind
    return clean(f"{event.model} [{event.tier}]" if event.tier else event.model)


def _details(outcome: Outcome) -> str:
    if outcome.status in ("skipped", "waiting"):
        return outcome.reason or ""
    if outcome.cached_from:
        saved = "" if outcome.saved_usd is None else f", saved {money(outcome.saved_usd)}"
        return f"cached from run {outcome.cached_from}{saved if outcome.saved_usd else ''}"
    facts = ["done before" if outcome.resumed else seconds(outcome.seconds)]
    if outcome.attempts and not outcome.resumed:
        used = totals(outcome.attempts)
        facts.append("tokens unknown" if used.tokens is None else counted(used.tokens, "token"))
        facts.append(money(used.cost))
    if outcome.saved:
        facts.append(f"saved {outcome.saved}")
    return ", ".join(facts)


def _question(outcome: Outcome) -> list[str]:
    """What a gate asks that waits for an answer."""
    asked = outcome.output if outcome.status == "waiting" else None
    return [clean(f"  {line}") for line in str(asked).splitlines()] if asked else []


def _trouble(outcome: Outcome, told: dict[str, str]) -> list[str]:
    texts = [f"  warning: {warning}" for warning in outcome.warnings]
    error = outcome.error
    inner = next((one for one in told.values() if error and error.endswith(f": {one}")), None)
    if error and error != told.get(outcome.path):
        texts.append(f"  error: {error.removesuffix(f': {inner}')}")
    if outcome.hint and inner is None:
        texts.append(f"  = help: {outcome.hint}")
    if error:
        told[outcome.path] = error
    return [clean(text) for text in texts]


def _summary(record: RunRecord, shown: Collection[str] = ()) -> list[str]:
    used = record.totals
    tokens = "tokens unknown" if used.tokens is None else counted(used.tokens, "token")
    facts = f"{counted(used.calls, 'call')}, {tokens}, {money(used.cost)}"
    texts = [f"run {record.id}: {record.status} in {seconds(record.seconds)}, {facts}"]
    if record.error:
        texts.append(f"  error: {record.error}")
    if record.hint:
        texts.append(f"  = help: {record.hint}")
    for name, value in record.outputs.items():
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        if clean(text).strip("\n") in shown:
            text = "(the text above)"
        texts.append(f"{name}: {text}" if "\n" not in text else f"{name}:\n{text}")
    return [clean(text) for text in texts]
