"""Rounds and items: each asks for itself, and finds its own answer again in another run."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from fakes import ScriptedProvider, llm_of
from kept_runs import ends, run_

from flowcraft.runner.run import run_pipeline

COUNTING = """
flowcraft: 1
stages:
  - id: haiku
    repeat: {until: "output.syllables == 17", max: 4}
    prompt: Write a haiku and count its syllables.
    output: {schema: {type: object, required: [syllables], properties: {syllables: {type: integer}}}}
"""
ONCE = """
flowcraft: 1
stages:
  - id: haiku
    prompt: Write a haiku and count its syllables.
    output: {schema: {type: object, required: [syllables], properties: {syllables: {type: integer}}}}
"""
ITEMS = """
flowcraft: 1
stages:
  - {id: sample, foreach: {in: [1, 2, 3, 3, 3, 3], parallel: 1}, prompt: Invent a name.}
"""


def counts(*numbers: int) -> list[str]:
    return [f'{{"syllables": {number}}}' for number in numbers]


def test_a_round_never_gets_the_answer_of_an_earlier_one() -> None:
    model = ScriptedProvider(*counts(15, 16, 17))

    record = run_(COUNTING, model)

    assert (record.status, len(model.requests)) == ("succeeded", 3)
    assert record.outcomes[0].iterations == 3


def test_rounds_ask_as_often_where_nothing_is_kept() -> None:
    model = ScriptedProvider(*counts(15, 16, 17))
    Path("p.yaml").write_text(COUNTING)
    with llm_of(model) as llm:
        assert run_pipeline("p.yaml", llm=llm).status == "succeeded"
    assert len(model.requests) == 3


def test_each_round_finds_its_own_answer_in_the_next_run() -> None:
    model = ScriptedProvider(*counts(15, 16, 17))
    run_(COUNTING, model)

    again = run_(COUNTING, model)

    assert (again.status, len(model.requests)) == ("succeeded", 3)
    assert [one.output["syllables"] for one in again.outcomes] == [17, 15, 16, 17]


def test_items_with_one_prompt_are_asked_one_by_one() -> None:
    model = ScriptedProvider("a", "b", "c", "d", "e", "f")

    first = run_(ITEMS, model)
    again = run_(ITEMS, model)

    assert [record.outcomes[0].output for record in (first, again)] == [["a", "b", "c", "d", "e", "f"]] * 2
    assert len(model.requests) == 6


def test_an_item_keeps_its_answer_when_another_comes_before_it() -> None:
    model = ScriptedProvider("a", "b", "c", "d", "e", "f", "new")
    run_(ITEMS, model)

    again = run_(ITEMS.replace("[1, ", "[0, 1, "), model)

    assert again.outcomes[0].output == ["new", "a", "b", "c", "d", "e", "f"]


def test_two_stages_with_one_prompt_are_both_asked_and_each_finds_its_own_answer_again() -> None:
    votes = "flowcraft: 1\nstages: [{id: one, prompt: Vote., needs: []}, {id: two, prompt: Vote., needs: [one]}]\n"
    model = ScriptedProvider("yes", "no")

    first = run_(votes, model)
    again = run_(votes, model)

    assert [[one.output for one in record.outcomes] for record in (first, again)] == [["yes", "no"]] * 2
    assert ends(again) == {"one": "cached", "two": "cached"}


def test_a_stage_that_was_renamed_finds_the_answer_from_before() -> None:
    model = ScriptedProvider("yes")
    run_("flowcraft: 1\nstages: [{id: one, prompt: Vote.}]\n", model)
    assert ends(run_("flowcraft: 1\nstages: [{id: other, prompt: Vote.}]\n", model)) == {"other": "cached"}


@pytest.mark.parametrize("resumed", [True, False])
def test_answers_of_early_versions_are_found_at_their_place(resumed: bool) -> None:
    """Their hashes knew nothing of rounds and items: all rounds had that of the stage without them."""
    model = ScriptedProvider(*counts(15, 16, 17))
    first = run_(COUNTING, model)
    with closing(sqlite3.connect(".flowcraft/flowcraft.db")) as database, database:
        run_(ONCE, ScriptedProvider(*counts(17)), fresh={"*"})
        (bare,) = database.execute("SELECT fingerprint FROM stages ORDER BY number DESC").fetchone()
        database.execute("UPDATE stages SET reusable = 0 WHERE fingerprint = ?", (bare,))
        database.execute("UPDATE stages SET fingerprint = ? WHERE path LIKE 'haiku[%'", (bare,))

    again = run_(COUNTING, model, **({"resume": first.id} if resumed else {}))

    assert len(model.requests) == 3
    assert [one.output["syllables"] for one in again.outcomes] == [17, 15, 16, 17]
