"""`retry` of a prompt stage: how often a busy service is asked again, and that it is given the time it wants."""

from pathlib import Path
from typing import Any

import pytest
from fakes import settings_of
from servers import ChatServer, answer, raw, status

from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.integration import LLMIntegration
from flowcraft.runner.events import AttemptEnded, Event
from flowcraft.runner.outcome import RunRecord
from flowcraft.runner.run import run_pipeline

BUSY = status(429, headers={"Retry-After": "0.01"})


def run_(server: ChatServer, keys: str = "", head: str = "", *, retries: int = 2, **options: Any) -> RunRecord:
    Path("p.yaml").write_text(f"flowcraft: 1\n{head}stages: [{{id: a, prompt: hi{keys}}}]\n")
    model = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)
    # Without a wait that is asked for, the next try comes at once: so a wait is one that was asked for.
    with LLMIntegration(settings_of(model, retries=retries), jitter=lambda: 0.0) as llm:
        return run_pipeline("p.yaml", llm=llm, **options)


def test_a_busy_service_is_asked_again_as_often_as_the_stage_says() -> None:
    with ChatServer(BUSY, BUSY, BUSY, answer("hello")) as server:
        record = run_(server, ", retry: 3", retries=0)

    assert record.outcomes[0].output == "hello"
    assert [attempt.event for attempt in record.outcomes[0].attempts] == ["first", "retry", "retry", "retry"]


@pytest.mark.parametrize(
    ("keys", "head", "retries", "requests"),
    [
        ("", "", 1, 2),
        (", retry: 0", "", 1, 1),
        ("", "defaults: {retry: 2}\n", 0, 3),
        (", retry: 1", "defaults: {retry: 3}\n", 0, 2),
    ],
)
def test_the_stage_wins_over_defaults_and_those_over_the_settings(
    keys: str, head: str, retries: int, requests: int
) -> None:
    with ChatServer(BUSY) as server:
        record = run_(server, keys, head, retries=retries)

    assert (record.status, len(server.requests)) == ("failed", requests)


def test_a_request_on_a_connection_that_was_dead_already_costs_nothing() -> None:
    text = "flowcraft: 1\nstages: [{id: a, prompt: one}, {id: b, prompt: two}]\n"
    Path("p.yaml").write_text(text)
    with ChatServer(answer("1"), raw(), answer("2")) as server:
        model = ModelSettings(name="m", provider="openai", model="m", base_url=server.base_url)
        with LLMIntegration(settings_of(model, retries=0)) as llm:
            record = run_pipeline("p.yaml", llm=llm)

    assert (record.status, len(server.requests)) == ("succeeded", 3)
    assert [(attempt.event, attempt.cost) for attempt in record.outcomes[1].attempts] == [("first", 0), ("retry", None)]


def test_a_wait_that_the_service_asks_for_is_kept() -> None:
    scope = Scope()

    def heard(event: Event) -> None:
        if isinstance(event, AttemptEnded):
            scope.cancel()

    with ChatServer(status(503, headers={"Retry-After": "50"}), answer("hello")) as server:
        record = run_(server, ", retry: 1", scope=scope, on_event=heard)

    # Without the wait it would have been asked again before anybody could stop it.
    assert (record.status, len(server.requests)) == ("interrupted", 1)


@pytest.mark.parametrize(("wait", "keys"), [("3600", ", retry: 2"), ("20", ", retry: 2, timeout: 5")])
def test_a_wait_that_is_too_long_ends_the_stage_at_once(wait: str, keys: str) -> None:
    with ChatServer(status(429, headers={"Retry-After": wait}), answer("hello")) as server:
        record = run_(server, keys)

    assert (record.status, len(server.requests)) == ("failed", 1)
    assert "429" in str(record.outcomes[0].error)
