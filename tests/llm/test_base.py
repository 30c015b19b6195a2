from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flowcraft.core.errors import Cancelled, IncompleteStream, UsageError
from flowcraft.llm.base import (
    BaseLLMProvider,
    ChatRequest,
    CompletionStream,
    Delta,
    LLMMessage,
    LLMResponse,
    Usage,
    checked_messages,
)

HELLO = [LLMMessage(role="user", content="hello")]


class Whole(BaseLLMProvider):
    provider_name = "whole"

    def chat_completion(self, messages: Sequence[LLMMessage], **params: Any) -> LLMResponse:
        return LLMResponse(content=f"{messages[-1].content} {params}", model="w", usage=Usage(prompt_tokens=1))


class Pieces(BaseLLMProvider):
    provider_name = "pieces"

    def stream_completion(self, messages: Sequence[LLMMessage], **params: Any) -> Iterator[str]:
        yield from ("one ", "two ", str(params))


class Wire(BaseLLMProvider):
    provider_name = "wire"
    closed = False

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        try:
            yield Delta(content="a", reasoning="because")
            yield Delta(content="b")
            yield Delta(finish_reason="stop", usage=Usage(completion_tokens=2), model="served", request_id="r1")
        finally:
            self.closed = True


class Cut(BaseLLMProvider):
    provider_name = "cut"

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        yield Delta(content="half an ans")


def test_streaming_is_derived_from_a_whole_answer() -> None:
    stream = Whole().stream_completion(HELLO, seed=7)

    assert list(stream) == ["hello {'seed': 7}"]
    assert isinstance(stream, CompletionStream)
    assert stream.response.usage == Usage(prompt_tokens=1)


def test_a_whole_answer_is_derived_from_pieces() -> None:
    response = Pieces().chat_completion(HELLO, seed=7)

    assert response.content == "one two {'seed': 7}"
    assert response.finish_reason == "stop"


def test_both_are_derived_from_deltas() -> None:
    response = Wire().chat_completion(HELLO)

    assert (response.content, response.reasoning, response.model, response.request_id) == (
        "ab",
        "because",
        "served",
        "r1",
    )
    assert list(Wire().stream_completion(HELLO)) == ["a", "b"]


def test_an_answer_without_a_finish_is_no_answer() -> None:
    with pytest.raises(IncompleteStream) as caught:
        Cut().chat_completion(HELLO)

    assert caught.value.partial_text == "half an ans"


def test_a_stream_without_a_finish_raises_after_its_last_piece() -> None:
    stream = Cut().stream_completion(HELLO)

    assert next(stream) == "half an ans"
    with pytest.raises(IncompleteStream):
        next(stream)


def test_leaving_a_stream_early_ends_the_request() -> None:
    provider = Wire()

    with provider.stream_completion(HELLO) as stream:  # type: ignore[attr-defined]
        next(stream)

    assert provider.closed
    with pytest.raises(Cancelled):  # not just the end, which would make it look whole
        next(stream)
    with pytest.raises(UsageError, match="not finished"):
        _ = stream.response


@pytest.mark.parametrize("timeout", [0, -1, "5", float("nan")])
def test_a_timeout_must_be_a_number_of_seconds_here_too(timeout: Any) -> None:
    with pytest.raises(UsageError, match="timeout is"):
        Wire().chat_completion(HELLO, timeout=timeout)


def test_the_response_stays_after_the_stream_was_asked_again() -> None:
    stream = Wire().stream_completion(HELLO)
    list(stream)

    assert list(stream) == []
    assert stream.response.content == "ab"  # type: ignore[attr-defined]


def test_a_provider_without_any_method_says_so() -> None:
    with pytest.raises(TypeError, match="must define"):
        BaseLLMProvider().chat_completion(HELLO)


@pytest.mark.parametrize("messages", ["hello", [], [{"role": "user", "content": "hi"}], LLMMessage("user", "hi"), None])
def test_messages_must_be_a_list_of_messages(messages: Any) -> None:
    with pytest.raises(UsageError):
        checked_messages(messages)


def test_a_message_has_a_known_role() -> None:
    with pytest.raises(UsageError, match="unknown role 'usr'"):
        LLMMessage(role="usr", content="x")
