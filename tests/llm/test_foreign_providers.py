"""Providers that others have written, and that break what was agreed: their failure, never a bug of ours."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flowcraft.core.errors import Cancelled, DeadlineError, FlowcraftError, ProviderError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import LLMSettings, ModelSettings, Settings
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, LLMMessage, LLMResponse
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.integration import LLMIntegration

HELLO = [LLMMessage("user", "hello")]


class Foreign(BaseLLMProvider):
    """Does what the test says at each call."""

    provider_name = "foreign"

    def __init__(self, does: Any) -> None:
        super().__init__()
        self.does = does
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Chatting(Foreign):
    def chat_completion(self, messages: Sequence[LLMMessage], **params: Any) -> LLMResponse:
        if isinstance(self.does, BaseException):
            raise self.does
        answer: LLMResponse = self.does
        return answer


class Streaming(Foreign):
    def stream_completion(self, messages: Sequence[LLMMessage], **params: Any) -> Iterator[str]:
        yield "one"
        if isinstance(self.does, BaseException):
            raise self.does
        yield self.does


class Speaking(Foreign):
    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        if isinstance(self.does, BaseException):
            raise self.does
        yield self.does


def integration(*providers: BaseLLMProvider, observer: Any = None) -> LLMIntegration:
    names = [f"model{number}" for number, _ in enumerate(providers)]
    llm = LLMSettings(
        cheap_models=tuple(names),
        expensive_models=tuple(names),
        expensive_stages=(),
        qwen_oauth_path=Path("creds.json"),
        models={name: ModelSettings(name=name, provider="openai", model=name) for name in names},
    )
    given = dict(zip(names, providers, strict=True))
    return LLMIntegration(Settings(llm=llm), providers=given, observer=observer, jitter=lambda: 0.0)


@pytest.mark.parametrize("kind", [Chatting, Streaming, Speaking])
@pytest.mark.parametrize("stream", [True, False])
def test_what_a_provider_raises_is_its_failure(kind: type[Foreign], stream: bool) -> None:
    provider = kind(ValueError("boom"))
    with integration(provider) as llm, pytest.raises(ProviderError) as caught:
        list(llm.stream_completion(HELLO)) if stream else llm.chat_completion(HELLO)

    assert caught.value.message == "the provider failed: ValueError: boom"
    assert caught.value.hint == f"the mistake is in its own code: {__name__}.{kind.__qualname__}"
    assert caught.value.__cause__ is provider.does
    assert caught.value.partial_text == ("one" if kind is Streaming else "")


@pytest.mark.parametrize(
    ("provider", "sentence"),
    [
        (Chatting("text"), "chat_completion returned str, LLMResponse is wanted"),
        (Chatting(None), "chat_completion returned NoneType, LLMResponse is wanted"),
        (Streaming(5), "stream_completion yielded int, str is wanted"),
        (Speaking("text"), "deltas yielded str, Delta is wanted"),
        (Chatting(LLMResponse(content=5)), "content of the answer is of the type int, str is wanted"),  # type: ignore[arg-type]
        (Chatting(LLMResponse(content="a", cost=0.5)), "cost of the answer is of the type float, Decimal"),  # type: ignore[arg-type]
        (Speaking(Delta("a", usage={})), "usage of the answer is of the type dict, Usage is wanted"),  # type: ignore[arg-type]
        (Foreign(None), "Foreign must define chat_completion, stream_completion or deltas"),
    ],
)
def test_what_a_provider_gives_is_checked(provider: BaseLLMProvider, sentence: str) -> None:
    with integration(provider) as llm, pytest.raises(ProviderError, match=sentence):
        llm.chat_completion(HELLO)


class Endless(BaseLLMProvider):
    """Says `piece` for ever; `then` is done to the scope of the call after the third one."""

    provider_name = "endless"

    def __init__(self, piece: str, then: Callable[[Scope], None]) -> None:
        super().__init__()
        self.piece = piece
        self.then = then
        self.asked = False

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        self.asked = True
        for number in range(1000):  # so that a failure is not endless
            if number == 3:
                self.then(request.scope)
            yield Delta(self.piece)
        raise AssertionError("nobody has ended this")


def overdue(scope: Scope) -> None:
    scope.deadline = 0.0


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("piece", ["a", ""])
@pytest.mark.parametrize(("then", "error"), [(Scope.cancel, Cancelled), (overdue, DeadlineError)])
def test_a_provider_without_end_is_ended(
    piece: str, then: Callable[[Scope], None], error: type[FlowcraftError], stream: bool
) -> None:
    with integration(Endless(piece, then)) as llm, pytest.raises(error) as caught:
        list(llm.stream_completion(HELLO)) if stream else llm.chat_completion(HELLO)

    assert getattr(caught.value, "partial_text", "") == (piece * 4 if error is DeadlineError else "")


def test_an_answer_without_end_is_too_long() -> None:
    with integration(Endless("a" * 2**20, print)) as llm, pytest.raises(TransportError, match="longer than"):
        llm.chat_completion(HELLO)


def test_nobody_is_asked_in_a_call_that_is_over() -> None:
    provider, scope = Endless("a", print), Scope()
    scope.cancel()
    with integration(provider) as llm, pytest.raises(Cancelled):
        llm.chat_completion(HELLO, scope=scope)

    assert not provider.asked


def test_an_answer_that_comes_whole_counts_however_late_it_is() -> None:
    class Late(BaseLLMProvider):
        provider_name = "late"

        def deltas(self, request: ChatRequest) -> Iterator[Delta]:
            overdue(request.scope)
            yield Delta("late", finish_reason="stop")

    with integration(Late()) as llm:
        assert llm.chat_completion(HELLO).content == "late"


def test_an_exception_that_cannot_be_shown_is_a_failure_like_others() -> None:
    class Shy(Exception):
        def __str__(self) -> str:
            raise ValueError

    with integration(Chatting(Shy())) as llm, pytest.raises(ProviderError, match="Shy"):
        llm.chat_completion(HELLO)


def test_the_key_of_a_provider_is_not_in_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "canary-of-mine")
    provider = Chatting(ValueError("bad header: Bearer canary-of-mine"))
    provider.config = ModelSettings(name="m", provider="chatting", model="m", api_key_env="MY_KEY")

    with integration(provider) as llm, pytest.raises(ProviderError, match=r"Bearer \*\*\*") as caught:
        llm.chat_completion(HELLO)
    assert "canary" not in str(caught.value)


def test_a_broken_connection_of_a_provider_falls_back_to_the_next_model() -> None:
    spare = Chatting(LLMResponse(content="spare"))
    with integration(Chatting(ConnectionResetError("gone")), spare) as llm:
        assert llm.chat_completion(HELLO).content == "spare"


def test_a_broken_connection_is_one_of_the_transport() -> None:
    with integration(Chatting(TimeoutError("too slow"))) as llm, pytest.raises(TransportError, match="too slow"):
        llm.chat_completion(HELLO)


@pytest.mark.parametrize("error", [UsageError("no such thing"), Cancelled(), ProviderError("busy")])
def test_our_errors_pass_as_they_are(error: FlowcraftError) -> None:
    with integration(Chatting(error)) as llm, pytest.raises(type(error)) as caught:
        llm.chat_completion(HELLO)

    assert caught.value is error


def test_what_an_observer_raises_is_no_failure_of_the_provider() -> None:
    class Books:
        def started(self, call: CallStarted) -> None:
            raise ZeroDivisionError

        def finished(self, call: CallFinished) -> None: ...

    with integration(Chatting(LLMResponse(content="x")), observer=Books()) as llm, pytest.raises(ZeroDivisionError):
        llm.chat_completion(HELLO)


def test_one_provider_that_cannot_be_closed_leaves_no_other_open() -> None:
    class Stuck(Chatting):
        def close(self) -> None:
            raise ValueError("stuck")

    others = Chatting(None), Chatting(None)
    with pytest.raises(ValueError, match="stuck"):
        integration(others[0], Stuck(None), others[1]).close()

    assert [other.closed for other in others] == [True, True]


def chat(module: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`flowcraft chat` on the provider of an installed package with this module."""
    info = folder / "site" / "foreign-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[flowcraft.providers]\nforeign = foreign_provider:Provider\n")
    (folder / "site" / "foreign_provider.py").write_text(module)
    Path("settings.yaml").write_text("llm: {cheap_model: foreign, expensive_model: foreign}")
    path = os.pathsep.join([str(folder / "site"), str(Path(__file__).parents[2])])
    return subprocess.run(
        [sys.executable, "-m", "flowcraft", "chat", "hello"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("text", ["1 / 0", "import nothing_of_that_name", "x = 1", "Provider = 1", "not Python"])
def test_a_package_that_cannot_be_loaded_is_named(tmp_path: Path, text: str) -> None:
    done = chat(text, tmp_path)

    assert done.returncode == 2
    assert done.stderr.startswith("error: provider 'foreign'")
    assert "= help: install or repair the package that brings it" in done.stderr


def test_a_provider_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    done = chat(
        "from flowcraft import BaseLLMProvider\n"
        "class Provider(BaseLLMProvider):\n"
        "    def __init__(self, config):\n"
        "        raise KeyError('TOKEN')\n",
        tmp_path,
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: provider 'foreign' cannot be made: KeyError: 'TOKEN'")
