import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from agents.asking import Asking, ask, children, closing, documented_models, documented_settings, request

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    ProviderError,
    RateLimitError,
    ReplyError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import ModelSettings, Timeouts
from flowcraft.llm.base import LLMMessage, Usage
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.providers.command import CommandProvider

LINES = {
    "format": "json-lines",
    "delta": {"when": {"type": "piece"}, "at": "part.text"},
    "text": {"when": {"type": "result", "is_error": False}, "at": "result"},
    "error": {"when": {"type": "result", "is_error": True}, "at": "result"},
    "done": {"when": {"type": "result"}},
    "usage": {"when": {"type": "result"}, "prompt_tokens": "usage.in", "completion_tokens": "usage.out"},
}


def program(code: str, *arguments: str, idle_s: float = 10, model: str = "m", **options: Any) -> CommandProvider:
    """A provider for a Python program given as text."""
    command = [sys.executable, "-S", "-c", code, *arguments]
    timeouts = Timeouts(first_event=idle_s, idle=idle_s)
    return CommandProvider(
        ModelSettings(
            name="mine", provider="command", model=model, timeouts=timeouts, options={"command": command, **options}
        )
    )


def lines(*values: Any, then: str = "") -> str:
    return f"import sys, time\nfor line in {[json.dumps(value) for value in values]!r}: print(line, flush=True)\n{then}"


def failing(provider: CommandProvider) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        ask(provider)
    assert not children()
    return caught.value


def test_the_prompt_goes_to_stdin_and_stdout_is_the_answer() -> None:
    provider = program("import sys; print('  you said', sys.stdin.read())")
    answer = ask(provider, "grüß dich " * 20_000)
    assert answer.content == "you said " + ("grüß dich " * 20_000).rstrip()
    assert (answer.finish_reason, answer.usage) == ("stop", None)


def test_the_prompt_may_go_to_a_file_that_is_gone_afterwards() -> None:
    code = "import sys; print(open(sys.argv[1]).read(), repr(sys.stdin.read()), sys.argv[1])"
    said, empty, path = ask(program(code, "{prompt_file}"), "hello").content.split()
    assert (said, empty) == ("hello", "''")
    assert not os.path.exists(path)


def test_the_model_is_put_into_the_command() -> None:
    assert ask(program("import sys; print(sys.argv[1])", "--model={model}", model="large")).content == "--model=large"


def test_a_whole_conversation_reaches_it() -> None:
    provider = program("import sys; print(sys.stdin.read())")
    answer = provider.chat_completion([LLMMessage("system", "be brief"), LLMMessage("user", "hi")])
    assert "<system>\nbe brief\n</system>" in answer.content


def test_it_runs_in_an_empty_folder_with_few_variables(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "s3cret")
    monkeypatch.setenv("MY_KEY", "mine")
    code = (
        "import os; print(os.getcwd(), os.listdir('.'), os.environ.get('DATABASE_PASSWORD'), os.environ.get('MY_KEY'))"
    )
    folder, files, password, key = ask(program(code, env=["MY_KEY"])).content.split()
    assert (files, password, key) == ("[]", "None", "mine")
    assert not os.path.exists(folder)
    assert ask(program("import os; print(os.getcwd())", cwd=str(workspace))).content == str(workspace.resolve())


def test_colours_are_stripped_and_text_comes_as_it_is_written() -> None:
    code = "import sys; sys.stdout.write('\\x1b[1mone'); sys.stdout.flush(); sys.stdin.read(); print(' two\\x1b[0m')"
    assert "".join(delta.content for delta in program(code).deltas(request())) == "one two"


def test_pieces_are_taken_from_json_lines_and_the_result_is_only_the_proof() -> None:
    provider = program(
        lines(
            {"type": "piece", "part": {"text": "one "}},
            "noise",
            {"type": "piece", "part": {"text": "two"}},
            {"type": "result", "is_error": False, "result": "one two", "usage": {"in": 5, "out": 2}},
        ),
        reply=LINES,
    )
    deltas = list(provider.deltas(request()))
    assert [delta.content for delta in deltas] == ["one ", "two", ""]
    assert deltas[-1].usage == Usage(prompt_tokens=5, completion_tokens=2)


def test_without_pieces_the_result_is_the_answer() -> None:
    assert ask(program(lines({"type": "result", "is_error": False, "result": "all"}), reply=LINES)).content == "all"


def test_one_json_value_is_read_at_its_end() -> None:
    reply = {"format": "json", "text": "choices.0.text", "usage": {"credits": "paid"}}
    answer = ask(program('print(\'{"choices":[{"text":"hi"}],\\n "paid": 0.5}\')', reply=reply))
    assert (answer.content, answer.usage) == ("hi", Usage(credits=Decimal("0.5")))


def test_an_error_that_the_program_tells_of_is_typed_by_its_words() -> None:
    error = failing(
        program(
            lines(
                {"type": "piece", "part": {"text": "half"}},
                {"type": "result", "is_error": True, "result": "429 too many requests"},
            ),
            reply=LINES,
        )
    )
    assert (type(error), error.retryable, error.partial_text) == (RateLimitError, True, "half")


@pytest.mark.parametrize(
    ("code", "options", "kind"),
    [
        ("import sys; sys.exit('Not logged in, please run login')", {}, AuthError),
        ("import sys; print('half'); sys.exit(3)", {}, TransportError),
        ("print('half')", {"reply": {**LINES, "format": "json-lines"}}, TransportError),
        ("print('fine')", {"success": {"stderr": "credits: "}}, TransportError),
        ("pass", {}, ReplyError),
        ("print('Error: unexpected status 401 Unauthorized')", {}, AuthError),
        ("import os; os.kill(os.getpid(), 9)", {}, TransportError),
    ],
)
def test_what_is_not_proven_is_no_answer(code: str, options: dict[str, Any], kind: type[ProviderError]) -> None:
    error = failing(program(code, **options))
    assert type(error) is kind
    assert error.hint


@pytest.mark.parametrize(
    ("code", "options", "words"),
    [
        ("import sys; print('half'); sys.exit(3)", {}, "exit code 3"),
        ("print('fine')", {"success": {"stderr": "credits: "}}, "stderr does not match 'credits: '"),
        ("print('fine')", {"success": {"stdout": "bye"}}, "stdout does not match 'bye'"),
        (lines({"type": "piece", "part": {"text": "half"}}), {"reply": LINES}, "what `done` asks for"),
        ("print('{')", {"reply": {"format": "json", "text": "a"}}, "'{'"),
        ("print('{\"b\": 1}')", {"reply": {"format": "json", "text": "a.0"}}, "finds an answer"),
        ("print('{\"b\": 1}')", {"reply": {**LINES, "done": None}}, "finds an answer"),
    ],
)
def test_it_is_told_what_the_proof_lacks(code: str, options: dict[str, Any], words: str) -> None:
    error = failing(program(code, **options))
    assert words in error.message
    assert error.hint


def test_a_flood_is_an_error_with_a_hint() -> None:
    error = failing(program("import sys\nwhile True: sys.stdout.write('x' * 100_000)"))
    assert "more than 16 MiB" in error.message
    assert error.hint


def test_the_success_test_is_what_settings_say() -> None:
    code = "import sys; sys.stderr.write('credits: 3'); print('ok'); sys.exit(4)"
    assert ask(program(code, success={"exit_codes": [0, 4], "stderr": "credits: "})).content == "ok"


def test_a_cancel_ends_the_program() -> None:
    with closing(program("import time; print('x', flush=True); time.sleep(60)")) as provider:
        asking = Asking(provider).first()
        asking.scope.cancel()
        assert type(asking.end().error) is Cancelled
    assert not children()


def test_silence_and_the_total_limit_end_the_program() -> None:
    assert type(failing(program("import time; time.sleep(60)", idle_s=0.2))) is DeadlineError
    with pytest.raises(DeadlineError):
        list(program("import time; time.sleep(60)").deltas(request(scope=Scope(0.2))))
    assert not children()


def test_a_missing_program_is_named() -> None:
    provider = CommandProvider(
        ModelSettings(name="mine", provider="command", model="m", options={"command": "/nowhere/tool --x"})
    )
    error = failing(provider)
    assert "was not found" in error.message
    assert (error.retryable, error.sent) == (False, False)
    assert str(error.hint).count("install it") == 1
    assert str(provider.missing()).startswith("the program 'tool' (")


@pytest.mark.parametrize(
    "options",
    [{"reply": {"format": "xml"}}, {"reply": {"format": "json"}}, {"success": {"stdout": "("}}],
)
def test_settings_that_make_no_sense_are_a_mistake_of_the_user(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        program("pass", **options)


DOCUMENTED = {
    "claude-headless": [
        {"type": "system", "subtype": "init"},
        {
            "type": "stream_event",
            "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "He"}},
        },
        {
            "type": "stream_event",
            "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "llo"}},
        },
        {"type": "assistant", "message": {"content": [{"type": "text", "text": "Hello"}]}},
        {"type": "result", "is_error": False, "result": "Hello", "usage": {"input_tokens": 3, "output_tokens": 5}},
    ],
    "codex-headless": [
        {"type": "thread.started", "thread_id": "t"},
        {"type": "item.completed", "item": {"id": "i", "type": "reasoning", "text": "hm"}},
        {"type": "item.completed", "item": {"id": "j", "type": "agent_message", "text": "Hello"}},
        {"type": "turn.completed", "usage": {"input_tokens": 3, "cached_input_tokens": 0, "output_tokens": 5}},
    ],
    "gemini-headless": [
        {"type": "init", "session_id": "s", "model": "m"},
        {"type": "message", "role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": "Hello", "delta": True},
        {"type": "result", "status": "success", "stats": {"total_tokens": 8, "input_tokens": 3, "output_tokens": 5}},
    ],
    "opencode-headless": [
        {"type": "step_start", "part": {}},
        {"type": "text", "part": {"type": "text", "text": "Hello"}},
        {"type": "step_finish", "part": {"tokens": {"input": 3, "output": 5}, "cost": 0}},
    ],
    "qwen-headless": [
        {"type": "system", "subtype": "init"},
        {
            "type": "stream_event",
            "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}},
        },
        {"type": "result", "is_error": False, "result": "Hello", "usage": {"input_tokens": 3, "output_tokens": 5}},
    ],
}
FAILED = {
    "claude-headless": [{"type": "result", "is_error": True, "result": "API Error: 429 rate limit"}],
    "codex-headless": [{"type": "turn.failed", "error": {"message": "exceeded retry limit, last status: 429"}}],
    "gemini-headless": [{"type": "result", "status": "error", "error": {"message": "status 429"}}],
    "opencode-headless": [{"type": "error", "error": {"name": "APIError", "data": {"message": "Too Many Requests"}}}],
    "qwen-headless": [{"type": "result", "is_error": True, "error": {"message": "429 rate limit"}}],
}


def documented(name: str, values: list[Any]) -> CommandProvider:
    """The example of the documentation, with a program that writes these lines."""
    reply = documented_models()[name]["reply"]
    return program(lines(*values), reply=reply)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_the_examples_of_the_documentation_read_what_these_programs_write(name: str) -> None:
    answer = ask(documented(name, DOCUMENTED[name]))
    assert answer.content == "Hello"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 5)


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_the_examples_of_the_documentation_notice_a_failure(name: str) -> None:
    assert type(failing(documented(name, FAILED[name]))) is RateLimitError


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_the_examples_of_the_documentation_do_not_take_a_cut_answer(name: str) -> None:
    assert type(failing(documented(name, DOCUMENTED[name][:-1]))) is TransportError


def test_the_examples_of_the_documentation_are_settings(workspace: Path) -> None:
    for number, text in enumerate(documented_settings()):
        file = workspace / f"{number}.yaml"
        file.write_text(text)
        for model in SettingsManager(file).settings.llm.models.values():
            assert model.options, model
            LLMProviderFactory.create(model)
