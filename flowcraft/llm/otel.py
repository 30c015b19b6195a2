"""Spans and metrics of calls for OpenTelemetry: GenAI semantic conventions, and our own names beginning `flowcraft.`.

Speaks to the API package only; who sets up an SDK gets the data, for everybody else it is a no-op. Prompts and
answers are never recorded. The API is imported when an object is made: it is optional, and loads asyncio.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from flowcraft.core.errors import FlowcraftError, ProviderError
from flowcraft.core.values import ModelSettings
from flowcraft.core.version import VERSION
from flowcraft.llm.base import LLMResponse, Usage
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.pricebook import rates

log = logging.getLogger(__name__)

INSTALL = "pip install 'flowcraft-sdk[otel]'"
_PARAMETERS = ("temperature", "top_p", "top_k", "max_tokens", "seed", "frequency_penalty", "presence_penalty")
_PORTS = {"https": 443, "http": 80}
# As the conventions advise.
_SECONDS = [0.01 * 2**power for power in range(14)]
_TOKENS = [4**power for power in range(14)]


class OpenTelemetry:
    """A `CallObserver` that makes one span of each attempt, and its metrics.

    Without arguments it uses the global providers. `draft_cost` adds `gen_ai.usage.cost.*`, which the conventions
    have not accepted yet. Nothing that goes wrong in here disturbs a call. Raises ImportError without OpenTelemetry.
    """

    def __init__(self, *, tracer_provider: Any = None, meter_provider: Any = None, draft_cost: bool = False) -> None:
        trace, metrics = import_module("opentelemetry.trace"), import_module("opentelemetry.metrics")
        self._trace = trace
        self._draft_cost = draft_cost
        self._tracer = trace.get_tracer("flowcraft", VERSION, tracer_provider)
        meter = metrics.get_meter("flowcraft", VERSION, meter_provider)
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="How long an attempt took",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens of an attempt, as the service reported them",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._cost = meter.create_counter("flowcraft.cost", unit="{USD}", description="Known cost of the calls")
        self._open: dict[str, tuple[Any, CallStarted]] = {}

    def started(self, call: CallStarted) -> None:
        """Begin the span of an attempt, below the current one."""
        try:
            model = call.choice.model
            span = self._tracer.start_span(
                f"chat {model.model}".strip(), kind=self._trace.SpanKind.CLIENT, attributes=_request(call)
            )
            self._open[call.id] = (span, call)
        except Exception as error:
            log.warning("telemetry failed: %s", type(error).__name__)

    def finished(self, call: CallFinished) -> None:
        """End the span and count."""
        span, start = self._open.pop(call.id, (None, None))
        if span is None or start is None:
            return
        try:
            self._end(span, start, call)
        except Exception as error:
            log.warning("telemetry failed: %s", type(error).__name__)

    @contextmanager
    def workflow(self, name: str) -> Iterator[None]:
        """The span of a run, current in this thread (and in contexts copied from it) until the end of the block."""
        attributes = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.workflow.name": name}
        try:
            span = self._tracer.start_span(f"invoke_workflow {name}", attributes=attributes)
        except Exception as error:
            log.warning("telemetry failed: %s", type(error).__name__)
            yield
            return
        # Not the text of an error: it may quote a prompt.
        with self._trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                span.set_status(self._trace.StatusCode.ERROR, type(error).__name__)
                raise

    def _end(self, span: Any, start: CallStarted, call: CallFinished) -> None:
        labels = _labels(start.choice.model)
        if call.response is not None:
            span.set_attributes(self._answer(start.choice.model, call.response))
            labels["gen_ai.response.model"] = call.response.model
            self._count(labels, call.response)
        if call.error is not None:
            labels["error.type"] = _error_type(call.error)
            span.set_attributes(_failure(call.error))
            span.set_status(self._trace.StatusCode.ERROR, type(call.error).__name__)
        self._seconds.record(call.seconds, labels)
        span.end()

    def _count(self, labels: Mapping[str, Any], response: LLMResponse) -> None:
        usage = response.usage or Usage()
        for kind, number in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if number is not None:
                self._tokens.record(number, {**labels, "gen_ai.token.type": kind})
        if response.cost is not None:
            self._cost.add(float(response.cost), labels)

    def _answer(self, model: ModelSettings, response: LLMResponse) -> dict[str, Any]:
        usage = response.usage or Usage()
        facts: dict[str, Any] = {
            "gen_ai.response.model": response.model,
            "gen_ai.response.finish_reasons": [response.finish_reason],
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_creation_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
            "flowcraft.request_id": response.request_id,
        }
        if response.cost is not None:
            price = rates(model)
            facts["flowcraft.cost.amount"] = float(response.cost)
            facts["flowcraft.cost.unit"] = "USD"
            facts["flowcraft.cost.source"] = "local" if price else "provider"
            facts["flowcraft.cost.book"] = price.source if price else None
            if self._draft_cost:
                facts["gen_ai.usage.cost.amount"] = float(response.cost)
                facts["gen_ai.usage.cost.currency"] = "USD"
                facts["gen_ai.usage.cost.source"] = facts["flowcraft.cost.source"]
        return _known(facts)


def _request(call: CallStarted) -> dict[str, Any]:
    choice, model = call.choice, call.choice.model
    facts: dict[str, Any] = {
        **_labels(model),
        "flowcraft.model": model.name,
        "flowcraft.stage": choice.stage,
        "flowcraft.route.cause": choice.cause,
        "flowcraft.route.tier": choice.tier,
        "flowcraft.route.event": call.event,
        "flowcraft.route.attempt": call.attempt,
    }
    given = {"max_tokens": model.max_tokens, **model.params, **call.request.params}
    given["max_tokens"] = given.get("max_completion_tokens") or given["max_tokens"]
    for name in _PARAMETERS:
        value = given.get(name)
        if isinstance(value, (int, float)):
            facts[f"gen_ai.request.{name}"] = value
    stop, count, form = given.get("stop"), given.get("n"), given.get("response_format")
    facts["gen_ai.request.stop_sequences"] = [stop] if isinstance(stop, str) else stop
    facts["gen_ai.request.choice.count"] = count if count != 1 else None
    facts["gen_ai.request.stream"] = call.request.stream or None
    facts["gen_ai.output.type"] = str(form.get("type")).partition("_")[0] if isinstance(form, Mapping) else None
    return _known(facts)


def _labels(model: ModelSettings) -> dict[str, Any]:
    """What tells one series of a metric from another: few values each."""
    address = urlsplit(model.base_url or "")
    return _known(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": model.provider,
            "gen_ai.request.model": model.model or None,
            "server.address": address.hostname,
            "server.port": address.port or _PORTS.get(address.scheme),
        }
    )


def _failure(error: FlowcraftError) -> dict[str, Any]:
    # The message is left out: a service may have quoted the prompt in it.
    facts: dict[str, Any] = {"error.type": _error_type(error)}
    if isinstance(error, ProviderError):
        facts["http.response.status_code"] = error.status
        facts["flowcraft.request_id"] = error.request_id
        facts["flowcraft.maybe_billed"] = error.sent and error.status is None
    return _known(facts)


def _error_type(error: FlowcraftError) -> str:
    return type(error).__name__


def _known(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value is not None}
