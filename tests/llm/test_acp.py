import json
import os
import signal
import sys
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from agents.asking import Asking, acp, ask, children, closing, descriptors, eventually, gone, request

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    ProviderError,
    QuotaError,
    RateLimitError,
    ReplyError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import Usage
from flowcraft.llm.providers.acp import AcpProvider


def told(log: Path, method: str | None = None) -> list[dict[str, Any]]:
    messages = [json.loads(line) for line in log.read_text().splitlines()]
    return [message for message in messages if method is None or message.get("method") == method]


def failing(behaviour: str, **config: Any) -> ProviderError:
    with closing(acp(behaviour, **config)) as provider, pytest.raises(ProviderError) as caught:
        ask(provider)
    assert not children()
    return caught.value


def test_text_comes_in_pieces_and_thoughts_apart() -> None:
    with closing(acp()) as provider:
        pieces = list(provider.deltas(request()))
    assert [(piece.reasoning, piece.content) for piece in pieces[:-1]] == [
        ("thinking", ""),
        ("", "Hello, "),
        ("", "wörld"),
    ]
    assert pieces[-1].finish_reason == "stop"
    assert pieces[-1].usage == Usage(prompt_tokens=7, completion_tokens=3, total_tokens=10)


def test_no_capability_is_claimed_and_the_session_starts_in_an_empty_folder(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp(log=log)) as provider:
        ask(provider)
    (hello,) = told(log, "initialize")
    assert hello["params"]["protocolVersion"] == 1
    assert hello["params"]["clientCapabilities"] == {
        "fs": {"readTextFile": False, "writeTextFile": False},
        "terminal": False,
    }
    (session,) = told(log, "session/new")
    assert session["params"]["mcpServers"] == []
    assert os.path.isabs(session["params"]["cwd"])
    assert not os.path.exists(session["params"]["cwd"])


def test_an_agent_sees_an_empty_folder_and_few_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "s3cret")
    monkeypatch.setenv("MY_AGENT_KEY", "for the agent")
    with closing(acp("folder", env=["MY_AGENT_*"])) as provider:
        seen = json.loads(ask(provider).content)
    assert seen["files"] == []
    assert "DATABASE_PASSWORD" not in seen["env"]
    assert seen["env"]["MY_AGENT_KEY"] == "for the agent"
    assert seen["env"]["NO_COLOR"] == "1"


def test_one_process_answers_several_prompts_each_in_its_own_session() -> None:
    with closing(acp("count")) as provider:
        answers = [ask(provider).content.split() for _ in range(3)]
    assert len({pid for pid, _ in answers}) == 1
    assert [sessions for _, sessions in answers] == ["1", "2", "3"]


def test_prompts_at_the_same_time_get_processes_of_their_own() -> None:
    with closing(acp("cancel")) as provider:
        both = [Asking(provider).first() for _ in range(2)]
        assert len(children()) == 2
        for asking in both:
            asking.scope.cancel()
        assert [type(asking.end().error) for asking in both] == [Cancelled, Cancelled]


def test_a_dead_agent_is_replaced() -> None:
    with closing(acp("count")) as provider:
        pid, _ = ask(provider).content.split()
        os.kill(int(pid), signal.SIGKILL)
        assert eventually(lambda: gone(int(pid)))
        other, sessions = ask(provider).content.split()
    assert (other != pid, sessions) == (True, "1")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end_turn", "stop"), ("max_tokens", "length"), ("max_turn_requests", "length"), ("refusal", "content_filter")],
)
def test_each_stop_reason_is_told_in_our_words(reason: str, finish: str) -> None:
    with closing(acp(f"stop:{reason}")) as provider:
        assert ask(provider).finish_reason == finish


@pytest.mark.parametrize(("reason", "kind"), [("cancelled", TransportError), ("bored", ReplyError)])
def test_a_turn_that_ended_for_another_reason_is_no_answer(reason: str, kind: type[ProviderError]) -> None:
    error = failing(f"stop:{reason}")
    assert type(error) is kind
    assert error.partial_text == "some text"


def test_usage_is_found_in_the_quota_of_gemini() -> None:
    with closing(acp("gemini_usage")) as provider:
        assert ask(provider).usage == Usage(prompt_tokens=11, completion_tokens=2)


def test_credits_count_once_and_tokens_stay_unknown() -> None:
    with closing(acp("kiro_usage")) as provider:
        assert ask(provider).usage == Usage(credits=Decimal("0.25"))


def test_lines_and_updates_that_nobody_knows_are_passed_over() -> None:
    with closing(acp("noise")) as provider:
        assert ask(provider).content == "Hello, wörld"


def test_a_line_of_3_mb_is_a_message() -> None:
    with closing(acp("huge")) as provider:
        assert len(ask(provider).content) == 3_000_000


@pytest.mark.parametrize(
    ("behaviour", "chosen"),
    [
        ("models", ("session/set_model", {"sessionId": "s1", "modelId": "large"})),
        ("options", ("session/set_config_option", {"sessionId": "s1", "configId": "the-model", "value": "large"})),
    ],
)
def test_a_model_is_chosen_the_way_the_agent_offers(behaviour: str, chosen: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp(behaviour, model="large", log=log)) as provider:
        ask(provider)
    method, params = chosen
    assert [message["params"] for message in told(log, method)] == [params]


def test_the_model_that_is_already_chosen_is_not_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp("models", model="small", log=log)) as provider:
        ask(provider)
    assert not told(log, "session/set_model")


def test_a_model_that_is_not_offered_is_an_error_with_the_nearest_name() -> None:
    error = failing("models", model="larg")
    assert "has no model 'larg'" in error.message
    assert error.hint == "did you mean 'large'?"
    assert (error.retryable, error.sent) == (False, False)


def test_a_name_of_ours_is_no_model_of_the_agent() -> None:
    with closing(acp("models", model="agent")) as provider:
        assert ask(provider).content == "Hello, wörld"


@pytest.mark.parametrize(("permission", "chosen"), [("reject", "7"), ("allow", "reject"), (None, "7"), ("yes", "7")])
def test_a_permission_is_answered_by_the_kind_of_the_option(permission: str | None, chosen: str) -> None:
    with closing(acp("permission", permission=permission)) as provider:
        assert json.loads(ask(provider).content) == {"outcome": {"outcome": "selected", "optionId": chosen}}


def wish(method: str, **params: Any) -> str:
    return json.dumps({"method": method, **params})


def test_files_and_terminals_are_refused_by_default(workspace: Path) -> None:
    secret = workspace / "secret.txt"
    secret.write_text("do not tell")
    with closing(acp("files", cwd=str(workspace))) as provider:
        read = json.loads(ask(provider, wish("fs/read_text_file", path=str(secret))).content)
        wrote = json.loads(ask(provider, wish("fs/write_text_file", path=str(secret), content="x")).content)
        terminal = json.loads(ask(provider, wish("terminal/create", command="id")).content)
    assert (read["code"], wrote["code"], terminal["code"]) == (-32602, -32602, -32601)
    assert secret.read_text() == "do not tell"


def test_files_that_match_reads_and_writes_are_served(workspace: Path, tmp_path: Path) -> None:
    (workspace / "src").mkdir()
    (workspace / "src" / "a.py").write_text("one\ntwo\nthree\n")
    log = tmp_path / "log"
    with closing(acp("files", cwd=str(workspace), reads=["src/**"], writes=["./out/[ab].md"], log=log)) as provider:
        source = str(workspace / "src" / "a.py")
        lines = json.loads(ask(provider, wish("fs/read_text_file", path=source, line=2, limit=1)).content)
        target = workspace / "out" / "b.md"
        json.loads(ask(provider, wish("fs/write_text_file", path=str(target), content="new")).content)
    assert lines == {"content": "two\n"}
    assert target.read_text() == "new"
    (hello,) = told(log, "initialize")
    assert hello["params"]["clientCapabilities"]["fs"] == {"readTextFile": True, "writeTextFile": True}


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.txt", "link.txt", "src/../../outside.txt", "a\0b", ""])
def test_no_path_leads_out_of_the_folder(path: str, workspace: Path) -> None:
    (workspace.parent / "outside.txt").write_text("outside")
    (workspace / "link.txt").symlink_to(workspace.parent / "outside.txt")
    asked = path if path.startswith("/") or not path else f"{workspace}/{path}"
    with closing(acp("files", cwd=str(workspace), reads=["**"])) as provider:
        assert json.loads(ask(provider, wish("fs/read_text_file", path=asked)).content)["code"] == -32602


def test_an_agent_that_wants_a_key_is_told_to_use_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp("auth", log=log)) as provider:
        assert ask(provider).content == "Hello, wörld"
    assert [message["params"] for message in told(log, "authenticate")] == [{"methodId": "use-key"}]


def test_the_method_of_the_settings_is_used_to_log_in(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp("auth", auth_method="oauth", log=log)) as provider:
        ask(provider)
    assert [message["params"] for message in told(log, "authenticate")] == [{"methodId": "oauth"}]


@pytest.mark.parametrize(
    ("text", "code", "kind", "retryable"),
    [
        ("Monthly request limit reached", -32603, QuotaError, False),
        ("ThrottlingException: slow down", -32603, RateLimitError, True),
        ("whatever", 429, RateLimitError, True),
        ("whatever", -32000, AuthError, False),
        ("whatever", 401, AuthError, False),
        ("The model you\u2019ve selected is temporarily unavailable", -32603, TransportError, True),
        ("dispatch failure", -32603, TransportError, True),
        ("whatever", 503, TransportError, True),
        ("The context window has overflowed", -32603, ProviderError, False),
        ("never heard of", -32603, ProviderError, False),
    ],
)
def test_an_error_of_the_agent_is_known_by_text_and_by_code(
    text: str, code: int, kind: type[ProviderError], retryable: bool
) -> None:
    error = failing(f"fail:{code}:{text}")
    assert (type(error), error.retryable, error.sent) == (kind, retryable, True)
    assert error.hint


def test_an_agent_lives_on_after_a_refused_prompt() -> None:
    with closing(acp("fail:-32603:dispatch failure")) as provider:
        with pytest.raises(TransportError):
            ask(provider)
        before = children()
        with pytest.raises(TransportError):
            ask(provider)
        assert children() == before


def test_an_error_that_is_given_as_the_answer_is_an_error() -> None:
    error = failing("disguised")
    assert type(error) is RateLimitError


def test_an_empty_answer_is_no_answer() -> None:
    assert type(failing("empty")) is ReplyError


@pytest.mark.parametrize(
    "behaviour", ["garbage", "wrong_id", "broken", "parse_error", "version2", "no_session", "dies"]
)
def test_what_does_not_speak_the_protocol_is_an_error_before_anything_is_sent(behaviour: str) -> None:
    error = failing(behaviour)
    assert error.sent is False
    assert error.hint


def test_an_agent_that_never_answers_is_given_up() -> None:
    error = failing("silent", first_event_s=0.3)
    assert type(error) is DeadlineError


@pytest.mark.parametrize("limits", [{"first_event_s": 0.5}, {}])
def test_silence_after_a_greeting_shows_the_greeting(limits: dict[str, float]) -> None:
    provider = acp("greets", **limits)
    with closing(provider), pytest.raises(DeadlineError, match="instead it wrote 'welcome'"):
        list(provider.deltas(request(scope=Scope(None if limits else 0.5))))


def test_a_folder_that_is_not_there_is_no_matter_of_installing(workspace: Path) -> None:
    provider = AcpProvider(
        ModelSettings(
            name="a",
            provider="acp",
            model="",
            options={"agent": "qwen", "command": "true", "cwd": str(workspace / "x")},
        )
    )
    with pytest.raises(TransportError, match="does not exist") as caught:
        ask(provider)
    assert "npm" not in str(caught.value.hint)


def test_a_login_prompt_is_an_error_at_once() -> None:
    error = failing("login")
    assert type(error) is AuthError
    assert "log in" in str(error)


def test_an_agent_that_dies_in_the_middle_leaves_what_had_come() -> None:
    error = failing("killed_in_turn")
    assert type(error) is TransportError
    assert error.partial_text == "half an ans"
    assert "signal 9" in error.message


def test_what_a_dying_agent_wrote_on_stderr_decides() -> None:
    error = failing("exits")
    assert (type(error), error.retryable) == (RateLimitError, True)


def test_an_agent_that_closes_its_stdin_is_stopped() -> None:
    error = failing("closes_stdin", idle_s=1)
    assert isinstance(error, (TransportError, DeadlineError))


def test_silence_ends_a_turn_but_not_while_a_tool_runs() -> None:
    with closing(acp("tool", idle_s=0.3)) as provider:
        assert ask(provider).content == "built"


def test_the_total_limit_ends_a_turn_and_the_agent() -> None:
    provider = acp("deaf")
    with closing(provider), pytest.raises(DeadlineError):
        list(provider.deltas(request(scope=Scope(0.5))))
    assert not children()


def test_an_agent_that_obeys_a_cancel_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp("cancel", log=log)) as provider:
        asking = Asking(provider).first()
        asking.scope.cancel()
        assert type(asking.end().error) is Cancelled
        assert len(told(log, "session/cancel")) == 1
        assert {"outcome": {"outcome": "cancelled"}} in [message.get("result") for message in told(log)]
        # What comes late belongs to the old session.
        assert ask(provider).content.split()[1] == "2"


def test_an_agent_that_does_not_obey_is_killed_with_all_its_children() -> None:
    with closing(acp("deaf")) as provider:
        asking = Asking(provider).first()
        pids = [int(pid) for pid in asking.pieces[0].content.split()]
        asking.scope.cancel()
        assert type(asking.end().error) is Cancelled
        assert eventually(lambda: all(gone(pid) for pid in pids))


def test_leaving_the_stream_early_cancels_the_turn(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with closing(acp("cancel", log=log)) as provider:
        deltas = provider.deltas(request())
        next(deltas)
        deltas.close()  # type: ignore[attr-defined]  # it is a generator
        assert len(told(log, "session/cancel")) == 1


def test_close_stops_what_is_at_work() -> None:
    provider = acp("deaf")
    asking = Asking(provider).first()
    provider.close()
    assert isinstance(asking.end().error, TransportError)
    assert not children()


def test_nothing_is_left_after_starts_kills_and_crashes() -> None:
    threads, before = threading.active_count(), descriptors()
    for _ in range(3):
        for behaviour in ("hello", "killed_in_turn", "dies", "exits", "deaf"):
            provider = acp(behaviour)
            asking = Asking(provider).first()
            asking.scope.cancel()
            provider.close()
            asking.end()
    assert not children()
    assert (descriptors(), threading.active_count()) == (before, threads)


def test_a_program_that_is_not_there_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = AcpProvider(ModelSettings(name="q", provider="acp", model="q", options={"agent": "qwen"}))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(TransportError) as caught:
        ask(provider)
    assert "npm install -g @qwen-code/qwen-code" in str(caught.value.hint)
    assert (caught.value.retryable, caught.value.sent) == (False, False)
    assert str(provider.missing()).startswith("the program 'qwen' (npm install")


def test_a_program_that_may_not_be_executed_is_an_error(workspace: Path) -> None:
    (workspace / "agent").write_text("no program")
    provider = AcpProvider(
        ModelSettings(name="a", provider="acp", model="a", options={"command": [str(workspace / "agent")]})
    )
    with pytest.raises(TransportError, match="may not be executed"):
        ask(provider)


def test_an_unknown_agent_is_a_mistake_with_the_nearest_name() -> None:
    provider = AcpProvider(ModelSettings(name="a", provider="acp", model="a", options={"agent": "gemin"}))
    with pytest.raises(UsageError) as caught:
        ask(provider)
    assert caught.value.hint == "did you mean 'gemini'?"


def test_a_model_without_a_program_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="names no program"):
        ask(AcpProvider(ModelSettings(name="a", provider="acp", model="a")))


def test_a_python_program_that_is_no_agent_is_not_waited_for() -> None:
    provider = AcpProvider(
        ModelSettings(name="a", provider="acp", model="a", options={"command": [sys.executable, "-c", "print('hi')"]})
    )
    with pytest.raises(TransportError):
        ask(provider)
