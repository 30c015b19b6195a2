"""What OpenTelemetry's own SDK gets to see of a run: one span, and below it those of all calls in all threads."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

TESTS = Path(__file__).parents[1]
# In a process of its own: the provider of tracers is one for all, and can be set only once.
PROGRAM = """
import json, sys
sys.path[:0] = {paths!r}
from fakes import ScriptedProvider, llm_of
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from flowcraft.runner.run import run_pipeline

seen, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(seen))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("the caller")
with llm_of(ScriptedProvider(otherwise="done"), telemetry={telemetry!r}) as llm:
    with tracer.start_as_current_span("the caller"):
        run_pipeline("p.yaml", llm=llm, on_event={listener})
spans = seen.get_finished_spans()
names = {{span.get_span_context().span_id: span.name for span in spans}}
found = [(span.name, names.get(span.parent.span_id) if span.parent else None, span.attributes) for span in spans]
print(json.dumps([(name, parent, dict(facts).get("flowcraft.stage")) for name, parent, facts in found]))
"""


def spans_of(listener: str, telemetry: str = "otel") -> list[list[Any]]:
    """The spans of a run as [name, name of the parent, stage], in the order of their ends."""
    Path("p.yaml").write_text(
        "flowcraft: 1\nname: quick\nstages:\n  - {id: a, prompt: x}\n  - {id: b, prompt: y}\n"
        "  - {id: c, foreach: {in: [1, 2, 3]}, prompt: 'item ${{ item }}'}\n"
    )
    program = PROGRAM.format(paths=[str(TESTS), str(TESTS.parent)], listener=listener, telemetry=telemetry)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("listener", ["None", "lambda event: None"])
def test_all_calls_of_a_run_are_below_its_one_span(listener: str) -> None:
    *calls, run, caller = spans_of(listener)

    assert caller == ["the caller", None, None]
    assert run == ["invoke_workflow quick", "the caller", None]
    assert [(name, parent) for name, parent, _ in calls] == [("chat small-1", "invoke_workflow quick")] * 5
    assert sorted(stage for *_, stage in calls) == ["a", "b", "c", "c", "c"]


def test_a_run_has_no_span_unless_it_is_asked_for() -> None:
    assert spans_of("None", telemetry="off") == [["the caller", None, None]]
