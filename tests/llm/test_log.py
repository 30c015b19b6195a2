"""What calls leave in the log: one line for each attempt, and nothing of what was said."""

import logging
from pathlib import Path

import pytest
from fakes import ScriptedProvider

from flowcraft.core.errors import ProviderError, RateLimitError
from flowcraft.core.values import LLMSettings, ModelSettings, Settings
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.integration import LLMIntegration

HELLO = [LLMMessage(role="user", content="a secret prompt")]
BUSY = RateLimitError("a secret prompt is too much", status=429, retryable=True, retry_after_s=0)


def sdk(small: ScriptedProvider, spare: ScriptedProvider | None = None) -> LLMIntegration:
    models = {name: ModelSettings(name=name, provider="openai", model=name) for name in ("small", "spare")}
    llm = LLMSettings(
        cheap_models=("small", "spare"),
        expensive_models=("small",),
        expensive_stages=(),
        qwen_oauth_path=Path("none"),
        models=models,
    )
    providers = {"small": small, "spare": spare or ScriptedProvider("spare")}
    return LLMIntegration(Settings(llm=llm), providers=providers, jitter=lambda: 0.0)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "flowcraft.llm.attempts"
    ]


def test_one_line_for_each_attempt(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "flowcraft"), sdk(ScriptedProvider(BUSY, "a secret answer")) as llm:
        llm.chat_completion(HELLO)

    failed, answered = lines(caplog)
    assert failed == "INFO small did not answer (attempt 1): RateLimitError 429"
    assert answered.startswith("INFO small answered in 0.")
    assert answered.endswith(" s: stop, 10 + 5 tokens")


def test_a_fallback_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "flowcraft"), sdk(ScriptedProvider(BUSY, BUSY, BUSY)) as llm:
        llm.chat_completion(HELLO)

    assert lines(caplog) == ["WARNING small is not available (RateLimitError 429), falling back to spare"]


def test_nothing_that_was_said_is_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    failing = ScriptedProvider("a secret answer", ProviderError("a secret reason"))
    with caplog.at_level(logging.INFO, "flowcraft"), sdk(failing) as llm:
        llm.chat_completion(HELLO)
        with pytest.raises(ProviderError):
            llm.chat_completion(HELLO)

    assert lines(caplog)
    assert "secret" not in "\n".join(lines(caplog))
