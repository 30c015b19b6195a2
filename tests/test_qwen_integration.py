"""Qwen in FlowCraft as a whole, with no account: `python tests/test_qwen_integration.py`, or pytest.

Provider, routing, streaming, refresh and errors against a service of our own in another process.
"""

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

if __name__ == "__main__":
    try:
        import pytest
    except ImportError:
        sys.exit("this script needs pytest: pip install 'flowcraft-sdk[test]'")
    sys.exit(pytest.main([__file__, "-q", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib"]))

import pytest
from qwen_parts import settings, write
from qwen_service import CANARY, QwenProcess

from flowcraft import LLMIntegration, LLMMessage, SettingsManager
from flowcraft.core.errors import AuthError, RateLimitError
from flowcraft.llm.calls import CallFinished, CallStarted

HELLO = [LLMMessage(role="user", content="hello")]


class Book:
    """Keeps what is told about calls."""

    def __init__(self) -> None:
        self.calls: list[CallStarted] = []
        self.ends: list[CallFinished] = []

    def started(self, call: CallStarted) -> None:
        self.calls.append(call)

    def finished(self, call: CallFinished) -> None:
        self.ends.append(call)


@pytest.fixture
def path(service: QwenProcess, workspace: Path) -> Path:
    return write(workspace / ".qwen" / "oauth_creds.json", service.credentials())


@pytest.fixture
def llm(service: QwenProcess, workspace: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLMIntegration]:
    monkeypatch.setenv("TEST_QWEN_KEY", f"sk-{CANARY}")
    settings(workspace, service, path)
    with LLMIntegration(SettingsManager()) as integration:
        yield integration


def test_answers_with_the_cheap_model(llm: LLMIntegration) -> None:
    answer = llm.chat_completion(HELLO)

    assert (answer.content, answer.provider, answer.model) == ("Hello, world", "qwen-code", "qwen3-coder-plus")


def test_an_expensive_stage_goes_to_the_expensive_model(llm: LLMIntegration, service: QwenProcess) -> None:
    llm.chat_completion(HELLO, stage_name="security_review")
    llm.chat_completion(HELLO, stage_name="coding")

    assert [chat["body"]["model"] for chat in service.chats()] == ["qwen3-max", "qwen3-coder-plus"]
    assert llm.get_current_model_info("coding")["type"] == "cheap"
    assert llm.get_current_model_info("security_review")["type"] == "expensive"


def test_streams_as_it_arrives(llm: LLMIntegration) -> None:
    with llm.stream_completion(HELLO) as pieces:
        assert list(pieces) == ["Hello", ", ", "world"]
        assert pieces.response.reasoning == "think hard"
        assert pieces.response.usage is not None


def test_refreshes_an_expired_login(llm: LLMIntegration, service: QwenProcess, path: Path) -> None:
    old = service.credentials(expired=True)
    write(path, old)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: llm.chat_completion(HELLO).content, range(8)))

    assert answers == ["Hello, world"] * 8
    assert service.counts()["token requests"] == 1
    assert json.loads(path.read_text())["access_token"] != old["access_token"]


def test_refreshes_a_login_that_was_revoked(llm: LLMIntegration, service: QwenProcess, path: Path) -> None:
    service.do("revoke", token=json.loads(path.read_text())["access_token"])

    with llm.stream_completion(HELLO) as pieces:
        assert "".join(pieces) == "Hello, world"
    assert service.counts()["token requests"] == 1


def test_says_that_the_service_has_ended(llm: LLMIntegration, service: QwenProcess) -> None:
    service.script(chat=["401"] * 9)

    with pytest.raises(AuthError, match="ended its free tier") as ended:
        llm.chat_completion(HELLO)

    assert "DASHSCOPE_API_KEY" in str(ended.value.hint)
    assert service.counts()["chats"] == 2


def test_another_model_stands_in_and_the_cause_is_kept(
    service: QwenProcess, workspace: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_QWEN_KEY", f"sk-{CANARY}")
    place = settings(workspace, service, path)
    one, two = "cheap_model: qwen3-coder-plus", "cheap_model: [qwen3-coder-plus, strong]"
    place.write_text(place.read_text().replace(one, two))
    service.script(chat=["429-quota"])
    book = Book()

    with LLMIntegration(SettingsManager(), observer=book) as integration:
        answer = integration.chat_completion(HELLO)

    assert answer.content == "Hello, world"
    assert [call.choice.model.model for call in book.calls] == ["qwen3-coder-plus", "qwen3-max"]
    assert book.calls[1].event == "fallback"
    assert isinstance(book.ends[0].error, RateLimitError)
    assert "free quota of today" in str(book.ends[0].error)


def test_a_missing_login_is_explained(llm: LLMIntegration, path: Path) -> None:
    path.unlink()

    with pytest.raises(AuthError, match="not signed in") as missing:
        llm.chat_completion(HELLO)

    assert "flowcraft auth login qwen" in str(missing.value.hint)
