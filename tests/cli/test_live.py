"""What the terminal shows while a run is under way."""

import io
from decimal import Decimal

import pytest
from rich.console import Console

from flowcraft.cli.live import LiveList
from flowcraft.runner.events import AnswerRejected, AttemptEnded, Event, StageFinished, StageStarted, TextPiece
from flowcraft.runner.outcome import Attempt, Outcome


def attempt(error: str | None) -> Attempt:
    return Attempt(
        event="first",
        name="m",
        model="m",
        provider="openai",
        tier="cheap",
        cause="default",
        source="default",
        seconds=1.0,
        cost=Decimal(0),
        error=error,
    )


@pytest.mark.parametrize(
    "between",
    [AttemptEnded("s", attempt("the answer was cut off")), AnswerRejected("s", 1, ("too short",), last=False)],
)
def test_text_that_came_to_nothing_is_not_shown_as_a_part_of_the_answer(between: Event) -> None:
    paper = io.StringIO()
    view = LiveList(Console(file=paper, width=100))
    view.show(StageStarted("s", "prompt", "m", "cheap", ""))
    for event in (TextPiece("s", "once upon", "answer"), between, TextPiece("s", "a whole ", "answer")):
        view.show(event)
    view.show(TextPiece("s", "tale", "answer"))
    view.show(AttemptEnded("s", attempt(None)))
    view.show(StageFinished(Outcome(path="s", kind="prompt", status="succeeded", output="a whole tale")))

    assert "s:\na whole tale\n" in paper.getvalue()
    assert "once upon" not in paper.getvalue()
