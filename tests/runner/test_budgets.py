"""Budgets of runs that are kept: reserved, settled, refused, raised; a real database, a scripted model."""

import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import Gate, Reply, ScriptedProvider, llm_of, settings_of
from kept_runs import CHAIN, PRICES, echo, run_

from flowcraft.core.errors import UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings, Prices
from flowcraft.llm.base import Usage
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.budget import amount_text
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable
from flowcraft.runner.store.records import open_records

SHORT = CHAIN.replace("flowcraft: 1\n", "flowcraft: 1\ndefaults: {params: {max_tokens: 100}}\n")


def test_a_budget_in_calls_stops_the_run_and_a_higher_one_continues_it() -> None:
    model = echo()
    stopped = run_(CHAIN, model, budget={"calls": "2"})

    record = run_(CHAIN, model, resume=stopped.id, budget={"calls": "3"})

    assert "the budget of 2 calls is not enough: 2 calls used" in str(stopped.outcomes[2].error)
    assert (stopped.status, record.status, len(model.requests)) == ("failed", "succeeded", 3)


def test_money_is_reserved_for_the_worst_case_before_a_call() -> None:
    model = echo()

    record = run_(SHORT, model, budget={"usd": "0.0002"})

    # 83 tokens of input at most, and 100 of output: $0.000283
    assert "the next call may need $0.0003" in str(record.outcomes[0].error)
    assert model.requests == []


def test_as_many_digits_of_money_are_told_as_show_the_reason() -> None:
    record = run_(SHORT, echo(), budget={"usd": "0.000282"})

    said = "the budget of $0.000282 is not enough: $0 used, and the next call may need $0.000283"
    assert said in str(record.outcomes[0].error)


def test_what_was_reported_counts_not_what_was_reserved() -> None:
    model = echo()

    record = run_(SHORT, model, budget={"usd": "0.0004"})

    # each call reserves about $0.0003 and uses $0.00002
    assert (record.status, len(model.requests)) == ("succeeded", 3)


def test_a_model_without_a_price_is_refused_before_the_first_call_of_a_run_with_a_budget_in_money() -> None:
    model = echo()

    with pytest.raises(UsageError, match="'small' has no known price"):
        run_(CHAIN, model, prices=None, budget={"usd": "5"})

    assert model.requests == []


def test_a_budget_of_the_settings_holds_for_every_run() -> None:
    record = run_(CHAIN, echo(), settings={"budget": {"tokens": 20}})

    assert "budget of 20 tokens" in str(record.outcomes[0].error)


def test_a_call_without_reported_usage_counts_as_reserved() -> None:
    model = ScriptedProvider(otherwise=Reply(content="x", usage=Usage()))
    text = CHAIN.replace("prompt: one", "prompt: one\n    params: {max_tokens: 100}")

    run = run_(text, model, budget={"tokens": "5000"})

    with open_records(Path.cwd()) as (records, _):
        calls = records.calls(records.run(run.id).number)
        spent = records.spent(records.run(run.id).number)
    assert spent["tokens"] == sum(call.reserved["tokens"] for call in calls)


def test_a_model_that_a_plan_pays_for_is_refused_with_a_budget_in_money_and_the_reason_is_said() -> None:
    plan = ModelSettings(name="qwen", provider="qwen-code", model="qwen3-coder-plus", options={"auth": "oauth"})
    Path("p.yaml").write_text(CHAIN)

    with (
        LLMIntegration(settings_of(plan)) as llm,
        pytest.raises(UsageError, match="'qwen' is used on a login or plan") as caught,
    ):
        run_pipeline("p.yaml", llm=llm, durable=Durable(budget={"usd": "5"}))

    assert "unknown: allow" in str(caught.value.hint)


def test_unknown_prices_can_be_left_out_of_a_budget_in_money(caplog: pytest.LogCaptureFixture) -> None:
    model = echo()

    record = run_(CHAIN, model, prices=None, budget={"usd": "0.001"}, settings={"unknown_prices": "allow"})

    assert (record.status, len(model.requests)) == ("succeeded", 3)
    assert "its calls do not count in it" in caplog.text


def test_an_answer_that_nothing_limits_is_counted_as_usual_until_it_is_there(caplog: pytest.LogCaptureFixture) -> None:
    model = echo()

    record = run_(CHAIN, model, budget={"usd": "0.001"})

    assert "the next call may need $0.0083" in str(record.outcomes[0].error)
    assert model.requests == []
    assert caplog.text.count("nothing limits the answers of 'small'") == 1
    assert "params: {max_tokens: 4000} in the stage, or llm: {models: {small: {max_tokens: 4000}}}" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        "flowcraft: 1\nbudget: {usd: 1}\nstages: [{id: a, prompt: x}]",
        "flowcraft: 1\nstages: [{id: a, run: x}, {id: g, budget: {usd: 1}, stages: [{id: b, prompt: x}]}]",
        "flowcraft: 1\nstages: [{id: a, budget: {usd: 1}, uses: inner.yaml}]",
        "flowcraft: 1\nstages: [{id: a, budget: {usd: 1}, run: x, check: [{ask: good?}]}]",
        "flowcraft: 1\nbudget: {usd: 1}\nstages: [{id: a, run: x}]\nfinally: [{id: b, prompt: x}]",
    ],
)
def test_a_budget_in_money_is_found_wherever_it_stands(text: str) -> None:
    Path("inner.yaml").write_text("flowcraft: 1\nstages: [{id: b, prompt: x}]\n")
    Path("p.yaml").write_text(text)

    with llm_of(echo()) as llm, pytest.raises(UsageError, match="'small' has no known price"):
        run_pipeline("p.yaml", llm=llm)


def test_a_stage_outside_of_the_budget_needs_no_price() -> None:
    text = "flowcraft: 1\nstages: [{id: a, prompt: x}, {id: b, budget: {usd: 1}, run: echo}]"

    assert run_(text, echo(), prices=None).status == "succeeded"


def test_the_window_of_a_model_limits_its_answers() -> None:
    model = ModelSettings(name="m", provider="m", model="m", prices=PRICES, context=2000)
    Path("p.yaml").write_text("flowcraft: 1\nbudget: {usd: 0.003}\nstages: [{id: a, prompt: x}]\n")

    with LLMIntegration(settings_of(model), providers={"m": echo()}) as llm:
        record = run_pipeline("p.yaml", llm=llm)

    # 81 tokens of input at most, and 2000 of output: $0.004081
    assert "the next call may need $0.0041" in str(record.outcomes[0].error)


def test_a_model_that_is_known_only_when_the_stage_starts_is_refused_then() -> None:
    model = echo()

    record = run_(
        "flowcraft: 1\ninputs: {m: {default: cheap}}\nbudget: {usd: 1}\n"
        "stages: [{id: a, prompt: x, model: '${{ inputs.m }}'}]",
        model,
        prices=None,
    )

    assert "'small' has no known price" in str(record.outcomes[0].error)
    assert model.requests == []


class Acting(ScriptedProvider):
    acts = True


def test_an_agent_under_a_budget_in_money_is_let_through_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    assert run_(CHAIN, Acting(otherwise="x"), budget={"usd": "5"}).status == "succeeded"
    assert "'small' costs at most: it may ask as often as it likes" in caplog.text


GROUP = """
flowcraft: 1
stages:
  - id: part
    budget: {tokens: 1500}
    stages:
      - {id: one, prompt: one, params: {max_tokens: 700}}
      - {id: two, prompt: "two ${{ stages.one.output }}", params: {max_tokens: 700}}
"""


def asks(*limits: str | None) -> tuple[list[str], Any]:
    """What was said, and somebody who answers with these limits."""
    said: list[str] = []
    left = list(limits)

    def ask(text: str, unit: str, limit: Decimal, scope: Scope) -> Decimal | None:
        said.append(text)
        new = left.pop(0)
        return None if new is None else Decimal(new)

    return said, ask


def used(tokens: int) -> ScriptedProvider:
    usage = Usage(prompt_tokens=tokens, completion_tokens=0, total_tokens=tokens)
    return ScriptedProvider(otherwise=lambda request: Reply(content="x", usage=usage))


def test_the_budget_of_a_stage_counts_what_was_spent_before_the_resume() -> None:
    model = used(900)
    stopped = run_(GROUP, model)

    again = run_(GROUP, model, resume=stopped.id)

    assert "the budget of 1500 tokens is not enough: 900 tokens used" in str(stopped.outcomes[-1].error)
    assert "900 tokens used" in str(again.outcomes[-1].error)
    assert len(model.requests) == 1


def test_the_limit_of_a_stage_can_be_raised_and_a_resume_knows_it() -> None:
    model = used(900)
    said, ask = asks("2500", None)
    text = GROUP + "      - {id: three, prompt: three, params: {max_tokens: 700}}\n"
    stopped = run_(text, model, ask=ask)

    again = run_(text, model, resume=stopped.id)

    assert said[0].startswith("'part': the budget of 1500 tokens is not enough")
    assert (len(model.requests), stopped.status) == (2, "failed")
    assert "the budget of 2500 tokens is not enough: 1800 tokens used" in str(again.outcomes[-1].error)


def test_a_limit_of_the_run_that_was_raised_is_known_to_a_resume() -> None:
    model = echo()
    _, ask = asks("2", None)
    stopped = run_(CHAIN, model, budget={"calls": "1"}, ask=ask)

    again = run_(CHAIN, model, resume=stopped.id)

    assert len(model.requests) == 2
    assert "the budget of 2 calls is not enough" in str(again.outcomes[-1].error)


@pytest.mark.parametrize(
    ("amount", "text"),
    [("0", "0.0 s"), ("0.05", "0.05 s"), ("0.00001", "0.001 s"), ("0.1234567", "0.123 s"), ("1.04", "1.0 s")],
)
def test_a_small_time_is_not_shown_as_none(amount: str, text: str) -> None:
    assert amount_text("time", Decimal(amount)) == text


@pytest.mark.parametrize(("price", "cost"), [(0, 0), (1, None)])
def test_a_call_of_a_free_model_that_is_stopped_has_cost_nothing(price: int, cost: int | None) -> None:
    scope, gate = Scope(), Gate()
    Path("p.yaml").write_text("flowcraft: 1\nstages: [{id: a, prompt: x}]\n")
    threading.Thread(target=lambda: (gate.reached(), scope.cancel())).start()

    with llm_of(ScriptedProvider(gate), None, Prices(input=Decimal(price), output=Decimal(price))) as llm:
        record = run_pipeline("p.yaml", llm=llm, scope=scope)

    assert (record.status, record.totals.cost) == ("interrupted", cost)
