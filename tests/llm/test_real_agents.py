"""The providers of agents against real programs, with no account: their model is a server of ours on loopback.

Looked for where FLOWCRAFT_TEST_NPM (a folder with `node_modules`) points; see docs/agents.md.
"""

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from agents.asking import Asking, acp_of, ask, children, closing, command_of, documented_models, eventually
from pictures import png
from servers import ChatServer, Handler, Reply, answer, delta, frame, status, stream

from flowcraft.core.errors import AuthError, Cancelled, ProviderError, ReplyError, TransportError
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.parts import ImagePart

MODULES = Path(os.environ.get("FLOWCRAFT_TEST_NPM") or "/nowhere") / "node_modules"
EXAMPLE = MODULES / "@agentclientprotocol" / "sdk" / "dist" / "examples" / "agent.js"
NODE = which("node") or ""
ACPDBG = which("acpdbg-mock-agent", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}") or ""

pytestmark = pytest.mark.npm


def needs(*paths: str | Path) -> pytest.MarkDecorator:
    missing = [str(path) for path in paths if not str(path) or not Path(path).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (set FLOWCRAFT_TEST_NPM)")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Node and the installed programs in PATH, and no way out."""
    monkeypatch.setenv("PATH", f"{MODULES / '.bin'}:{Path(NODE).parent}:{os.environ['PATH']}")
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return monkeypatch


@pytest.fixture(scope="module")
def documented() -> dict[str, Any]:
    return documented_models()


# --- the example agent of the official SDK


@needs(EXAMPLE, NODE)
def test_the_sdk_example_is_told_no_when_it_asks_for_permission(world: pytest.MonkeyPatch) -> None:
    with closing(acp_of([NODE, str(EXAMPLE)])) as provider:
        answered = ask(provider)
    assert answered.content.startswith("I'll help you with that.")
    assert answered.content.endswith("I'll skip the configuration update.")
    assert (answered.finish_reason, answered.usage) == ("stop", None)
    assert not children()


@needs(EXAMPLE, NODE)
def test_the_sdk_example_may_do_it_where_settings_allow_it(world: pytest.MonkeyPatch) -> None:
    with closing(acp_of([NODE, str(EXAMPLE)], permission="allow")) as provider:
        assert "successfully updated the configuration" in ask(provider).content


@needs(EXAMPLE, NODE)
def test_the_sdk_example_obeys_a_cancel_and_answers_again(world: pytest.MonkeyPatch) -> None:
    with closing(acp_of([NODE, str(EXAMPLE)])) as provider:
        asking = Asking(provider).first()
        asking.scope.cancel()
        assert type(asking.end().error) is Cancelled
        before = children()
        again = Asking(provider).first()
        assert children() == before
        again.scope.cancel()
        again.end()


@needs(EXAMPLE, NODE)
def test_the_sdk_example_killed_in_the_middle_is_an_error_and_is_started_again(world: pytest.MonkeyPatch) -> None:
    with closing(acp_of([NODE, str(EXAMPLE)])) as provider:
        asking = Asking(provider).first()
        (pid,) = children()
        os.kill(pid, signal.SIGKILL)
        error = asking.end().error
        assert isinstance(error, TransportError)
        assert error.partial_text.startswith("I'll help you")
        assert Asking(provider).first().pieces


# --- the mock agent of acpdbg


@needs(ACPDBG)
@pytest.mark.parametrize("allowed", [False, True])
def test_the_mock_agent_of_acpdbg_reads_a_file_only_where_settings_allow_it(
    world: pytest.MonkeyPatch, workspace: Path, allowed: bool
) -> None:
    (workspace / "a.c").write_text("int main() {\n  return *p;\n}\n")
    prompt = f"at {workspace / 'a.c'}:2\n\n## Stop reason\n\n```\nsignal SIGSEGV\n```\n"
    reads = {"reads": ["*.c"]} if allowed else {}
    with closing(acp_of([ACPDBG], cwd=str(workspace), **reads)) as provider:
        answered = ask(provider, prompt)
    assert answered.finish_reason == "stop"
    assert "opening" in answered.reasoning
    assert ("return *p;" in answered.content) is allowed
    assert not children()


# --- Qwen Code


@pytest.fixture
def qwen(world: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    world.setenv("OPENAI_API_KEY", "key")
    world.setenv("OPENAI_MODEL", "test-model")
    return world


def by_prompt(**replies: Reply) -> Reply:
    """The reply whose word is in the user's last message; agents make calls of their own beside ours."""

    def reply(handler: Handler) -> None:
        said = json.dumps(handler.received.body.get("messages", [])[-1:])
        chosen = [
            replies[word] for word in replies if word in said and "memory" not in json.dumps(first_words(handler))
        ]
        (chosen[0] if chosen else answer("nothing"))(handler)

    return reply


def first_words(handler: Handler) -> str:
    messages = handler.received.body.get("messages") or [{}]
    return str(messages[0].get("content"))[:200]


def shell_call(command: str) -> Reply:
    arguments = json.dumps({"command": command, "is_background": False, "description": "make a file"})
    function = {"name": "run_shell_command", "arguments": arguments}
    call = {"index": 0, "id": "c1", "type": "function", "function": function}
    return stream(
        delta({"role": "assistant", "content": None, "tool_calls": [call]}),
        delta({}, finish_reason="tool_calls"),
        b"data: [DONE]\n\n",
    )


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_answers_several_prompts_with_its_usage(qwen: pytest.MonkeyPatch) -> None:
    with ChatServer(answer("Hello from loopback", usage=(3, 5))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen", model="test-model")) as provider:
            messages = [LLMMessage("system", "be brief"), LLMMessage("user", "question one")]
            answered = provider.chat_completion(messages, timeout=60)
            again = ask(provider, "question two")
    assert answered.content == again.content == "Hello from loopback"
    assert answered.usage is not None
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (3, 5)
    sent = json.dumps(server.requests[0].body["messages"])
    assert "<system>" in sent
    assert "question one" in sent
    assert not children()


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_takes_an_image_and_shows_it_to_its_model(qwen: pytest.MonkeyPatch) -> None:
    picture = ImagePart(data=png(64, 48))
    with ChatServer(answer("a cat")) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        qwen.setenv("OPENAI_MODEL", "qwen3-vl-plus")
        with closing(acp_of(agent="qwen")) as provider:
            message = LLMMessage("user", [{"type": "text", "text": "what is it?"}, picture])
            assert provider.chat_completion([message], timeout=60).content == "a cat"
    assert picture.encoded in json.dumps(server.requests[0].body["messages"])


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_streams_and_obeys_a_cancel(qwen: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    slow = stream(delta({"role": "assistant", "content": "first "}), gate, delta({"content": "last"}))
    with ChatServer(by_prompt(slowly=slow, quickly=answer("quick"))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen")) as provider:
            asking = Asking(provider, "slowly").first()
            assert [piece.content for piece in asking.pieces] == ["first "]
            asking.scope.cancel()
            assert type(asking.end().error) is Cancelled
            assert ask(provider, "quickly").content == "quick"


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_may_not_run_a_command(qwen: pytest.MonkeyPatch, workspace: Path) -> None:
    made = workspace / "made"
    with ChatServer(by_prompt(please=shell_call(f"touch {made}"), tool_call_id=answer("done"))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen")) as provider:
            asking = Asking(provider, "please").end()
    assert not made.exists()
    assert isinstance(asking.error, ReplyError)
    assert "refused a tool" in asking.error.message


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_may_run_a_command_where_settings_allow_it(qwen: pytest.MonkeyPatch, workspace: Path) -> None:
    made = workspace / "made"
    with ChatServer(by_prompt(please=shell_call(f"touch {made}"), tool_call_id=answer("made"))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen", permission="allow")) as provider:
            assert ask(provider, "please").content == "made"
    assert made.exists()


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_killed_in_the_middle_leaves_nothing(qwen: pytest.MonkeyPatch) -> None:
    with ChatServer(by_prompt(slowly=stream(delta({"content": "first "}), threading.Event()))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen")) as provider:
            asking = Asking(provider, "slowly").first()
            for pid in children():
                with contextlib.suppress(ProcessLookupError):  # some end with their parent
                    os.kill(pid, signal.SIGKILL)
            assert isinstance(asking.end().error, TransportError)
            assert eventually(lambda: not children())


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_without_a_credential_is_an_error_with_what_to_do(world: pytest.MonkeyPatch) -> None:
    with closing(acp_of(agent="qwen")) as provider, pytest.raises(ProviderError) as caught:
        ask(provider)
    assert isinstance(caught.value, AuthError)
    assert "OPENAI_API_KEY" in str(caught.value.hint)


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_with_a_rejected_key_is_an_error(qwen: pytest.MonkeyPatch) -> None:
    with ChatServer(
        status(401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}})
    ) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        with closing(acp_of(agent="qwen")) as provider, pytest.raises(AuthError):
            ask(provider)


@needs(MODULES / ".bin" / "qwen", NODE)
def test_qwen_headless_answers_as_a_command(qwen: pytest.MonkeyPatch, documented: dict[str, Any]) -> None:
    with ChatServer(answer("Hello from loopback", usage=(3, 5))) as server:
        qwen.setenv("OPENAI_BASE_URL", server.base_url)
        answered = ask(command_of(documented["qwen-headless"]))
    assert answered.content == "Hello from loopback"
    assert answered.usage is not None
    assert (answered.usage.prompt_tokens or 0) >= 3  # it makes a call of its own beside ours


# --- Gemini CLI


@pytest.fixture
def gemini(world: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    world.setenv("GEMINI_API_KEY", "key")
    folder = Path(os.environ["HOME"], ".gemini")
    folder.mkdir()
    chosen = {"security": {"auth": {"selectedType": "gemini-api-key"}}, "telemetry": {"enabled": False}}
    (folder / "settings.json").write_text(json.dumps(chosen))
    return world


def candidate(text: str, finish: str | None = None) -> bytes:
    one: dict[str, Any] = {"index": 0, "content": {"role": "model", "parts": [{"text": text}]}}
    if finish:
        one["finishReason"] = finish
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9}
    return frame({"candidates": [one], "usageMetadata": usage, "modelVersion": "test"})


@needs(MODULES / ".bin" / "gemini", NODE)
def test_gemini_answers_with_its_usage(gemini: pytest.MonkeyPatch) -> None:
    with ChatServer(stream(candidate("Hello "), candidate("from loopback", "STOP"))) as server:
        gemini.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.port}")
        with closing(acp_of(agent="gemini")) as provider:
            answered = ask(provider)
    assert answered.content == "Hello from loopback"
    assert answered.usage is not None
    assert (answered.usage.prompt_tokens, answered.usage.completion_tokens) == (7, 2)
    assert not children()


@needs(MODULES / ".bin" / "gemini", NODE)
def test_gemini_streams_and_obeys_a_cancel(gemini: pytest.MonkeyPatch) -> None:
    slow = stream(candidate("Hello "), candidate("again "), threading.Event())

    choice = {"parts": [{"text": json.dumps({"reasoning": "easy", "model_choice": "flash"})}], "role": "model"}
    routed = {"candidates": [{"index": 0, "content": choice, "finishReason": "STOP"}]}

    def reply(handler: Handler) -> None:  # it asks first, in one piece, which model is to answer
        (slow if "streamGenerateContent" in handler.received.path else status(200, routed))(handler)

    with ChatServer(reply) as server:
        gemini.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.port}")
        with closing(acp_of(agent="gemini")) as provider:
            asking = Asking(provider).first()
            asking.scope.cancel()
            assert type(asking.end().error) is Cancelled
            assert len(children()) >= 1


@needs(MODULES / ".bin" / "gemini", NODE)
def test_gemini_headless_answers_as_a_command(gemini: pytest.MonkeyPatch, documented: dict[str, Any]) -> None:
    with ChatServer(stream(candidate("Hello from loopback", "STOP"))) as server:
        gemini.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.port}")
        answered = ask(command_of(documented["gemini-headless"]))
    assert answered.content == "Hello from loopback"
