"""Budgets of runs that are kept: reserved, settled, refused, raised; a real database, a scripted model."""

from pathlib import Path

import pytest
from fakes import Reply, ScriptedProvider, settings_of
from kept_runs import CHAIN, echo, run_

from flowcraft.core.errors import UsageError
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import Usage
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.session import Durable
from flowcraft.runner.store.records import open_records


def test_a_budget_in_calls_stops_the_run_and_a_higher_one_continues_it() -> None:
    model = echo()
    stopped = run_(CHAIN, model, budget={"calls": "2"})

    record = run_(CHAIN, model, resume=stopped.id, budget={"calls": "3"})

    assert "the budget of 2 calls is not enough: 2 calls used" in str(stopped.outcomes[2].error)
    assert (stopped.status, record.status, len(model.requests)) == ("failed", "succeeded", 3)


def test_money_is_reserved_for_the_worst_case_before_a_call() -> None:
    model = echo()
    text = CHAIN.replace("prompt: one", "prompt: one\n    params: {max_tokens: 100}")

    record = run_(text, model, budget={"usd": "0.0002"})

    # 19 tokens of input at most, and 100 of output: $0.000219
    assert "the next call may need $0.0002" in str(record.outcomes[0].error)
    assert model.requests == []


def test_what_was_reported_counts_not_what_was_reserved() -> None:
    text = "flowcraft: 1\ndefaults: {params: {max_tokens: 100}}\n" + CHAIN.replace("\nflowcraft: 1\n", "")
    model = echo()

    record = run_(text, model, budget={"usd": "0.0004"})

    # each call reserves about $0.00023 and uses $0.00002
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
