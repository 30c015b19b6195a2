"""Secrets taken out of text."""

import html
import json
import pickle
import re
import shlex
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcraft.core.masking import SHOWN, Mask
from flowcraft.llm.formats.api_key import ApiKey
from flowcraft.llm.oauth.credentials import Credentials
from flowcraft.llm.oauth.service import DeviceCode, Grant
from flowcraft.llm.providers.openai import OpenAIProvider

ODD = "q\"u\\o'te/+=&%41<b>;$1 \u00e9nd"


def test_every_secret_is_replaced_wherever_it_stands() -> None:
    mask = Mask(["t0ken-1", "pass word"])

    assert mask.text("a t0ken-1, pass word and t0ken-1t0ken-1") == "a ***, *** and ******"


def test_the_longer_of_two_secrets_is_replaced_as_a_whole() -> None:
    assert Mask(["abcd", "abcdef"]).text("abcdef abcd") == "*** ***"


def test_the_lines_of_a_secret_are_secret_too() -> None:
    key = "-----BEGIN KEY-----\nMIIEabc\n-----END KEY-----"

    assert Mask([key]).text("line: MIIEabc") == "line: ***"


def test_what_is_too_short_to_be_secret_is_left_alone() -> None:
    assert Mask(["a", ""]).text("banana") == "banana"


@given(
    text=st.text("abx-", max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
def test_pieces_give_the_same_as_the_whole(text: str, cuts: list[int]) -> None:
    mask = Mask(["abab", "xx-ab"])
    stream = mask.stream()
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]

    shown = [stream.add(text[start:end]) for start, end in pairwise(places)]
    shown.append(stream.end())

    assert "abab" not in "".join(shown)
    assert "xx-ab" not in "".join(shown)
    assert "".join(shown) == mask.text(text)


@pytest.mark.parametrize(
    "write",
    [
        repr,
        json.dumps,
        lambda secret: json.dumps(json.dumps({"a": secret})),
        lambda secret: json.dumps(secret, ensure_ascii=False),
        quote,
        lambda secret: quote(secret, safe=""),
        lambda secret: re.sub("%..", lambda match: match[0].lower(), quote(secret)),
        html.escape,
        lambda secret: json.dumps(html.escape(secret)),
        shlex.quote,
        lambda secret: secret.replace("'", r"'\''"),
        lambda secret: secret.encode().hex(),
    ],
)
def test_a_secret_is_found_however_it_is_written(write: Callable[[str], str]) -> None:
    shown = Mask([ODD]).text(f"before {write(ODD)} after")

    assert shown.replace("'", "").replace('"', "").replace("\\", "") in ("before *** after", "before {a: ***} after")


@given(before=st.binary(max_size=4), after=st.binary(max_size=4), coded=st.sampled_from([b64encode, urlsafe_b64encode]))
def test_a_secret_is_found_within_base64(before: bytes, after: bytes, coded: Callable[[bytes], bytes]) -> None:
    secret = "0123456789>?>?abcdefghij"

    shown = Mask([secret]).text(coded(before + secret.encode() + after).decode())

    left = len(before + after) + 4  # what shares its group of bytes with what is not secret
    assert SHOWN in shown
    assert len(shown) < left * 4 / 3 + 8


def test_encoded_secrets_are_found_in_pieces() -> None:
    text = f"a {json.dumps(ODD)} b {b64encode(ODD.encode()).decode()} c"
    stream = Mask([ODD]).stream()

    assert "".join([*map(stream.add, text), stream.end()]) == Mask([ODD]).text(text)


@given(secret=st.text(min_size=4, max_size=30), before=st.text(max_size=5), after=st.text(max_size=5))
def test_any_text_can_be_a_secret(secret: str, before: str, after: str) -> None:
    if len(secret.strip()) >= 4:
        assert secret not in Mask([secret]).text(f"{before}{secret}{after}").replace(SHOWN, "\0")


@pytest.mark.parametrize(
    "holder",
    [
        ApiKey(None, "http://127.0.0.1", given="the-key-itself"),
        OpenAIProvider(api_key="the-key-itself"),
        Credentials("the-key-itself", "the-key-itself", None, None),
        Grant("the-key-itself", None, "Bearer", 3600, None),
        DeviceCode("", "", 900, 1.0, "the-key-itself", "the-key-itself"),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_secret_does_not_hand_it_out(holder: object) -> None:
    assert "the-key" not in f"{holder!r} {holder}"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(holder, protocol)
