"""The small readers and writers below the providers of agents."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.errors import AuthError, ProcessError, ProviderError, RateLimitError, TransportError
from flowcraft.llm.agents.acp.jsonrpc import BrokenMessage, Notification, Request, Response, parse
from flowcraft.llm.agents.acp.models import choose_mode, choose_model
from flowcraft.llm.agents.failures import disguised, failure, without_secrets
from flowcraft.llm.agents.prompt import PREFACE, prompt_text, read_back
from flowcraft.llm.agents.reply import found_at
from flowcraft.llm.agents.terminal import PlainText, asks_for_login, plain
from flowcraft.llm.agents.turn import Turn
from flowcraft.llm.agents.usage import metered_credits, trailer_credits, usage_of
from flowcraft.llm.base import ROLES, LLMMessage, Usage

LINES = st.sampled_from(
    ["<user>", "</user>", "\\<user>", "\\\\</system>", "", "text", PREFACE, " <user>", "\r", "\u2028"]
)
CONTENTS = st.one_of(st.text(), st.lists(LINES).map("\n".join))
MESSAGES = st.lists(st.builds(LLMMessage, st.sampled_from(ROLES), CONTENTS), min_size=1)


@given(MESSAGES)
def test_a_conversation_survives_being_one_text(messages: list[LLMMessage]) -> None:
    assert list(read_back(prompt_text(messages))) == messages


def test_a_single_question_is_its_own_text() -> None:
    assert prompt_text([LLMMessage("user", "why?")]) == "why?"


def test_a_text_that_was_not_made_here_is_told_apart() -> None:
    with pytest.raises(ValueError, match="no message starts"):
        read_back(f"{PREFACE}\n\nnonsense")


@given(st.binary())
def test_any_line_is_a_message_or_none_or_broken(line: bytes) -> None:
    try:
        message = parse(line)
    except BrokenMessage:
        return
    assert message is None or isinstance(message, (Request, Notification, Response))


JSON = st.sampled_from([None, True, 0, 1.5, "", "text", [], [1], {}, {"code": "x"}, {"code": 1, "message": None}])


@given(st.dictionaries(st.sampled_from(["id", "method", "params", "result", "error", "jsonrpc"]), JSON))
def test_any_object_is_read_without_an_error(value: object) -> None:
    parse(json.dumps(value).encode())


def test_the_method_is_looked_at_before_the_id() -> None:
    assert parse(b'{"id":1,"method":"m","params":{"a":1},"result":{}}') == Request(1, "m", {"a": 1})


def test_a_cut_message_is_broken_and_a_log_line_is_not() -> None:
    with pytest.raises(BrokenMessage):
        parse(b'{"jsonrpc":"2.0","id":1,"resu')
    assert parse(b"[INFO] {} started") is None
    assert parse(b"{not json}") is None


@given(st.text(alphabet="a\x1b[0;1m>] \n\r\\\x07é"), st.lists(st.integers(0, 60)))
def test_text_is_the_same_however_it_is_cut(text: str, cuts: list[int]) -> None:
    data = text.encode()
    whole = PlainText().add(data, last=True)
    reader, parts, at = PlainText(), [], 0
    for cut in sorted(cuts):
        parts.append(reader.add(data[at:cut] if cut > at else b""))
        at = max(at, cut)
    parts.append(reader.add(data[at:], last=True))
    assert "".join(parts) == whole


KIRO = b"\x1b[?25l\x1b[38;5;141m> \x1b[0mOne\n\x1b[38;5;141m> \x1b[0mTwo\n> quote \x1b[1mb\xc3\xa9\x1b[0m \n\n"


@given(st.lists(st.integers(0, len(KIRO))))
def test_signs_and_colours_go_and_quotes_stay_however_it_is_cut(cuts: list[int]) -> None:
    reader, parts, at = PlainText(marked=True), [], 0
    for cut in sorted(cuts):
        parts.append(reader.add(KIRO[at:cut]))
        at = max(at, cut)
    parts.append(reader.add(KIRO[at:], last=True))
    assert "".join(parts) == "One\nTwo\n> quote bé"


@pytest.mark.parametrize("sign", ["> ", "\x1b[m> \x1b[0m", "\n\x1b[38;5;141m> \x1b[m"])
def test_every_form_of_the_sign_is_dropped_at_the_start(sign: str) -> None:
    reader = PlainText(marked=True)
    pieces = [reader.add(byte.to_bytes(1, "big")) for byte in f"{sign}ok".encode()]
    assert "".join(pieces) + reader.add(b"", last=True) == "ok"


def test_titles_and_colours_are_no_text() -> None:
    assert plain("\x1b]0;title\x07a\x1b[1;31mb\x1b[0m\x1b]8;;http://x\x1b\\c\r\n") == "abc\n"


def test_a_login_is_an_address_with_a_code() -> None:
    assert asks_for_login("open https://x.example and enter\n\x1b[1mABCD-1234\x1b[0m")
    assert not asks_for_login("see https://x.example/ABCD")
    assert not asks_for_login("part ABCD-1234")


@pytest.mark.parametrize(
    ("usage", "known"),
    [
        ({"inputTokens": 5, "outputTokens": 2}, Usage(prompt_tokens=5, completion_tokens=2)),
        (
            {"inputTokens": 5, "outputTokens": 2, "totalTokens": 107, "cachedReadTokens": 80, "cachedWriteTokens": 20},
            Usage(prompt_tokens=105, completion_tokens=2, total_tokens=107, cached_tokens=80, cache_creation_tokens=20),
        ),
        (
            {"inputTokens": 105, "outputTokens": 2, "totalTokens": 107, "cachedReadTokens": 80},
            Usage(prompt_tokens=105, completion_tokens=2, total_tokens=107, cached_tokens=80),
        ),
        (
            {"inputTokens": 5, "outputTokens": 2, "totalTokens": 10, "thoughtTokens": 3},
            Usage(prompt_tokens=5, completion_tokens=5, total_tokens=10, reasoning_tokens=3),
        ),
        ({"inputTokens": "5"}, None),
        ({"inputTokens": -1, "outputTokens": True}, None),
        (None, None),
    ],
)
def test_tokens_are_counted_as_the_agent_means_them(usage: object, known: Usage | None) -> None:
    assert usage_of({"usage": usage}) == known


def test_usage_that_comes_with_each_call_of_the_model_is_added_up() -> None:
    turn = Turn("x")
    for tokens in (3, 4):
        usage = {"inputTokens": tokens, "outputTokens": 1, "totalTokens": tokens + 1, "cachedReadTokens": 0}
        content = {"type": "text", "text": "ok"}
        turn.update({"sessionUpdate": "agent_message_chunk", "content": content, "_meta": {"usage": usage}})
    last = turn.finished({"stopReason": "end_turn"})
    assert last.usage == Usage(prompt_tokens=7, completion_tokens=2, total_tokens=9, cached_tokens=0)


@pytest.mark.parametrize(
    ("costs", "cost"),
    [
        ([{"amount": 0.01, "currency": "USD"}, {"amount": 0.25, "currency": "usd"}], Decimal("0.25")),
        ([{"amount": 0.25, "currency": "USD"}, None], Decimal("0.25")),
        ([{"amount": 1, "currency": "EUR"}], None),
        ([{"amount": -1, "currency": "USD"}], None),
        ([{"amount": "NaN", "currency": "USD"}, "x", {"currency": "USD"}], None),
    ],
)
def test_dollars_are_kept_where_the_agent_says_them(costs: list[object], cost: Decimal | None) -> None:
    turn = Turn("x")
    for said in costs:
        turn.update({"sessionUpdate": "usage_update", "used": 5, "size": 100, "cost": said})
    turn.update({"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "ok"}})

    assert turn.finished({"stopReason": "end_turn"}).cost == cost


def test_a_model_may_be_named_as_the_agent_shows_it() -> None:
    opened = {
        "models": {"currentModelId": "$1", "availableModels": [{"modelId": "$1"}, {"modelId": "$2", "name": "b"}]}
    }
    assert choose_model("x", opened, "b", required=True) == ("session/set_model", {"modelId": "$2"})
    assert choose_model("x", opened, "$1", required=True) == (None, {})


def test_a_mode_is_chosen_where_it_is_offered() -> None:
    opened = {"modes": {"currentModeId": "auto", "availableModes": [{"id": "auto"}, {"id": "ask"}]}}
    assert choose_mode(opened, "ask") == ("session/set_mode", {"modeId": "ask"})
    assert [choose_mode(opened, mode) for mode in ("auto", "other", None)] == [(None, {})] * 3
    assert choose_mode({}, "ask") == (None, {})


def test_credits_are_read_from_metering_and_from_the_trailer() -> None:
    metering = [{"value": 0.1, "unit": "credit"}, {"value": 7, "unit": "minute"}, {"value": "x", "unit": "credit"}]
    assert metered_credits({"meteringUsage": metering}) == Decimal("0.1")
    assert metered_credits({"meteringUsage": None}) is None
    assert trailer_credits(" ▸ Credits: 0.24 • Time: 3s") == (True, Decimal("0.24"))
    assert trailer_credits(" ▸ Credits: - • Time: 3s") == (True, None)
    assert trailer_credits("Credits: 1") == (False, None)


@pytest.mark.parametrize(
    ("text", "kind", "retryable"),
    [
        ("[API Error: 429 slow down]", RateLimitError, True),
        ("API Error: 503 upstream", TransportError, True),
        ("[API Error: 403 no]", AuthError, False),
        ("API Error: 400 too many words", ProviderError, False),
        ("there are 429 files", ProviderError, False),
    ],
)
def test_a_status_in_the_words_of_an_agent_is_one(text: str, kind: type[ProviderError], retryable: bool) -> None:
    error = failure("x", text)
    assert (type(error), error.retryable) == (kind, retryable)


def test_a_turn_that_the_agent_cancels_is_an_error_with_a_hint() -> None:
    with pytest.raises(TransportError, match="cancelled its turn") as cancelled:
        Turn("x").finished({"stopReason": "cancelled"})
    assert cancelled.value.hint


def test_a_secret_is_not_repeated_and_a_long_text_is_cut() -> None:
    error = failure("x", "key ksk_0123456789abcdef and sk-proj-0123456789 refused " + "y" * 1000)
    assert "0123456789" not in str(error)
    assert len(error.message) < 320


@pytest.mark.parametrize(
    "text", ["Use a rate limit of 5.", "Error handling is about rate limits. " * 30, "Error: none"]
)
def test_an_answer_about_errors_is_an_answer(text: str) -> None:
    assert disguised("x", text) is None


def test_paths_lead_through_maps_and_lists() -> None:
    value = {"a": [{"b": 1}, {"b": 2}]}
    assert [found_at(value, path) for path in ("a.1.b", "a.-1.b", "a.2.b", "a.b", "x")] == [2, 2, None, None, None]


def test_the_secrets_of_an_agent_are_in_no_part_of_its_error() -> None:
    env = {"MY_TOKEN": "t0ken-of-mine", "HTTP_PROXY": "http://me:passw0rd@proxy.test", "MODE": "ordinary word"}
    said = "t0ken-of-mine and passw0rd in an ordinary word"

    with pytest.raises(TransportError) as caught, without_secrets(env):
        raise TransportError(said, partial_text=said, hint=said) from ProcessError(
            said, argv=(), returncode=1, output=said
        )

    cause = caught.value.__cause__
    assert isinstance(cause, ProcessError)
    for text in (str(caught.value), repr(caught.value), caught.value.partial_text, caught.value.hint, cause.output):
        assert "*** and *** in an ordinary word" in str(text)
    assert "t0ken" not in repr(cause)
