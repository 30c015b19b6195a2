"""The ceiling of `plan`: no run costs more, whatever the pipeline, prices and answers; and some of its figures."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import settings_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowcraft.core.errors import RateLimitError
from flowcraft.core.values import ModelSettings, Prices
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, Usage
from flowcraft.llm.integration import LLMIntegration
from flowcraft.pipeline.load import load
from flowcraft.runner.ceiling import Estimator, stops_at, total
from flowcraft.runner.run import run_pipeline
from flowcraft.runner.workspace import Workspace


class Spender(BaseLLMProvider):
    """Answers as long as it may, counts a token per byte, is down now and then."""

    provider_name = "spender"

    def __init__(self, config: ModelSettings, seed: int) -> None:
        super().__init__(config)
        self._random = random.Random(seed)

    def deltas(self, request: ChatRequest) -> Any:
        if self._random.random() < 0.1:
            raise RateLimitError("slow down", status=429, retryable=True)
        room = request.params.get("max_tokens") or self.config.max_tokens or 100
        text = self._answer(room)
        used = sum(len(message.content.encode()) for message in request.messages)
        yield Delta(content=text)
        yield Delta(finish_reason="stop", usage=Usage(prompt_tokens=used, completion_tokens=len(text.encode())))

    def _answer(self, room: int) -> str:
        kind = self._random.randrange(4)
        if kind == 0:
            return "x" * room
        if kind == 1:
            return json.dumps({"ok": self._random.random() < 0.3, "list": ["y"] * (max(room - 30, 0) // 6)})[:room]
        if kind == 2:
            return ('{"accepted": ' + self._random.choice(["true", "false"]) + ', "reason": "r"}')[:room]
        return "é" * (room // 2)


PROMPTS = st.sampled_from(
    [
        "plain",
        "${{ inputs.text }} twice ${{ inputs.text }}",
        "${{ stages.%s.output | default('none') }}",
        "${{ stages.%s.output | default('none') | upper }}",
        "${% for c in range(3) %}${{ c }} ${{ inputs.text }}${% endfor %}",
        "${{ (stages.%s.output | default('z')) | string | truncate(20) }}",
    ]
)
SCHEMA = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
EXTRAS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["cheap", "expensive", ["cheap", "expensive"], ["expensive", "cheap", "cheap"]]),
        "attempts": st.integers(1, 3),
        "output": st.sampled_from(["json", {"schema": SCHEMA}]),
        "check": st.sampled_from([["output | string | length > 100000"], [{"ask": "good?"}], [{"run": "false"}]]),
        "foreach": st.sampled_from([["a", "b"], {"in": "range(3)", "max": 4}]),
        "repeat": st.sampled_from([{"until": "loop.last", "max": 2}]),
        "retry": st.integers(0, 2),
        "system": st.just("Be brief."),
        "params": st.fixed_dictionaries({"max_tokens": st.integers(20, 120)}),
    },
)


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, Any]:
    stages: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 4))):
        before = stages[-1]["id"] if stages else None
        prompt = draw(PROMPTS)
        if "%s" in prompt:
            prompt = prompt.replace("%s", before) if before else "first"
        stages.append({"id": f"s{number}", "prompt": prompt, "on_error": "continue", **draw(EXTRAS)})
    if draw(st.booleans()):
        group = {"id": "group", "on_error": "continue", "stages": stages}
        return {
            "stages": [
                {
                    **group,
                    **draw(st.sampled_from([{}, {"foreach": [1, 2]}, {"repeat": {"until": "loop.last", "max": 2}}])),
                }
            ]
        }
    return {"stages": stages}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pipelines(), st.integers(0, 1 << 20), st.integers(1, 900), st.integers(1, 900))
def test_a_run_never_costs_more_than_the_ceiling(
    workspace: Path, data: dict[str, Any], seed: int, one: int, two: int
) -> None:
    file = workspace / "p.yaml"
    file.write_text(json.dumps({"flowcraft": 1, "inputs": {"text": "string"}, **data}))
    prices = [Prices(input=Decimal(one), output=Decimal(two)), Prices(input=Decimal(two), output=Decimal(one))]
    models = [
        ModelSettings(name=name, provider=name, model=name, prices=price, max_tokens=90)
        for name, price in zip(("small", "large"), prices, strict=True)
    ]
    providers: dict[str, BaseLLMProvider] = {model.name: Spender(model, seed) for model in models}
    with LLMIntegration(settings_of(*models), providers=providers, jitter=lambda: 0.0) as llm:
        pipeline = load(file)
        found = Estimator(llm, Workspace("."), {}).estimates(pipeline, {"text": "some text é"})
        record = run_pipeline(pipeline, {"text": "some text é"}, llm=llm, jobs=2)

    ceiling, spent = total([estimate.ceiling for estimate in found]), record.totals
    assert ceiling is not None
    assert spent.cost is not None
    assert spent.cost <= ceiling
    answered = sum(attempt.error is None for outcome in record.outcomes for attempt in outcome.attempts)
    assert answered <= sum(estimate.most_calls for estimate in found)


def estimate_of(text: str, workspace: Path, **values: Any) -> Any:
    file = workspace / "p.yaml"
    file.write_text(f"flowcraft: 1\ninputs: {{t: {{type: string, default: ''}}}}\nstages:\n{text}")
    model = ModelSettings(
        name="m", provider="m", model="m", max_tokens=100, prices=Prices(input=Decimal(1), output=Decimal(10))
    )
    with LLMIntegration(settings_of(model), providers={"m": Spender(model, 1)}) as llm:
        return Estimator(llm, Workspace(workspace), {}).estimates(load(file), values)


def test_the_ceiling_counts_text_and_output(workspace: Path) -> None:
    [found] = estimate_of(f"  - {{id: a, prompt: {'x' * 400}}}\n", workspace)

    assert (found.least_calls, found.most_calls, found.first_input) == (1, 1, 104)
    assert found.ceiling == Decimal(400 + 16 + 100 * 10) / 1_000_000


def test_attempts_rounds_and_items_multiply(workspace: Path) -> None:
    [found] = estimate_of(
        "  - {id: a, prompt: x, output: json, attempts: 3, foreach: [1, 2], repeat: {until: loop.last, max: 5}}\n",
        workspace,
    )

    assert found.most_calls == 3 * 2 * 5
    assert found.least_calls == 0


def test_files_that_are_read_count(workspace: Path) -> None:
    (workspace / "big.txt").write_text("x" * 10_000)

    [with_file] = estimate_of("  - {id: a, prompt: x, reads: [big.txt]}\n", workspace)
    [without] = estimate_of("  - {id: a, prompt: x}\n", workspace)

    assert 10_000 <= with_file.tokens - without.tokens <= 10_200


def test_the_stage_where_the_budget_ends_is_named(workspace: Path) -> None:
    found = estimate_of("  - {id: a, prompt: x}\n  - {id: b, prompt: x}\n", workspace)

    assert stops_at(found, Decimal("0.0015")) == "b"
    assert stops_at(found, Decimal(1)) is None


@pytest.mark.parametrize("count", [3000])
def test_a_large_pipeline_is_estimated(workspace: Path, count: int) -> None:
    stages = "".join(f"  - {{id: s{n}, prompt: 'x ${{{{ stages.s{n - 1}.output }}}}'}}\n" for n in range(1, count))

    assert len(estimate_of("  - {id: s0, prompt: x}\n" + stages, workspace)) == count
