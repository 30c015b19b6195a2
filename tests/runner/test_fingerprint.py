"""Hashes of what a result depends on stay what they are: results of earlier versions are found by them."""

import hashlib
import json
from typing import Any

import pytest

from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage
from flowcraft.runner.store.fingerprint import VERSION, Fingerprint, call_key, digest, identity


@pytest.mark.parametrize(
    "value", [None, True, False, 0, 1, 2.5, "", "x" * 600, {}, [], (), {"b": 1, "a": [None]}, (1,)]
)
def test_a_hash_is_that_of_the_value_as_json(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))

    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_values_that_equal_each_other_but_are_not_the_same_have_hashes_of_their_own() -> None:
    assert len({digest(value) for value in (1, True, "1", [1])}) == 4
    assert len({digest(value) for value in (0, False, None, "", {}, [])}) == 6


def test_a_question_to_a_model_has_the_hash_of_all_that_reaches_it_as_json() -> None:
    for temperature in (0, 1):  # each is a model of its own, whatever was remembered of the other
        model = ModelSettings(name="m", provider="openai", model="m", params={"temperature": temperature})
        asked = [VERSION, identity(model), [["user", '\u00e9 "x"']], {"n": 1}]

        assert call_key(model, [LLMMessage("user", '\u00e9 "x"')], {"n": 1}) == digest(asked)


def test_the_parts_of_a_fingerprint_are_written_as_json_whoever_made_it() -> None:
    assert json.loads(Fingerprint("0", {"b": "1", "a": "2"}).text) == {"a": "2", "b": "1"}
