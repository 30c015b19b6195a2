"""The prompt stage, with a scripted model."""

from decimal import Decimal
from typing import Any

import pytest
from fakes import Gate, Reply, ScriptedProvider, llm_of

from flowcraft.core.errors import AuthError, IncompleteStream, RateLimitError, TransportError
from flowcraft.core.scope import Scope
from flowcraft.core.values import Prices
from flowcraft.llm.base import LLMMessage, Usage
from flowcraft.llm.routing import Named
from flowcraft.runner.events import AnswerRejected, AttemptEnded, Event, TextPiece
from flowcraft.runner.outcome import Outcome, totals
from flowcraft.runner.stages import execute
from flowcraft.runner.work import Question, Shape, Task

PRICES = Prices(input=Decimal(1), output=Decimal(2))
VERDICT = {
    "type": "object",
    "required": ["ok"],
    "additionalProperties": False,
    "properties": {"ok": {"type": "boolean"}},
}
JSON = Shape(json=True, schema=VERDICT)


def asked(
    model: ScriptedProvider,
    shape: Shape = Shape(),  # noqa: B008 - frozen
    *,
    heard: list[Event] | None = None,
    streamed: bool = False,
    scope: Scope | None = None,
    named: str | None = None,
    params: dict[str, Any] | None = None,
) -> Outcome:
    messages = (LLMMessage("system", "be brief"), LLMMessage("user", "is it?"))
    question = Question(messages=messages, model=Named(named) if named else None, params=params or {})
    task = Task(path="check", stage="check", work=question, shape=shape, streamed=streamed)
    with llm_of(model, prices=PRICES) as llm:
        return execute(task, llm, (heard if heard is not None else []).append, scope or Scope())


def test_the_answer_is_the_output_as_it_came() -> None:
    model = ScriptedProvider("  yes,\nit is\n")

    outcome = asked(model, params={"temperature": 0.5})

    assert (outcome.status, outcome.output) == ("succeeded", "  yes,\nit is\n")
    assert [message.role for message in model.last.messages] == ["system", "user"]
    assert dict(model.last.params) == {"temperature": 0.5}


def test_the_attempt_tells_who_answered_and_why_and_what_it_cost() -> None:
    attempt = asked(ScriptedProvider("yes")).attempts[0]

    assert (attempt.name, attempt.model, attempt.provider, attempt.tier) == ("small", "small-1", "small", "cheap")
    assert (attempt.event, attempt.cause, attempt.finish_reason) == ("first", "default", "stop")
    assert attempt.cost == Decimal("0.00002")


def test_pieces_are_told_as_they_arrive_where_somebody_listens() -> None:
    heard: list[Event] = []

    outcome = asked(ScriptedProvider(["a", "b", "c"]), heard=heard, streamed=True)

    assert [event.text for event in heard if isinstance(event, TextPiece)] == ["a", "b", "c"]
    assert outcome.output == "abc"


def test_where_nobody_listens_the_answer_is_not_streamed() -> None:
    model = ScriptedProvider("x")

    asked(model)

    assert model.last.stream is False


def test_a_service_that_knows_json_schema_gets_it_natively() -> None:
    model = ScriptedProvider('{"ok": true}', json_schema=True)

    assert asked(model, JSON).output == {"ok": True}

    expected = {"type": "json_schema", "json_schema": {"name": "check", "schema": VERDICT, "strict": True}}
    assert model.last.params["response_format"] == expected
    assert model.last.messages[-1].content == "is it?"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"ok": {}}, "required": ["ok"]},
        {"type": "object", "properties": {"ok": {}}, "additionalProperties": False},
        {"type": "array", "items": {"type": "object"}},
    ],
)
def test_a_schema_that_strict_mode_would_refuse_is_sent_without_it(schema: dict[str, Any]) -> None:
    model = ScriptedProvider(otherwise="[]", json_schema=True)

    asked(model, Shape(json=True, schema=schema))

    assert model.requests[0].params["response_format"]["json_schema"]["strict"] is False


def test_other_services_get_the_schema_in_the_prompt() -> None:
    model = ScriptedProvider('{"ok": true}')

    asked(model, JSON)

    assert "response_format" not in model.last.params
    assert model.last.messages[-1].content.startswith("is it?\n\nAnswer with one JSON value")
    assert '"additionalProperties": false' in model.last.messages[-1].content


def test_json_without_a_schema_is_any_value() -> None:
    model = ScriptedProvider("[1, 2]", json_schema=True)

    assert asked(model, Shape(json=True)).output == [1, 2]
    assert "response_format" not in model.last.params


def test_a_wrong_answer_goes_back_with_the_exact_reasons() -> None:
    heard: list[Event] = []
    model = ScriptedProvider('{"ok": "yes"}', '{"ok": true}')

    outcome = asked(model, JSON, heard=heard)

    assert outcome.output == {"ok": True}
    assert len(outcome.attempts) == 2
    assert [message.role for message in model.last.messages] == ["system", "user", "assistant", "user"]
    assert model.last.messages[2].content == '{"ok": "yes"}'
    rejected = [event for event in heard if isinstance(event, AnswerRejected)]
    assert [(event.number, event.last) for event in rejected] == [(1, False)]
    assert rejected[0].reasons[0] in model.last.messages[3].content
    assert "ok" in rejected[0].reasons[0]


def test_after_two_wrong_answers_the_stage_fails_and_keeps_the_last() -> None:
    heard: list[Event] = []

    outcome = asked(ScriptedProvider("no", '{"nope": 1}'), JSON, heard=heard)

    assert (outcome.status, outcome.output, outcome.rejected) == ("failed", None, '{"nope": 1}')
    assert outcome.error
    assert "2 answers were not accepted" in outcome.error
    assert "nope" in outcome.error
    assert outcome.hint
    assert [event.last for event in heard if isinstance(event, AnswerRejected)] == [False, True]
    assert len(outcome.attempts) == 2


def test_an_answer_that_was_cut_off_counts_as_wrong_even_if_it_can_be_read() -> None:
    model = ScriptedProvider(Reply(content='{"ok": true}', finish_reason="length"), '{"ok": false}')

    assert asked(model, JSON).output == {"ok": False}
    assert "finish_reason 'length'" in model.last.messages[-1].content


def test_text_that_was_cut_off_is_taken_with_a_warning() -> None:
    outcome = asked(ScriptedProvider(Reply(content="half a", finish_reason="length")))

    assert (outcome.status, outcome.output) == ("succeeded", "half a")
    assert "length" in outcome.warnings[0]
    assert outcome.attempts[0].finish_reason == "length"


def test_an_answer_that_was_held_back_is_no_answer() -> None:
    model = ScriptedProvider(Reply(content="I", finish_reason="content_filter"))

    outcome = asked(model)

    assert (outcome.status, outcome.rejected) == ("failed", "I")
    assert outcome.error
    assert "content_filter" in outcome.error
    assert len(model.requests) == 1


def test_an_empty_answer_is_sent_back_without_an_empty_message() -> None:
    model = ScriptedProvider("", '{"ok": true}')

    assert asked(model, JSON).ok
    assert all(message.content for message in model.last.messages)


def test_technical_trouble_is_not_a_wrong_answer() -> None:
    busy = RateLimitError("slow down", status=429, retryable=True)

    outcome = asked(ScriptedProvider(busy, "no json", '{"ok": true}'), JSON)

    assert outcome.output == {"ok": True}
    assert [attempt.event for attempt in outcome.attempts] == ["first", "retry", "again"]


def test_an_error_becomes_a_failed_outcome_with_its_hint() -> None:
    heard: list[Event] = []

    outcome = asked(ScriptedProvider(AuthError("key refused", status=401, hint="set KEY")), heard=heard)

    assert (outcome.status, outcome.hint) == ("failed", "set KEY")
    assert outcome.error
    assert "key refused" in outcome.error
    assert [event.attempt.error is not None for event in heard if isinstance(event, AttemptEnded)] == [True]


def test_a_streamed_answer_that_is_cut_is_asked_for_once_more_and_each_attempt_is_counted() -> None:
    heard: list[Event] = []

    outcome = asked(ScriptedProvider(["half ", IncompleteStream("cut")], ["a whole"]), heard=heard, streamed=True)

    assert (outcome.status, outcome.output) == ("succeeded", "a whole")
    assert [(attempt.event, attempt.error) for attempt in outcome.attempts] == [
        ("first", "cut (provider small, model small-1)"),
        ("retry", None),
    ]
    assert [type(event).__name__ for event in heard] == ["TextPiece", "AttemptEnded", "TextPiece", "AttemptEnded"]


def test_what_had_arrived_of_a_broken_answer_is_kept() -> None:
    broken = IncompleteStream("cut", partial_text="")

    outcome = asked(ScriptedProvider(["ha", IncompleteStream("cut")], ["half ", broken]), streamed=True)

    assert (outcome.status, outcome.output, outcome.rejected) == ("failed", None, "half ")


def test_a_call_that_was_refused_costs_nothing_and_one_that_broke_is_unknown() -> None:
    refused = asked(ScriptedProvider(AuthError("no", status=401)))
    broken = asked(ScriptedProvider(TransportError("gone", sent=True)))

    assert totals(refused.attempts).cost == 0
    assert totals(broken.attempts).cost is None


def test_unknown_usage_is_not_counted_as_nothing() -> None:
    known = asked(ScriptedProvider("x"))
    unknown = asked(ScriptedProvider(Reply(content="x", usage=None)))
    half = asked(ScriptedProvider(Reply(content="x", usage=Usage(prompt_tokens=3))))

    assert totals(known.attempts).tokens == 15
    assert totals(unknown.attempts).tokens is None
    assert totals((*known.attempts, *half.attempts)).cost is None


def test_a_cancelled_call_ends_without_an_answer() -> None:
    scope = Scope()

    def cancel(_: Any) -> Any:
        scope.cancel()
        return Gate()

    outcome = asked(ScriptedProvider(cancel), scope=scope)

    assert outcome.status == "cancelled"
    assert outcome.error is None


def test_a_call_that_breaks_because_it_was_cancelled_is_no_failure() -> None:
    scope = Scope()

    def cancel(_: Any) -> Any:
        scope.cancel()
        return TransportError("connection closed")

    assert asked(ScriptedProvider(cancel), scope=scope).status == "cancelled"


def test_a_bug_in_a_provider_of_others_fails_the_stage() -> None:
    outcome = asked(ScriptedProvider(ZeroDivisionError("bug")))

    assert outcome.status == "failed"
    assert "ZeroDivisionError" in (outcome.error or "")
