import gc
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes import Gate, Reply, ScriptedProvider

from flowcraft.core.errors import (
    AuthError,
    Cancelled,
    DeadlineError,
    IncompleteStream,
    ProviderError,
    RateLimitError,
    ReplyError,
    SettingsError,
    TransportError,
    UsageError,
)
from flowcraft.core.scope import Scope
from flowcraft.core.values import LLMSettings, ModelSettings, Origin, Prices, Settings, Timeouts
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, LLMMessage, LLMResponse, Usage
from flowcraft.llm.calls import CallFinished, CallStarted
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration

HELLO = [LLMMessage(role="user", content="hello")]
BUSY = RateLimitError("slow down", status=429, retryable=True, retry_after_s=0)


def model(name: str) -> ModelSettings:
    prices = Prices(input=Decimal(1), output=Decimal(2))
    return ModelSettings(name=name, provider="openai", model=f"vendor-{name}", prices=prices)


SETTINGS = Settings(
    llm=LLMSettings(
        cheap_models=("small", "spare"),
        expensive_models=("large",),
        expensive_stages=("architecture_design",),
        qwen_oauth_path=Path("oauth_creds.json"),
        models={name: model(name) for name in ("small", "spare", "large")},
    ),
)


class Books:
    """Keeps what the observer is told."""

    def __init__(self) -> None:
        self.calls: list[CallStarted] = []
        self.ends: list[CallFinished] = []

    def started(self, call: CallStarted) -> None:
        self.calls.append(call)

    def finished(self, call: CallFinished) -> None:
        self.ends.append(call)

    @property
    def events(self) -> list[str]:
        return [f"{call.event} {call.choice.model.name}" for call in self.calls]


def integration(*, books: Books | None = None, **providers: BaseLLMProvider) -> LLMIntegration:
    return LLMIntegration(SETTINGS, providers=providers, observer=books, jitter=lambda: 0.0)


def test_a_stage_of_the_settings_gets_the_expensive_model() -> None:
    small, large = ScriptedProvider("cheap answer"), ScriptedProvider("good answer")
    llm = integration(small=small, large=large)

    assert llm.chat_completion(HELLO).content == "cheap answer"
    assert llm.chat_completion(HELLO, stage_name="architecture_design").content == "good answer"


def test_a_response_names_who_answered_and_what_it_cost() -> None:
    usage = Usage(prompt_tokens=1000, completion_tokens=500, total_tokens=1500)
    llm = integration(small=ScriptedProvider(Reply(content="hi", usage=usage)))

    response = llm.chat_completion(HELLO)

    assert response == LLMResponse(
        content="hi", model="vendor-small", provider="openai", finish_reason="stop", usage=usage, cost=Decimal("0.002")
    )


def test_unknown_usage_is_an_unknown_cost() -> None:
    llm = integration(small=ScriptedProvider(Reply(content="hi", usage=None)))

    assert llm.chat_completion(HELLO).cost is None


def test_parameters_reach_the_provider() -> None:
    small = ScriptedProvider("hi")

    integration(small=small).chat_completion(HELLO, temperature=0.1, max_tokens=5)

    assert small.last.params == {"temperature": 0.1, "max_tokens": 5}
    assert not small.last.stream


def test_a_stream_hands_out_pieces_and_then_the_response() -> None:
    llm = integration(small=ScriptedProvider(["one ", "two"]))

    stream = llm.stream_completion(HELLO)

    assert list(stream) == ["one ", "two"]
    assert stream.response.content == "one two"
    assert stream.response.cost is not None


def test_technical_failures_are_tried_again() -> None:
    books = Books()
    llm = integration(books=books, small=ScriptedProvider(BUSY, BUSY, "at last"))

    assert llm.chat_completion(HELLO).content == "at last"
    assert books.events == ["first small", "retry small", "retry small"]
    assert [type(end.error) for end in books.ends] == [RateLimitError, RateLimitError, type(None)]


def test_the_next_model_of_the_tier_stands_in_when_one_is_down() -> None:
    books = Books()
    llm = integration(
        books=books,
        small=ScriptedProvider(AuthError("key refused", status=401)),
        spare=ScriptedProvider("spare answer"),
    )

    response = llm.chat_completion(HELLO)

    assert (response.content, response.model) == ("spare answer", "vendor-spare")
    assert books.events == ["first small", "fallback spare"]


def test_a_wrong_request_is_not_sent_to_another_model() -> None:
    wrong = ProviderError("unknown parameter", status=400)
    spare = ScriptedProvider("never")
    llm = integration(small=ScriptedProvider(wrong), spare=spare)

    with pytest.raises(ProviderError, match="unknown parameter"):
        llm.chat_completion(HELLO)

    assert spare.requests == []


def test_a_bad_answer_is_neither_retried_nor_sent_elsewhere() -> None:
    small = ScriptedProvider(ReplyError("refused"))

    with pytest.raises(ReplyError):
        integration(small=small, spare=ScriptedProvider("never")).chat_completion(HELLO)

    assert len(small.requests) == 1


def test_the_last_error_says_provider_and_model() -> None:
    llm = integration(large=ScriptedProvider(AuthError("key refused", status=401)))

    with pytest.raises(AuthError) as caught:
        llm.chat_completion(HELLO, model="large")

    assert str(caught.value) == "key refused (provider openai, model vendor-large, status 401)"


def test_a_stream_is_not_tried_again_once_text_was_shown() -> None:
    small = ScriptedProvider(["half", TransportError("cut", retryable=True)])
    stream = integration(small=small, spare=ScriptedProvider("never")).stream_completion(HELLO)

    assert next(stream) == "half"
    with pytest.raises(TransportError) as caught:
        next(stream)

    assert caught.value.partial_text == "half"
    assert len(small.requests) == 1


def test_a_stream_that_breaks_before_its_text_is_tried_again() -> None:
    books = Books()
    llm = integration(books=books, small=ScriptedProvider(BUSY, ["whole"]))

    assert list(llm.stream_completion(HELLO)) == ["whole"]
    assert books.events == ["first small", "retry small"]


@pytest.mark.parametrize("streamed", [True, False])
def test_the_dollars_that_an_answer_names_win_over_a_list_of_prices(streamed: bool) -> None:
    said = [Delta(content="one"), Delta(finish_reason="stop", usage=Usage(prompt_tokens=1), cost=Decimal("0.25"))]

    class Telling(BaseLLMProvider):
        provider_name = "telling"

        def deltas(self, request: ChatRequest) -> Iterator[Delta]:
            return iter(said)

    llm = integration(small=Telling())
    if streamed:
        stream = llm.stream_completion(HELLO)
        list(stream)
        response = stream.response
    else:
        response = llm.chat_completion(HELLO)

    assert response.cost == Decimal("0.25")


CUT = IncompleteStream("cut")


def test_a_cut_stream_whose_pieces_can_be_taken_back_is_asked_for_once_more() -> None:
    books = Books()
    stream = integration(books=books, small=ScriptedProvider(["ha", CUT], ["who", "le"])).stream_completion(
        HELLO, provisional=True
    )

    assert list(stream) == ["ha", "who", "le"]
    assert stream.response.content == "whole"
    assert books.events == ["first small", "retry small"]
    assert [type(end.error) for end in books.ends] == [IncompleteStream, type(None)]


def test_a_stream_that_is_cut_again_and_again_is_not_asked_for_a_third_time() -> None:
    small, spare = (ScriptedProvider(["ha", IncompleteStream("cut")], ["hal", IncompleteStream("cut")]) for _ in "ab")
    stream = integration(small=small, spare=spare).stream_completion(HELLO, provisional=True, retries=5)
    with pytest.raises(IncompleteStream) as caught:
        list(stream)

    assert caught.value.partial_text == "hal"
    assert [len(model.requests) for model in (small, spare)] == [2, 2]


@pytest.mark.parametrize("error", [TransportError("refused", status=529), ReplyError("a tool"), DeadlineError("idle")])
def test_pieces_that_can_be_taken_back_do_not_bring_back_what_was_not_cut(error: ProviderError) -> None:
    small = ScriptedProvider(["ha", error])
    with pytest.raises(type(error)):
        list(integration(small=small).stream_completion(HELLO, provisional=True))

    assert len(small.requests) == 1


def test_a_whole_answer_that_broke_in_the_middle_is_asked_for_once_more() -> None:
    llm = integration(small=ScriptedProvider(["half", TransportError("cut", retryable=True)], "whole"))

    assert llm.chat_completion(HELLO).content == "whole"


def test_an_answer_that_never_finishes_is_an_error() -> None:
    def unfinished(_: object) -> Reply:
        return Reply(content="half", finish_reason=None)

    with pytest.raises(IncompleteStream) as caught:
        integration(
            small=ScriptedProvider(otherwise=unfinished), spare=ScriptedProvider(otherwise=unfinished)
        ).chat_completion(HELLO)

    assert caught.value.partial_text == "half"


def test_leaving_a_stream_early_is_told_to_the_observer() -> None:
    books = Books()
    llm = integration(books=books, small=ScriptedProvider(["a", "b", "c"]))

    with llm.stream_completion(HELLO) as stream:
        next(stream)

    assert [type(end.error) for end in books.ends] == [Cancelled]


def test_a_wait_longer_than_the_time_left_is_not_waited() -> None:
    late = RateLimitError("slow down", status=429, retryable=True, retry_after_s=50)
    llm = integration(large=ScriptedProvider(late))

    with pytest.raises(RateLimitError):
        llm.chat_completion(HELLO, model="large", timeout=10)


def test_cancelling_a_scope_ends_the_call_in_another_thread() -> None:
    gate, scope, errors = Gate(), Scope(), []
    llm = integration(small=ScriptedProvider([gate, "never"]))

    def ask() -> None:
        try:
            llm.chat_completion(HELLO, scope=scope)
        except Cancelled as error:
            errors.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    gate.reached()
    scope.cancel()
    caller.join(10)

    assert len(errors) == 1


def test_closing_ends_running_calls_and_closes_the_providers() -> None:
    gate, errors = Gate(), []
    small = ScriptedProvider([gate, "never"])
    llm = integration(small=small)

    def ask() -> None:
        try:
            llm.chat_completion(HELLO)
        except Cancelled as error:
            errors.append(error)

    caller = threading.Thread(target=ask)
    caller.start()
    gate.reached()
    llm.close()
    caller.join(10)

    assert len(errors) == 1
    assert small.closed == 1
    with pytest.raises(UsageError, match="closed"):
        llm.chat_completion(HELLO)


def test_a_closed_scope_of_a_call_leaves_nothing_behind() -> None:
    scope = Scope()
    llm = integration(small=ScriptedProvider("a"))

    llm.chat_completion(HELLO, scope=scope)

    assert not scope._callbacks


@pytest.mark.parametrize("close", [True, False])
def test_a_stream_that_nobody_reads_leaves_nothing_behind(close: bool) -> None:
    scope = Scope()
    stream = integration(small=ScriptedProvider()).stream_completion(HELLO, scope=scope)
    assert scope._callbacks

    if close:
        stream.close()
    else:
        del stream
        gc.collect()

    assert not scope._callbacks


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage_name": 5},
        {"stage_name": ["coding"]},
        {"model": 5},
        {"model": ["small"]},
        {"scope": 5},
        {"retries": -1},
        {"retries": "2"},
        {"retries": True},
    ],
)
def test_what_a_call_cannot_mean_is_said(wrong: Any) -> None:
    with integration(small=ScriptedProvider("a")) as llm, pytest.raises(UsageError, match=next(iter(wrong))[:5]):
        llm.chat_completion(HELLO, **wrong)


def test_the_limit_of_the_model_applies_unless_one_is_given() -> None:
    small = ScriptedProvider("a", "b")
    settings = replace(
        SETTINGS,
        llm=replace(
            SETTINGS.llm, models={**SETTINGS.llm.models, "small": replace(model("small"), timeouts=Timeouts(total=7))}
        ),
    )
    llm = LLMIntegration(settings, providers={"small": small})

    llm.chat_completion(HELLO)
    llm.chat_completion(HELLO, timeout=3)

    assert 6 < (small.requests[0].scope.remaining_s() or 0) <= 7
    assert 2 < (small.requests[1].scope.remaining_s() or 0) <= 3


def test_model_info_says_which_model_and_why() -> None:
    info = integration().get_current_model_info("architecture_design")

    assert (info["provider"], info["model"], info["type"], info["cause"]) == (
        "openai",
        "vendor-large",
        "expensive",
        "expensive_stages",
    )


def test_an_unknown_model_is_an_error_before_any_call() -> None:
    settings = replace(
        SETTINGS,
        llm=replace(SETTINGS.llm, expensive_models=("larg",)),
        origins={"llm.expensive_model": Origin("settings.yaml", 4, 20)},
    )

    with pytest.raises(SettingsError, match="settings.yaml:4:20"):
        LLMIntegration(settings)


def test_a_provider_of_ones_own_is_a_small_class() -> None:
    class Shout(BaseLLMProvider):
        provider_name = "shout"

        def chat_completion(self, messages: Sequence[LLMMessage], **params: Any) -> LLMResponse:
            return LLMResponse(content=messages[-1].content.upper())

    LLMProviderFactory.register_provider("shout", Shout)
    try:
        settings = replace(SETTINGS, llm=replace(SETTINGS.llm, cheap_models=("shout",)))
        with LLMIntegration(settings) as llm:
            response = llm.chat_completion(HELLO)
            assert list(llm.stream_completion(HELLO)) == ["HELLO"]
    finally:
        LLMProviderFactory.unregister_provider("shout")

    assert (response.content, response.provider) == ("HELLO", "shout")


def test_reasoning_counts_as_shown_text() -> None:
    small = ScriptedProvider([Delta(reasoning="hm"), TransportError("cut", retryable=True)])

    with pytest.raises(TransportError):
        list(integration(small=small).stream_completion(HELLO))

    assert len(small.requests) == 1


def test_threads_share_one_integration() -> None:
    llm = integration(small=ScriptedProvider(otherwise=lambda request: request.messages[-1].content))
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = llm.chat_completion([LLMMessage("user", f"n{number}")]).content

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == {number: f"n{number}" for number in range(16)}


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5", True, [1]])
@pytest.mark.parametrize("stream", [True, False])
def test_a_timeout_must_be_a_number_of_seconds(timeout: Any, stream: bool) -> None:
    with integration(small=ScriptedProvider()) as llm, pytest.raises(UsageError, match="timeout is") as caught:
        llm.stream_completion(HELLO, timeout=timeout) if stream else llm.chat_completion(HELLO, timeout=timeout)

    assert caught.value.hint == "give seconds, such as timeout=30"


def test_settings_are_not_the_path_of_a_file() -> None:
    with pytest.raises(UsageError, match="str is no settings") as caught:
        LLMIntegration("settings.yaml")  # type: ignore[arg-type]

    assert caught.value.hint == "LLMIntegration(SettingsManager(path))"


def test_a_plan_is_not_billed_at_the_list_price() -> None:
    listed = replace(model("small"), prices=None, model="qwen3-coder-plus", provider="qwen-code")
    settings = replace(SETTINGS, llm=replace(SETTINGS.llm, models={**SETTINGS.llm.models, "small": listed}))
    paid, planned = ScriptedProvider("a"), ScriptedProvider("b")
    planned.at_list_price = False

    assert LLMIntegration(settings, providers={"small": paid}).chat_completion(HELLO).cost is not None
    assert LLMIntegration(settings, providers={"small": planned}).chat_completion(HELLO).cost is None
