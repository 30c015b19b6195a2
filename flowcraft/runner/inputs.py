"""The inputs of a run as others may see them, and the texts that must not come out of it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flowcraft.core.masking import SHOWN
from flowcraft.pipeline.model import Pipeline


def shown(pipeline: Pipeline, values: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs for a record: secrets are named, their values are not."""
    secret = {one.name for one in pipeline.inputs if one.secret}
    return {name: SHOWN if name in secret and value is not None else value for name, value in values.items()}


def secret_texts(pipeline: Pipeline, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The values of secret inputs, as a program would print them; of maps and lists also the texts in them."""
    return tuple(text for one in pipeline.inputs if one.secret for text in _texts(values[one.name]))


def _texts(value: Any) -> Iterator[str]:
    if value is not None:
        yield value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, (dict, list)):
        yield json.dumps(value, separators=(",", ":"))
        for part in value.values() if isinstance(value, dict) else value:
            if isinstance(part, (str, dict, list)):
                yield from _texts(part)
