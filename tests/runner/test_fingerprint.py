"""Hashes of what a result depends on stay what they are: results of earlier versions are found by them."""

import hashlib
import json
from typing import Any

import pytest

from flowcraft.runner.store.fingerprint import digest


@pytest.mark.parametrize(
    "value", [None, True, False, 0, 1, 2.5, "", "x" * 600, {}, [], (), {"b": 1, "a": [None]}, (1,)]
)
def test_a_hash_is_that_of_the_value_as_json(value: Any) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))

    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()


def test_values_that_equal_each_other_but_are_not_the_same_have_hashes_of_their_own() -> None:
    assert len({digest(value) for value in (1, True, "1", [1])}) == 4
    assert len({digest(value) for value in (0, False, None, "", {}, [])}) == 6
