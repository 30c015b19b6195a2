import json
import os
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from agents.asking import KIRO_STUB, Asking, ask, children, closing, descriptors, eventually, request
from pictures import png

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    ProviderError,
    QuotaError,
    RateLimitError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.agents.kiro.probe import check_login
from flowcraft.llm.base import LLMMessage, Usage
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.parts import ImagePart
from flowcraft.llm.providers.kiro import KiroProvider

Kiro = Callable[..., KiroProvider]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "kiro.log"


@pytest.fixture
def kiro(tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch) -> Kiro:
    """Puts the stand-in into PATH and makes a provider; `stub` is how its `chat` ends, `acp` how its ACP mode acts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "kiro-cli"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{KIRO_STUB}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("KIRO_API_KEY", "ksk_test")
    monkeypatch.setenv("KIRO_STUB_LOG", str(log))

    def make(stub: str = "ok", *, idle_s: float = 10, model: str = "kiro-cli", **more: Any) -> KiroProvider:
        monkeypatch.setenv("KIRO_STUB", stub)
        for name in ("version", "whoami", "flags", "acp"):
            if name in more:
                monkeypatch.setenv(f"KIRO_STUB_{name.upper()}", more.pop(name))
        timeouts = Timeouts(first_event=10, idle=idle_s)
        return KiroProvider(
            ModelSettings(name="kiro-cli", provider="kiro-cli", model=model, timeouts=timeouts, options=more)
        )

    return make


def started(log: Path) -> list[list[str]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def failing(provider: KiroProvider, text: str = "hi") -> ProviderError:
    with closing(provider), pytest.raises(ProviderError) as caught:
        ask(provider, text)
    assert not children()
    return caught.value


PICTURE = [LLMMessage("user", [{"type": "text", "text": "what is it?"}, ImagePart(data=png(), name="photo.png")])]


def test_images_go_through_its_acp_mode(kiro: Kiro) -> None:
    with closing(kiro(acp="blocks")) as provider:
        assert provider.chat_completion(PICTURE).content.startswith("text what is it?|image image/png ")


@pytest.mark.parametrize("transport", ["auto", "plain", "stream-json"])
def test_its_chat_command_is_not_started_for_an_image(kiro: Kiro, log: Path, transport: str) -> None:
    with closing(kiro(transport=transport)) as provider, pytest.raises(UsageError, match="photo.png"):
        provider.chat_completion(PICTURE)
    assert ["chat", "--no-interactive"] not in [argv[:2] for argv in started(log)]


def test_it_works_with_no_setting_at_all(kiro: Kiro) -> None:
    kiro()
    provider = LLMProviderFactory.create(ModelSettings(name="kiro-cli", provider="kiro-cli", model="kiro-cli"))
    with closing(provider):
        answer = ask(provider)
    assert answer.content == "Hello, wörld!\n\n> a quote\n\nlast line without a newline"
    assert (answer.finish_reason, answer.usage) == ("stop", Usage(credits=Decimal("0.24")))


def test_acp_is_used_where_it_is_there(kiro: Kiro, log: Path) -> None:
    with closing(kiro(acp="kiro_usage", model="claude-sonnet-4.6", effort="high", agent="bare")) as provider:
        answer = ask(provider)
    assert (answer.content, answer.usage) == ("ok", Usage(credits=Decimal("0.25")))
    assert started(log)[-1] == [
        "acp", "--agent-engine", "v2", "--model", "claude-sonnet-4.6", "--agent", "bare",
    ]  # fmt: skip
    assert not children()


def test_structured_output_is_used_where_it_is_offered(kiro: Kiro, log: Path) -> None:
    with closing(kiro(flags="--agent-engine --output-format --wrap")) as provider:
        answer = ask(provider, "you")
    assert (answer.content, answer.reasoning, answer.usage) == ("Hello, you", "hm", Usage(credits=Decimal("0.5")))
    assert started(log)[-1] == [
        "chat", "--no-interactive", "--agent-engine", "v2", "--output-format", "stream-json", "--trust-tools=",
    ]  # fmt: skip


def test_plain_chat_gets_the_prompt_on_stdin_and_trusts_no_tool(kiro: Kiro, log: Path) -> None:
    with closing(kiro("echo", model="auto", transport="plain")) as provider:
        assert ask(provider, "x" * 200_000).content == "x" * 200_000
    assert started(log)[-1] == [
        "chat", "--no-interactive", "--agent-engine", "v2", "--wrap", "never", "--model", "auto", "--trust-tools=",
    ]  # fmt: skip


def test_it_is_checked_once_and_a_missing_acp_is_tried_once(kiro: Kiro, log: Path) -> None:
    with closing(kiro("echo")) as provider:
        assert [ask(provider, text).content for text in ("a", "b")] == ["a", "b"]
    assert [argv[0] for argv in started(log)] == ["--version", "whoami", "chat", "acp", "chat", "chat"]


def test_a_whole_conversation_reaches_it(kiro: Kiro) -> None:
    messages = [LLMMessage("system", "be brief"), LLMMessage("user", "hi")]
    with closing(kiro("echo", transport="plain")) as provider:
        answer = provider.chat_completion(messages).content
    assert "<system>\nbe brief\n</system>\n\n<user>\nhi\n</user>" in answer


def test_the_sign_is_dropped_before_each_response(kiro: Kiro) -> None:
    with closing(kiro("two_rounds")) as provider:
        assert ask(provider).content == "First I look.\nCompleted in 0.1s\nThen I answer."


def test_it_sees_an_empty_folder_and_few_variables(kiro: Kiro, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "s3cret")
    with closing(kiro("report", transport="plain")) as provider:
        seen = json.loads(ask(provider).content)
    assert seen["files"] == []
    assert not os.path.exists(seen["cwd"])
    assert "DATABASE_PASSWORD" not in seen["env"]
    assert (seen["env"]["NO_COLOR"], seen["env"]["TERM"]) == ("1", "dumb")


@pytest.mark.parametrize(
    ("stub", "kind", "retryable"),
    [
        ("quota", QuotaError, False),
        ("rate", RateLimitError, True),
        ("throttle", RateLimitError, True),
        ("key", AuthError, False),
        ("session", AuthError, False),
        ("notlogged", AuthError, False),
        ("overload", TransportError, True),
        ("overload2", TransportError, True),
        ("badmodel", ProviderError, False),
        ("toolarge", ProviderError, False),
        ("malformed", ProviderError, False),
        ("transient", TransportError, True),
        ("tool", TransportError, True),
        ("nothing", TransportError, True),
        ("usage", TransportError, True),
    ],
)
def test_each_documented_failure_has_its_type(
    kiro: Kiro, stub: str, kind: type[ProviderError], retryable: bool
) -> None:
    error = failing(kiro(stub, transport="plain"))
    assert (type(error), error.retryable) == (kind, retryable)
    assert error.hint
    assert "\x1b" not in str(error)


def test_the_envelope_and_the_request_id_are_not_part_of_the_message(kiro: Kiro) -> None:
    assert failing(kiro("throttle")).message.startswith("kiro-cli: ThrottlingException")
    error = failing(kiro("rate"))
    assert (error.request_id, error.message) == ("1111-aaaa", "kiro-cli: Kiro rate limit reached: Too many requests.")


@pytest.mark.parametrize("stub", ["crash", "killed"])
def test_an_answer_without_its_credits_is_no_answer(kiro: Kiro, stub: str) -> None:
    error = failing(kiro(stub, transport="plain"))
    assert type(error) is TransportError
    assert error.partial_text.startswith("half")
    assert error.retryable is False


@pytest.mark.parametrize("stub", ["unfinished", "failed"])
def test_structured_output_without_a_good_end_is_no_answer(kiro: Kiro, stub: str) -> None:
    error = failing(kiro(stub, transport="stream-json"))
    assert isinstance(error, RateLimitError if stub == "failed" else TransportError)
    assert error.partial_text == "Hello, hi"


def test_a_login_prompt_is_an_error_and_never_waited_for(kiro: Kiro) -> None:
    error = failing(kiro("login"))
    assert type(error) is AuthError
    assert "kiro-cli login" in str(error.hint)


@pytest.mark.parametrize("acp", ["login", "needs_login"])
def test_a_login_that_acp_asks_for_is_an_error(kiro: Kiro, acp: str) -> None:
    assert type(failing(kiro(acp=acp))) is AuthError


def test_an_agent_error_over_acp_does_not_fall_back_to_chat(kiro: Kiro, log: Path) -> None:
    assert type(failing(kiro(acp="fail:-32603:Monthly request limit reached"))) is QuotaError
    assert started(log)[-1][0] == "acp"


def test_a_helper_that_keeps_the_pipes_open_delays_nothing_for_long(kiro: Kiro) -> None:
    with closing(kiro("leak", transport="plain")) as provider:
        assert ask(provider).content == "done"
    assert not children()


def test_one_megabyte_is_an_answer(kiro: Kiro) -> None:
    with closing(kiro("big", transport="plain")) as provider:
        assert len(ask(provider).content) == 1 << 20


def test_a_flood_is_stopped(kiro: Kiro) -> None:
    assert "wrote more than" in failing(kiro("flood", transport="plain")).message


def test_a_deaf_program_is_killed_when_the_call_is_cancelled(kiro: Kiro) -> None:
    with closing(kiro("deaf", transport="plain")) as provider:
        asking = Asking(provider).first()
        asking.scope.cancel()
        assert type(asking.end().error) is Cancelled
    assert not children()


def test_silence_ends_a_program(kiro: Kiro) -> None:
    error = failing(kiro("slow", transport="plain", idle_s=0.3))
    assert type(error) is DeadlineError
    assert error.partial_text == "never ending"


def test_the_total_limit_ends_a_program(kiro: Kiro) -> None:
    with closing(kiro("slow", transport="plain")) as provider, pytest.raises(DeadlineError):
        list(provider.deltas(request(scope=Scope(1.0))))
    assert not children()


def test_leaving_the_stream_early_ends_the_program(kiro: Kiro) -> None:
    before = descriptors()
    with closing(kiro("slow", transport="plain")) as provider:
        with provider.stream_completion([LLMMessage("user", "hi")]) as stream:  # type: ignore[attr-defined]
            assert next(stream) == "never ending"
        assert not children()
    assert descriptors() == before


def test_without_a_login_nothing_is_asked(kiro: Kiro, log: Path) -> None:
    error = failing(kiro(whoami="no"))
    assert type(error) is AuthError
    assert started(log)[-1] == ["whoami"]


def test_a_login_check_that_hangs_is_not_waited_for(kiro: Kiro, tmp_path: Path) -> None:
    kiro(whoami="hang")
    with pytest.raises(AuthError):
        check_login(str(tmp_path / "bin" / "kiro-cli"), dict(os.environ), str(tmp_path), Scope(), limit_s=0.3)
    assert not children()


def test_without_a_credential_the_program_is_not_even_asked(
    kiro: Kiro, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = kiro()
    monkeypatch.delenv("KIRO_API_KEY")
    error = failing(provider)
    assert type(error) is AuthError
    assert "KIRO_API_KEY" in error.message
    assert started(log) == [["--version"]]  # even `chat --help` may start a login
    assert str(provider.missing()).startswith("a login (nobody is logged in")


def test_a_login_in_the_browser_is_a_credential(kiro: Kiro, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = kiro("echo")
    monkeypatch.delenv("KIRO_API_KEY")
    monkeypatch.setenv("XDG_DATA_HOME", os.environ["HOME"])
    store = Path(os.environ["HOME"], "kiro-cli")
    store.mkdir()
    (store / "data.sqlite3").touch()
    with closing(provider):
        assert provider.missing() is None
        assert ask(provider, "a").content == "a"


def test_after_a_login_the_same_provider_answers(kiro: Kiro, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = kiro("key")
    with closing(provider):
        with pytest.raises(AuthError):
            ask(provider)
        monkeypatch.setenv("KIRO_STUB", "echo")
        assert ask(provider, "a").content == "a"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("kiro-cli, version 1.0.2", "is not Kiro CLI"),
        ("Kiro scaffolding 3.4.5", "is not Kiro CLI"),
        ("kiro-cli 1.0.2", "at least version 1.26.0"),
        ("", "is not Kiro CLI"),
    ],
)
def test_another_program_of_that_name_is_not_used(kiro: Kiro, log: Path, version: str, said: str) -> None:
    error = failing(kiro(version=version))
    assert said in error.message
    assert "kiro.dev" in str(error.hint)
    assert (error.retryable, error.sent) == (False, False)
    assert started(log) == [["--version"]]


def test_a_missing_program_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    provider = KiroProvider()
    error = failing(provider)
    assert "was not found" in error.message
    assert "kiro.dev" in str(error.hint)
    assert str(provider.missing()).startswith("the program 'kiro-cli' (")


def test_a_program_that_may_not_be_executed_is_not_found(kiro: Kiro, workspace: Path) -> None:
    (workspace / "kiro").write_text("text")
    assert "may not be executed" in failing(kiro(command=str(workspace / "kiro"))).message


def test_a_call_that_waits_for_the_check_of_another_can_be_cancelled(kiro: Kiro) -> None:
    with closing(kiro(whoami="hang")) as provider:
        checking = Asking(provider)
        assert eventually(lambda: bool(children()))
        waiting = Asking(provider)
        waiting.scope.cancel()
        assert type(waiting.end().error) is Cancelled
        checking.scope.cancel()
        assert type(checking.end().error) is Cancelled
    assert not children()


def test_the_four_keys_of_the_settings_are_enough(kiro: Kiro, workspace: Path) -> None:
    kiro("echo")
    (workspace / "settings.yaml").write_text("llm:\n  cheap_model: embedded\n  expensive_model: kiro-cli\n")
    with LLMIntegration(SettingsManager()) as llm:
        answer = llm.chat_completion([LLMMessage("user", "hi")], stage_name="security_review")
        pieces = list(llm.stream_completion([LLMMessage("user", "ho")], model="kiro-cli"))
    assert (answer.content, answer.provider, answer.cost) == ("hi", "kiro-cli", None)
    assert "".join(pieces) == "ho"
    assert not children()
