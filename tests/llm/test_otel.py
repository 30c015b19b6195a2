"""What OpenTelemetry's own SDK gets to see of calls, and that nothing is there unless it is asked for."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import ScriptedProvider

from flowcraft.core.errors import LedgerError, ProviderError, RateLimitError, TransportError
from flowcraft.core.values import LLMSettings, ModelSettings, Prices, Settings
from flowcraft.llm.base import Delta, LLMMessage, Usage
from flowcraft.llm.calls import CallFinished, CallObserver, CallStarted, Observers
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.otel import OpenTelemetry

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

HELLO = [LLMMessage(role="user", content="a secret prompt")]
USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cached_tokens=4, reasoning_tokens=2)
ANSWER = ["a secret ", "answer", Delta(finish_reason="length", usage=USAGE, model="served-1", request_id="req-1")]
MODEL = ModelSettings(
    name="small",
    provider="openai",
    model="vendor-small",
    base_url="https://models.test:8443/v1",
    max_tokens=100,
    params={"temperature": 0.5},
    prices=Prices(input=Decimal(1), output=Decimal(2)),
)
SETTINGS = Settings(
    llm=LLMSettings(
        cheap_models=("small",),
        expensive_models=("small",),
        expensive_stages=("review",),
        qwen_oauth_path=Path("none"),
        models={"small": MODEL},
    )
)


class Seen:
    """An SDK whose exporters keep everything in memory."""

    def __init__(self, *, draft_cost: bool = False) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._meters = MeterProvider([self._reader])
        self.observer = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self._meters, draft_cost=draft_cost)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def facts(self) -> list[Mapping[str, Any]]:
        return [dict(span.attributes or {}) for span in self.spans]

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        metrics = [one for r in data.resource_metrics for scope in r.scope_metrics for one in scope.metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]


def sdk(observer: CallObserver | None, *replies: Any, settings: Settings = SETTINGS) -> LLMIntegration:
    return LLMIntegration(
        settings, providers={"small": ScriptedProvider(*replies)}, observer=observer, jitter=lambda: 0.0
    )


def test_a_call_is_a_span_with_the_names_of_the_conventions() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER) as llm:
        llm.chat_completion(HELLO, "review", top_p=0.9)

    (span,) = seen.spans
    assert span.name == "chat vendor-small"
    assert span.kind is trace.SpanKind.CLIENT
    assert span.status.is_unset
    assert seen.facts == [
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "vendor-small",
            "gen_ai.request.max_tokens": 100,
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.top_p": 0.9,
            "gen_ai.response.model": "served-1",
            "gen_ai.response.finish_reasons": ("length",),
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.cache_read.input_tokens": 4,
            "gen_ai.usage.output_tokens": 5,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "server.address": "models.test",
            "server.port": 8443,
            "flowcraft.model": "small",
            "flowcraft.stage": "review",
            "flowcraft.request_id": "req-1",
            "flowcraft.route.cause": "expensive_stages",
            "flowcraft.route.tier": "expensive",
            "flowcraft.route.event": "first",
            "flowcraft.route.attempt": 1,
            "flowcraft.cost.amount": 0.00002,
            "flowcraft.cost.unit": "USD",
            "flowcraft.cost.source": "local",
            "flowcraft.cost.book": "settings",
        }
    ]


def test_a_request_is_described_as_far_as_the_conventions_go() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER, ANSWER) as llm:
        form = {"type": "json_object"}
        list(llm.stream_completion(HELLO, stop="END", n=2, response_format=form, max_completion_tokens=7))
        llm.chat_completion(HELLO, stop=["a", "b"], n=1, response_format={"type": "text"})

    wished, plain = (
        {name: value for name, value in facts.items() if name.startswith(("gen_ai.request", "gen_ai.output"))}
        for facts in seen.facts
    )
    common = {"gen_ai.request.model": "vendor-small", "gen_ai.request.temperature": 0.5}
    assert wished == {
        **common,
        "gen_ai.request.stream": True,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.max_tokens": 7,
        "gen_ai.output.type": "json",
    }
    assert plain == {
        **common,
        "gen_ai.request.stop_sequences": ("a", "b"),
        "gen_ai.request.max_tokens": 100,
        "gen_ai.output.type": "text",
    }


@pytest.mark.parametrize(("scheme", "port"), [("https", 443), ("http", 80)])
def test_the_port_is_named_where_the_address_is(scheme: str, port: int) -> None:
    seen = Seen()
    model = replace(MODEL, base_url=f"{scheme}://models.test/v1")
    settings = replace(SETTINGS, llm=replace(SETTINGS.llm, models={"small": model}))
    with sdk(seen.observer, ANSWER, settings=settings) as llm:
        llm.chat_completion(HELLO)

    assert (seen.facts[0]["server.address"], seen.facts[0]["server.port"]) == ("models.test", port)


def test_a_stream_is_one_span_that_ends_with_it() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER) as llm:
        pieces = llm.stream_completion(HELLO)
        next(pieces)
        assert seen.spans == []
        list(pieces)

    assert [facts["gen_ai.usage.output_tokens"] for facts in seen.facts] == [5]


def test_a_stream_that_is_left_is_a_cancelled_span() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER) as llm, llm.stream_completion(HELLO) as pieces:
        next(pieces)

    assert [facts["error.type"] for facts in seen.facts] == ["Cancelled"]


def test_each_attempt_is_a_span_of_its_own() -> None:
    seen = Seen()
    busy = RateLimitError("a secret reason", status=429, retryable=True, retry_after_s=0)
    with sdk(seen.observer, TransportError("cut", retryable=True, retry_after_s=0), busy, ANSWER) as llm:
        llm.chat_completion(HELLO)

    assert [(facts["flowcraft.route.event"], facts["flowcraft.route.attempt"]) for facts in seen.facts] == [
        ("first", 1),
        ("retry", 2),
        ("retry", 3),
    ]
    assert [facts.get("error.type") for facts in seen.facts] == ["TransportError", "RateLimitError", None]
    assert [facts.get("http.response.status_code") for facts in seen.facts] == [None, 429, None]
    assert [facts.get("flowcraft.maybe_billed") for facts in seen.facts] == [True, False, None]
    assert [span.status.is_ok or span.status.is_unset for span in seen.spans] == [False, False, True]


def test_counts_time_tokens_and_cost() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER, ANSWER, ProviderError("no")) as llm:
        for _ in range(2):
            llm.chat_completion(HELLO)
        with pytest.raises(ProviderError):
            llm.chat_completion(HELLO)

    tokens = {point.attributes["gen_ai.token.type"]: point.sum for point in seen.points("gen_ai.client.token.usage")}
    durations = seen.points("gen_ai.client.operation.duration")
    assert tokens == {"input": 20, "output": 10}
    assert sorted((point.attributes.get("error.type", ""), point.count) for point in durations) == [
        ("", 2),
        ("ProviderError", 1),
    ]
    assert [point.value for point in seen.points("flowcraft.cost")] == [pytest.approx(0.00004)]


def test_unknown_numbers_are_left_out() -> None:
    seen = Seen()
    with sdk(seen.observer, ["text", Delta(finish_reason="stop")]) as llm:
        llm.chat_completion(HELLO)

    assert not [name for name in seen.facts[0] if "usage" in name or "cost" in name]
    assert seen.points("gen_ai.client.token.usage") == []


@pytest.mark.parametrize("draft", [True, False])
def test_the_names_of_a_draft_are_only_used_when_wanted(draft: bool) -> None:
    seen = Seen(draft_cost=draft)
    with sdk(seen.observer, ANSWER) as llm:
        llm.chat_completion(HELLO)

    wanted = {"gen_ai.usage.cost.amount": 0.00002, "gen_ai.usage.cost.currency": "USD"} if draft else {}
    assert {
        name: value
        for name, value in seen.facts[0].items()
        if name in ("gen_ai.usage.cost.amount", "gen_ai.usage.cost.currency")
    } == wanted


def test_neither_prompt_nor_answer_nor_reason_is_recorded() -> None:
    seen = Seen(draft_cost=True)
    with sdk(seen.observer, ANSWER, ProviderError("a secret reason")) as llm:
        llm.chat_completion(HELLO)
        with pytest.raises(ProviderError):
            llm.chat_completion(HELLO)

    assert "secret" not in "".join(span.to_json() for span in seen.spans)


def test_the_calls_of_a_run_are_below_its_span() -> None:
    seen = Seen()
    with sdk(seen.observer, ANSWER) as llm, seen.observer.workflow("quickstart"):
        llm.chat_completion(HELLO)

    call, run = seen.spans
    assert run.name == "invoke_workflow quickstart"
    assert dict(run.attributes or {}) == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "quickstart",
    }
    assert call.parent == run.get_span_context()


def test_the_span_of_a_run_that_breaks_tells_what_broke_it_but_not_in_its_words() -> None:
    seen = Seen()
    with pytest.raises(LedgerError), seen.observer.workflow("quickstart"):
        raise LedgerError("a secret prompt")

    (run,) = seen.spans
    assert (run.status.status_code, run.status.description) == (trace.StatusCode.ERROR, "LedgerError")
    assert run.events == ()


class Broken:
    """A provider of tracers whose spans cannot be started."""

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        return self

    def start_span(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no span today")


def test_telemetry_that_fails_disturbs_no_call() -> None:
    observer = OpenTelemetry(tracer_provider=Broken())
    with sdk(observer, ANSWER) as llm, observer.workflow("quickstart"):
        assert llm.chat_completion(HELLO).content == "a secret answer"


class Books:
    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.told: list[str] = []

    def started(self, call: CallStarted) -> None:
        self.told.append("started")

    def finished(self, call: CallFinished) -> None:
        self.told.append("finished")
        if self.full:
            raise LedgerError("disk full")


def test_all_observers_are_told_of_an_end_even_if_one_fails() -> None:
    seen, books = Seen(), Books(full=True)
    with sdk(Observers(books, seen.observer), ANSWER) as llm, pytest.raises(LedgerError):
        llm.chat_completion(HELLO)

    assert books.told == ["started", "finished"]
    assert len(seen.spans) == 1


@pytest.mark.parametrize("wanted", ["off", "otel", "otel+cost"])
def test_the_settings_turn_it_on_beside_the_books(wanted: str) -> None:
    books = Books()
    settings = replace(SETTINGS, llm=replace(SETTINGS.llm, telemetry=wanted))
    with sdk(books, ANSWER, settings=settings) as llm, llm.workflow("run"):
        assert llm.chat_completion(HELLO).content == "a secret answer"

    assert books.told == ["started", "finished"]
    assert (llm._telemetry is not None) == (wanted != "off")


def test_nothing_is_loaded_unless_it_is_wanted() -> None:
    code = "import sys, flowcraft.llm.integration; print([name for name in sys.modules if 'opentelemetry' in name])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_a_missing_package_is_said_and_no_reason_to_stop() -> None:
    code = """
import logging, sys
sys.path[:0] = sys.argv[1:]
sys.modules["opentelemetry"] = None
logging.basicConfig()
from flowcraft.llm.integration import _telemetry
print(_telemetry("otel"))
"""
    done = subprocess.run([sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=True)

    assert done.stdout == "None\n"
    assert "OpenTelemetry is not installed: pip install" in done.stderr
