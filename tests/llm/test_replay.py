"""Answers from a recording and nothing else."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from flowcraft.core.errors import Cancelled, DocumentError, ReplayMiss, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import ModelSettings, Origin
from flowcraft.llm.base import ChatRequest, LLMMessage, Usage
from flowcraft.llm.providers.replay import ReplayProvider


def asking(text: str, system: str | None = None) -> list[LLMMessage]:
    opening = [LLMMessage("system", system)] if system else []
    return [*opening, LLMMessage("user", text)]


def recorded(text: str, answer: Any, **more: Any) -> dict[str, Any]:
    return {"request": {"messages": [{"role": "user", "content": text}], **more}, "response": answer}


def player(*lines: Any, model: str = "") -> ReplayProvider:
    path = Path("answers.jsonl")
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return ReplayProvider(
        ModelSettings(name="recorded", provider="replay", model=model, options={"path": str(path.resolve())})
    )


def test_the_recorded_answer_comes_with_all_that_was_recorded() -> None:
    answer = {
        "content": "Paris",
        "finish_reason": "length",
        "usage": {"prompt_tokens": 7, "completion_tokens": 1},
        "reasoning": "hm",
        "model": "some-model",
        "request_id": "r1",
    }

    response = player(recorded("capital?", answer)).chat_completion(asking("capital?"))

    assert (response.content, response.finish_reason, response.reasoning) == ("Paris", "length", "hm")
    assert response.usage == Usage(prompt_tokens=7, completion_tokens=1)
    assert (response.model, response.request_id) == ("some-model", "r1")


def test_a_stream_gives_the_same_text_in_pieces() -> None:
    text = "  two words\n\nand more \n"

    pieces = list(player({"response": text}).stream_completion(asking("x")))

    assert len(pieces) > 2
    assert "".join(pieces) == text


def test_the_exact_request_wins_over_a_match_and_a_match_over_any() -> None:
    provider = player({"response": "any"}, {"match": "cap", "response": "match"}, recorded("capital?", "exact"))

    assert provider.chat_completion(asking("capital?")).content == "exact"
    assert provider.chat_completion(asking("capital!")).content == "match"
    assert provider.chat_completion(asking("other")).content == "any"


def test_lines_for_the_same_request_come_in_order_and_the_last_one_is_repeated() -> None:
    provider = player({"match": "x", "response": "1"}, {"match": "x", "response": "2"})

    assert [provider.chat_completion(asking("x")).content for _ in range(4)] == ["1", "2", "2", "2"]


def test_all_texts_of_a_match_must_occur_in_any_of_the_messages() -> None:
    provider = player({"match": ["reviewer", "diff"], "response": "both"})

    assert provider.chat_completion(asking("this diff", system="a reviewer")).content == "both"
    with pytest.raises(ReplayMiss, match="'reviewer' and 'diff'"):
        provider.chat_completion(asking("this diff"))


def test_model_and_params_count_where_they_are_recorded() -> None:
    provider = player(recorded("x", "cold", params={"temperature": 0}), recorded("x", "warm", model="other"), model="m")

    assert provider.chat_completion(asking("x"), temperature=0).content == "cold"
    with pytest.raises(ReplayMiss):
        provider.chat_completion(asking("x"), temperature=1)


def test_a_miss_names_the_nearest_recorded_request_and_what_differs() -> None:
    provider = player(
        recorded("something else entirely", "a", params={"temperature": 0}),
        recorded("Review this file.", "b", params={"temperature": 0}),
    )

    with pytest.raises(ReplayMiss) as caught:
        provider.chat_completion(asking("Review this fife."), temperature=0)

    assert "answers.jsonl:2" in caught.value.message
    assert "messages[0].content (from character 14: recorded" in caught.value.message
    assert "params" not in caught.value.message
    assert caught.value.sent is False
    assert caught.value.retryable is False


def test_of_two_requests_that_differ_in_one_text_the_more_alike_is_nearest() -> None:
    provider = player(recorded("Plan the house.", "a"), recorded("Review this file.", "b"))

    with pytest.raises(ReplayMiss, match=r"answers\.jsonl:2"):
        provider.chat_completion(asking("Review this fife."))


def test_a_miss_of_an_empty_recording_says_so() -> None:
    with pytest.raises(ReplayMiss, match="is empty"):
        player().chat_completion(asking("x"))


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"response": 1}',
        '{"response": {"text": "x"}}',
        '{"response": {"content": "x", "colour": "red"}}',
        '{"response": {"content": "x", "usage": {"tokens": 1}}}',
        '{"response": "x", "match": 1}',
        '{"response": "x", "match": []}',
        '{"response": "x", "match": "a", "request": {"messages": []}}',
        '{"response": "x", "request": {}}',
        '{"response": "x", "request": {"messages": [{"role": "user"}]}}',
        '{"response": "x", "request": {"messages": [], "params": []}}',
        '{"response": "x", "stage": "coding"}',
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str) -> None:
    Path("bad.jsonl").write_text(f'{{"response": "fine"}}\n{line}\n')
    settings = ModelSettings(name="r", provider="replay", model="", options={"path": "bad.jsonl"})

    with pytest.raises(DocumentError) as caught:
        ReplayProvider(settings)

    assert [problem.line for problem in caught.value.problems] == [2]


def test_a_recording_that_cannot_be_read_is_named() -> None:
    for options in ({}, {"path": "missing.jsonl"}):
        with pytest.raises(UsageError):
            ReplayProvider(ModelSettings(name="r", provider="replay", model="", options=options))


def test_a_relative_path_starts_at_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.jsonl").write_text('{"response": "here"}\n')
    origin = Origin(str(tmp_path / "conf" / "settings.yaml"), 3)
    settings = ModelSettings(name="r", provider="replay", model="", options={"path": "a.jsonl"}, origin=origin)

    assert ReplayProvider(settings).chat_completion(asking("x")).content == "here"


def test_threads_share_the_lines_without_giving_one_twice() -> None:
    provider = player(*({"response": str(number)} for number in range(200)))
    answers: list[str] = []

    def ask() -> None:
        answers.extend(provider.chat_completion(asking("x")).content for _ in range(25))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(int, answers)) == list(range(200))


def test_a_cancelled_request_gets_no_answer() -> None:
    scope = Scope()
    scope.cancel()

    with pytest.raises(Cancelled):
        next(player({"response": "x"}).deltas(ChatRequest(messages=tuple(asking("x")), scope=scope)))
