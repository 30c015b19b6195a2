from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.cli.live import lines
from flowcraft.cli.screen import clean, money, seconds, table
from flowcraft.runner.events import AttemptEnded, StageFinished
from flowcraft.runner.outcome import Attempt, Outcome


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x9b31m", "\\x9b31m"),
        ("back\rover", "back\\x0dover"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\U000e0041", "\\ue0041"),
        ("naïve 中文 👩\u200d💻", "naïve 中文 👩\u200d💻"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text(), st.integers(0, 20))
def test_cutting_a_text_anywhere_changes_nothing(text: str, place: int) -> None:
    assert clean(text[:place]) + clean(text[place:]) == clean(text)


@given(st.text())
def test_no_control_character_gets_through(text: str) -> None:
    assert not {ord(character) for character in clean(text)} & ({*range(0x20), *range(0x7F, 0xA0)} - {9, 10})


def test_an_unknown_cost_is_not_shown_as_zero() -> None:
    assert [money(None), money(Decimal(0)), money(Decimal("0.00123"))] == ["cost unknown", "free", "$0.0012"]


def test_durations_are_for_people() -> None:
    assert [seconds(3.21), seconds(75)] == ["3.2 s", "1 min 15 s"]


def test_a_table_is_aligned() -> None:
    assert table([("a", "long value"), ("bcd", "x")], ("n", "v")) == "n    v\na    long value\nbcd  x"


def test_an_error_is_shown_once_however_many_things_it_ends() -> None:
    sentence = "the service is down (provider openai, model m)"
    attempt = Attempt(
        event="first", name="m", model="m", provider="openai", tier="cheap", cause="default", source="", seconds=1.0,
        error=sentence,
    )  # fmt: skip
    inner = Outcome(path="a/b", kind="prompt", status="failed", error=sentence, hint="look there")
    outer = Outcome(path="a", kind="stages", status="failed", error=f"'b' failed: {sentence}", hint="look there")
    told: dict[str, str] = {}

    events = [AttemptEnded("a/b", attempt), AttemptEnded("a/b", attempt), StageFinished(inner), StageFinished(outer)]
    shown = [line for event in events for line in lines(event, told)]

    assert "\n".join(shown).count(sentence) == "\n".join(shown).count("look there") == 1
    assert shown[1] == "a/b: m failed again in the same way"
    assert shown[-1] == "  error: 'b' failed"
