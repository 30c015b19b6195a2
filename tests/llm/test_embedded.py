"""The embedded model answers, takes turns, dies and comes back; the real server with the real weights.

What it says is never compared, only shapes, limits and endings.
"""

import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    FlowcraftError,
    ProviderError,
    TransportError,
    UsageError,
)
from flowcraft.core.programs.process import run
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import ChatRequest, Delta, LLMMessage, LLMResponse
from flowcraft.llm.local import llama, weights
from flowcraft.llm.providers.embedded import EmbeddedProvider
from flowcraft.llm.providers.openai import OpenAIProvider

pytestmark = [
    pytest.mark.embedded,
    pytest.mark.skipif(importlib.util.find_spec("xllamacpp") is None, reason="needs the extra `embedded`"),
]

HELLO = [LLMMessage("user", "Say hello.")]
LONG = [LLMMessage("user", "Tell a very long story about the sea.")]
ENDLESS: dict[str, Any] = {"max_tokens": 2000, "temperature": 0, "ignore_eos": True}
MODEL = ModelSettings(name="embedded", provider="embedded", model="")
SENTIMENT = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["positive", "negative"]}, "why": {"type": "string", "maxLength": 40}},
    "required": ["sentiment", "why"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
def weights_folder() -> str:
    """The folder with the real weights; made before any test changes HOME and the environment."""
    folder = os.environ.get("FLOWCRAFT_TEST_WEIGHTS") or str(weights.cache_folder())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWCRAFT_CACHE", folder)
        weights.pull()
    return folder


@pytest.fixture(autouse=True)
def shared_weights(weights_folder: str, own_world: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCRAFT_CACHE", weights_folder)


@pytest.fixture(scope="module")
def shared(weights_folder: str) -> Iterator[EmbeddedProvider]:
    """One provider for the tests that leave it as it was."""
    provider = EmbeddedProvider(MODEL)
    yield provider
    provider.close()


@pytest.fixture
def own() -> Iterator[EmbeddedProvider]:
    """A provider whose child the test may end."""
    provider = EmbeddedProvider(MODEL)
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def peer(weights_folder: str) -> Iterator[llama.Llama]:
    """The bare server, for the openai provider as its client."""
    server = llama.start(Path(weights_folder) / weights.SMOLLM2.file_name, context=512, scope=Scope(120))
    yield server
    server.child.stop()


def client(server: llama.Llama, key: str | None = None) -> OpenAIProvider:
    config = replace(MODEL, provider="openai", model="any", base_url=f"{server.url}/v1")
    return OpenAIProvider(config, api_key=key or server.key, keep_alive=False)


def child_of(provider: EmbeddedProvider) -> llama.Llama:
    assert provider._running
    return provider._running[0]


def assert_whole(response: LLMResponse) -> None:
    assert response.content
    assert response.finish_reason in ("stop", "length")
    assert response.usage
    assert response.usage.prompt_tokens
    assert response.usage.completion_tokens
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


def json_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


def test_answers_with_usage(shared: EmbeddedProvider) -> None:
    response = shared.chat_completion(HELLO, max_tokens=8, temperature=0)

    assert_whole(response)
    assert response.provider == "embedded"
    assert "SmolLM2" in response.model


def test_streams_pieces_that_make_up_the_answer(shared: EmbeddedProvider) -> None:
    stream = shared.stream_completion(HELLO, max_tokens=8, temperature=0)

    pieces = list(stream)

    assert len(pieces) > 1
    assert "".join(pieces) == stream.response.content
    assert_whole(stream.response)


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_a_schema_is_kept(shared: EmbeddedProvider, temperature: float) -> None:
    response = shared.chat_completion(
        [LLMMessage("user", "I love this lamp. Is that positive or negative?")],
        response_format=json_format(SENTIMENT),
        temperature=temperature,
        max_tokens=128,
    )

    assert response.finish_reason == "stop"
    jsonschema.validate(json.loads(response.content), SENTIMENT)


def test_max_tokens_are_kept_and_have_a_default(shared: EmbeddedProvider) -> None:
    cut = shared.chat_completion(LONG, max_tokens=3)
    assert cut.finish_reason == "length"
    assert cut.usage
    assert cut.usage.completion_tokens == 3

    own_limit = EmbeddedProvider(replace(MODEL, max_tokens=4))
    own_limit._running = shared._running
    assert own_limit.chat_completion(LONG).usage.completion_tokens == 4  # type: ignore[union-attr]


def test_the_beginning_that_the_caller_gives_is_not_repeated(shared: EmbeddedProvider) -> None:
    begun = [LLMMessage("user", "What is tea?"), LLMMessage("assistant", "Tea, my friend, is")]

    response = shared.chat_completion(begun, max_tokens=8, temperature=0)
    streamed = "".join(shared.stream_completion(begun, max_tokens=8, temperature=0))

    assert "my friend" not in response.content
    assert response.content == streamed


def test_tools_are_refused(shared: EmbeddedProvider) -> None:
    with pytest.raises(UsageError, match="cannot use 'tools'"):
        shared.chat_completion(HELLO, tools=[{"type": "function", "function": {"name": "f"}}])


def test_a_prompt_that_is_too_long_is_a_plain_error(shared: EmbeddedProvider) -> None:
    with pytest.raises(ProviderError, match="context size") as caught:
        shared.chat_completion([LLMMessage("user", "word " * 6000)])
    assert not caught.value.retryable
    assert caught.value.provider == "embedded"


def test_four_threads_take_turns(shared: EmbeddedProvider) -> None:
    responses: list[LLMResponse] = []

    def work() -> None:
        responses.append(shared.chat_completion(HELLO, max_tokens=6, temperature=0))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(responses) == 4
    for response in responses:
        assert_whole(response)


def test_a_cancel_from_another_thread_ends_the_answer_and_frees_the_turn(shared: EmbeddedProvider) -> None:
    scope = Scope()
    deltas = shared.deltas(ChatRequest(messages=tuple(LONG), params=ENDLESS, stream=True, scope=scope))
    next(deltas)
    canceller = threading.Thread(target=scope.cancel)

    canceller.start()
    rest: list[Delta] = []
    with pytest.raises(Cancelled):
        rest.extend(deltas)
    canceller.join()

    assert len(rest) < 1900
    assert_whole(shared.chat_completion(HELLO, max_tokens=4, temperature=0))


def test_leaving_a_stream_early_frees_the_turn(shared: EmbeddedProvider) -> None:
    with shared.stream_completion(LONG, **ENDLESS) as stream:
        next(stream)

    assert_whole(shared.chat_completion(HELLO, max_tokens=4, temperature=0))


def test_waiting_for_the_turn_ends_at_the_total_limit_and_by_a_cancel(shared: EmbeddedProvider) -> None:
    with shared.stream_completion(LONG, **ENDLESS) as stream:
        next(stream)
        with pytest.raises(DeadlineError, match="was busy with other requests") as caught:
            shared.chat_completion(HELLO, timeout=0.1)
        assert not caught.value.sent
        scope = Scope()
        scope.cancel()
        with pytest.raises(Cancelled):
            list(shared.deltas(ChatRequest(messages=tuple(HELLO), scope=scope)))


def test_a_dead_child_is_replaced_at_the_next_request(own: EmbeddedProvider) -> None:
    own.chat_completion(HELLO, max_tokens=2, temperature=0)
    first = child_of(own).child.pid
    os.kill(first, signal.SIGKILL)
    child_of(own).child.read_line()

    assert_whole(own.chat_completion(HELLO, max_tokens=4, temperature=0))
    assert child_of(own).child.pid != first


def test_a_child_that_dies_while_it_answers_is_an_error_that_says_so(own: EmbeddedProvider) -> None:
    stream = own.stream_completion(LONG, **ENDLESS)
    begun = [next(stream)]
    os.kill(child_of(own).child.pid, signal.SIGKILL)

    with pytest.raises(TransportError, match="process of the embedded model has ended .signal SIGKILL") as caught:
        begun.extend(stream)
    assert caught.value.retryable
    assert_whole(own.chat_completion(HELLO, max_tokens=4, temperature=0))


def test_sigill_is_told_as_a_sentence(own: EmbeddedProvider) -> None:
    stream = own.stream_completion(LONG, **ENDLESS)
    next(stream)
    os.kill(child_of(own).child.pid, signal.SIGILL)

    with pytest.raises(ProviderError, match="instructions that this processor lacks"):
        list(stream)


def test_closing_ends_the_child_and_the_provider_may_be_used_again(own: EmbeddedProvider) -> None:
    own.chat_completion(HELLO, max_tokens=2, temperature=0)
    child = child_of(own).child
    own.close()
    own.close()

    assert not child.alive
    assert_whole(own.chat_completion(HELLO, max_tokens=4, temperature=0))


def test_a_file_that_is_no_model_is_an_error_with_llama_cpps_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    provider = EmbeddedProvider(replace(MODEL, options={"path": str(broken)}))

    with pytest.raises(ProviderError, match=r"llama\.cpp cannot use '.*broken\.gguf': .+version") as caught:
        provider.chat_completion(HELLO)
    assert caught.value.hint
    assert not caught.value.retryable


def test_another_model_by_path_answers(tmp_path: Path, weights_folder: str) -> None:
    file = tmp_path / "mine.gguf"
    file.symlink_to(Path(weights_folder) / weights.SMOLLM2.file_name)
    provider = EmbeddedProvider(replace(MODEL, options={"path": str(file)}))

    try:
        assert provider.chat_completion(HELLO, max_tokens=2, temperature=0).model == "mine"
    finally:
        provider.close()


def test_a_cancelled_start_leaves_no_child(own: EmbeddedProvider) -> None:
    scope = Scope()
    threading.Timer(0.1, scope.cancel).start()

    with pytest.raises(Cancelled):
        for _ in own.deltas(ChatRequest(messages=tuple(LONG), params=ENDLESS, scope=scope)):
            pass
    assert_whole(own.chat_completion(HELLO, max_tokens=4, temperature=0))


PARENT = """
import os, signal, sys
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.providers.embedded import EmbeddedProvider
provider = EmbeddedProvider()
stream = provider.stream_completion([LLMMessage("user", "Tell a long story.")], max_tokens=2000, ignore_eos=True)
next(stream)
sys.stdout.write(str(provider._running[0].child.pid))
sys.stdout.flush()
"""
FORK = """
pid = os.fork()  # while a thread of the parent has the turn
if pid == 0:
    answer = provider.chat_completion([LLMMessage("user", "Hi")], max_tokens=4, temperature=0)
    provider.close()
    os._exit(0 if answer.content else 1)
code = os.waitpid(pid, 0)[1]
assert code == 0
stream.close()
assert provider.chat_completion([LLMMessage("user", "Hi")], max_tokens=4, temperature=0).content
"""
ROOT = str(Path(weights.__file__).parents[3])


def await_gone(pid: int) -> bool:
    pause = threading.Event()
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        pause.wait(0.01)
    return False


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()", "os._exit(0)", FORK])
def test_the_child_ends_with_its_parent_and_nothing_is_printed(ending: str) -> None:
    completed = run([sys.executable, "-c", PARENT + ending], env={**os.environ, "PYTHONPATH": ROOT}, timeout_s=120)

    assert completed.stderr == b""
    assert await_gone(int(completed.stdout))


WITHOUT = "raise ImportError({!r})"


@pytest.mark.parametrize(
    ("reason", "message", "hint"),
    [
        ("No module named 'xllamacpp'", "needs the package xllamacpp", "pip install 'flowcraft-sdk[embedded]'"),
        ("libgomp.so.1: cannot open shared object file", "needs a system library", "apt-get install libgomp1"),
        ("undefined symbol: x", "cannot be loaded: undefined symbol", "pip install"),
    ],
)
def test_a_runtime_that_cannot_be_loaded_is_an_error_with_a_hint(
    reason: str, message: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: EmbeddedProvider
) -> None:
    (tmp_path / "xllamacpp.py").write_text(WITHOUT.format(reason))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with pytest.raises(FlowcraftError, match=message) as caught:
        own.chat_completion(HELLO)
    assert hint in (caught.value.hint or "")


def test_the_openai_provider_gets_answers_from_the_server(peer: llama.Llama) -> None:
    assert_whole(client(peer).chat_completion(HELLO, max_tokens=6, temperature=0))


def test_the_openai_provider_streams_from_the_server_again_and_again(peer: llama.Llama) -> None:
    provider = client(peer)

    for _ in range(5):
        stream = provider.stream_completion(HELLO, max_tokens=3, temperature=0)
        assert "".join(stream)
        assert_whole(stream.response)


def test_the_server_lets_nobody_in_without_its_key(peer: llama.Llama) -> None:
    with pytest.raises(AuthError) as caught:
        client(peer, key="wrong").chat_completion(HELLO)
    assert caught.value.status == 401


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_provider_understands_the_servers_refusals(peer: llama.Llama, stream: bool) -> None:
    request = ChatRequest(messages=(LLMMessage("user", "word " * 2000),), stream=stream)

    with pytest.raises(ProviderError, match="context size") as caught:
        list(client(peer).deltas(request))
    assert (caught.value.status, caught.value.retryable) == (400, False)


def test_the_server_is_not_given_the_keys_of_others(weights_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    server = llama.start(Path(weights_folder) / weights.SMOLLM2.file_name, context=512, scope=Scope(120))
    given = Path(f"/proc/{server.child.pid}/environ").read_bytes()
    server.child.stop()

    assert b"PATH=" in given
    assert b"canary" not in given


def test_the_server_listens_on_loopback_only(peer: llama.Llama) -> None:
    assert peer.url.startswith("http://127.0.0.1:")
