"""The order of a run: counted, without threads and clock."""

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from flowcraft.runner.schedule import Schedule


def drain(schedule: Schedule) -> list[str]:
    """Everything that can start now, nothing of it done."""
    return list(iter(schedule.take, None))


def test_stages_without_needs_start_together_in_the_order_of_the_file() -> None:
    schedule = Schedule({"c": [], "a": [], "b": ["a"]})

    assert drain(schedule) == ["c", "a"]


def test_a_stage_starts_when_the_last_of_its_needs_is_done() -> None:
    schedule = Schedule({"a": [], "b": [], "join": ["a", "b"]})
    drain(schedule)

    schedule.done("a")
    assert drain(schedule) == []

    schedule.done("b")
    assert drain(schedule) == ["join"]


def test_a_need_that_is_named_twice_counts_once() -> None:
    schedule = Schedule({"a": [], "b": ["a", "a"]})
    drain(schedule)

    schedule.done("a")

    assert drain(schedule) == ["b"]


def test_a_failure_blocks_what_depends_on_it_and_names_the_culprit() -> None:
    schedule = Schedule({"a": [], "b": ["a"], "c": ["b"]})
    drain(schedule)

    assert schedule.failed("a") == {"b": "blocked by 'a'", "c": "blocked by 'a'"}


def test_a_failure_stops_what_has_not_started() -> None:
    schedule = Schedule({"a": [], "b": [], "after_b": ["b"]})
    assert schedule.take() == "a"

    ended = schedule.failed("a")

    assert ended == dict.fromkeys(["b", "after_b"], "not started because 'a' failed")
    assert drain(schedule) == []


def test_what_was_started_before_a_failure_may_end_without_starting_more() -> None:
    schedule = Schedule({"a": [], "b": [], "after_b": ["b"]})
    drain(schedule)

    schedule.failed("a")
    schedule.done("b")

    assert drain(schedule) == []


def test_keep_going_still_runs_what_does_not_depend_on_the_failure() -> None:
    schedule = Schedule({"a": [], "after_a": ["a"], "b": [], "after_b": ["b"]}, keep_going=True)
    drain(schedule)

    assert schedule.failed("a") == {"after_a": "blocked by 'a'"}
    schedule.done("b")

    assert drain(schedule) == ["after_b"]


def test_a_stage_below_two_failures_is_blocked_by_the_first() -> None:
    schedule = Schedule({"a": [], "b": [], "join": ["a", "b"]}, keep_going=True)
    drain(schedule)

    assert schedule.failed("b") == {"join": "blocked by 'b'"}
    assert schedule.failed("a") == {}


def test_what_runs_regardless_waits_for_a_failure_and_for_what_is_blocked() -> None:
    needs = {"a": [], "b": ["a"], "last": ["b"], "after": ["last", "c"], "c": []}
    schedule = Schedule(needs, keep_going=True, regardless=["last", "after"])
    drain(schedule)

    assert schedule.failed("a") == {"b": "blocked by 'a'"}
    assert drain(schedule) == ["last"]
    schedule.failed("last")
    assert drain(schedule) == []
    schedule.done("c")
    assert drain(schedule) == ["after"]


def test_stopping_ends_all_that_is_left() -> None:
    schedule = Schedule({"a": [], "b": ["a"], "c": []})
    assert schedule.take() == "a"

    assert schedule.stop("enough") == {"b": "enough", "c": "enough"}
    assert drain(schedule) == []


def chain(length: int) -> dict[str, list[str]]:
    return {f"s{n}": [f"s{n - 1}"] if n else [] for n in range(length)}


def fan(length: int) -> dict[str, list[str]]:
    return {"first": [], **{f"s{n}": ["first"] for n in range(length)}, "last": [f"s{n}" for n in range(length)]}


def lines_run(needs: Mapping[str, Sequence[str]], *, fail: bool) -> int:
    """How many lines of Python a whole run of the schedule executes: a clock that every machine agrees with."""
    count = 0

    def tracer(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        schedule = Schedule(needs, keep_going=True)
        while (stage := schedule.take()) is not None:
            if fail:
                schedule.failed(stage)
            else:
                schedule.done(stage)
    finally:
        sys.settrace(before)
    return count


def test_the_work_grows_with_the_number_of_stages_and_not_faster() -> None:
    for shape in (chain, fan):
        for fail in (False, True):
            small, large = lines_run(shape(1_000), fail=fail), lines_run(shape(10_000), fail=fail)

            assert large <= 10.5 * small, (shape.__name__, fail)
