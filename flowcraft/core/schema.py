"""Data held against JSON Schema (draft 2020-12), and what is wrong in words for people and models.

The only user of jsonschema. Never fetches anything.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from flowcraft.core.document import Document
from flowcraft.core.judging.dialect import is_sound
from flowcraft.core.judging.growth import MAX_WORK, excess
from flowcraft.core.judging.keywords import misused, target
from flowcraft.core.judging.pattern import TooHard, compiled
from flowcraft.core.judging.wording import Words
from flowcraft.core.mistakes import Mistakes
from flowcraft.core.problems import Problem
from flowcraft.core.reading.scalars import TOO_LARGE
from flowcraft.core.reading.syntax import cited, clean

MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 50
MAX_ANSWERS = 20
_MAX_PARTS = 1_000_000

_ENDLESS = "the value is nested too deeply, or the schema refers to itself without end"
_TOO_HARD = "the value is too large to be checked against this schema"

_work = threading.local()


def check(
    document: Document,
    path: Sequence[str | int],
    schema: Mapping[str, Any],
    *,
    root_schema: Mapping[str, Any] | None = None,
    where: str = "",
) -> list[Problem]:
    """All problems of the value at `path`; `$ref`s are looked up in `root_schema` (default: `schema`).

    `where` names the value in messages: "unknown key 'promt' in stage 'plan'".
    """
    value: Any = document.data
    for part in path:
        value = value[part]
    found = Mistakes(document, path, where)
    try:
        for error in _validator(_Trusted, schema, root_schema or schema).iter_errors(value):
            # Of alternatives, which our own schemas do not use, the nearest miss is told.
            found.add(best_match([error]) or error)
    except RecursionError:
        found.problems.append(document.problem(path, "this is nested too deeply", code="FC002"))
    return found.problems


def check_value(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with an answer or an input, in sentences with the path of the part; [] if nothing is.

    Does not raise and does not hang, whatever the value and the (checked) schema are.
    """
    _work.left = MAX_WORK
    words = Words(json=True)
    try:
        strange = _not_json(value)
        if strange:
            return [strange]
        found = islice(_validator(_Untrusted, schema, schema).iter_errors(value), MAX_ANSWERS)
        errors = [best_match([error]) or error for error in found]
        sentences = [sentence for error in errors for sentence in words.sentences(error, _json_path(error))]
    except RecursionError:
        return [_ENDLESS]
    except TooHard:
        return [_TOO_HARD]
    except LookupError as error:
        return [f"the schema refers to {cited(str(error.args[0]))}, which is not in it"]
    return [sentence if len(sentence) <= 500 else f"{sentence[:497]}..." for sentence in sentences[:MAX_ANSWERS]]


def check_schema(schema: Any) -> list[str]:
    """What is wrong with a schema that a user wrote, in sentences; [] if it can be used with `check_value`."""
    try:
        if _depth(schema) > MAX_SCHEMA_DEPTH:
            return [f"the schema is nested deeper than {MAX_SCHEMA_DEPTH} levels"]
        text = json.dumps(schema, allow_nan=False)
        if len(text) > MAX_SCHEMA_BYTES:
            return [f"the schema is larger than {MAX_SCHEMA_BYTES // 1024} KiB"]
    except (TypeError, ValueError) as error:
        return [f"the schema is not JSON: {error}"]
    if not isinstance(schema, dict):
        return ["a schema is a map"]
    found = [] if is_sound(schema, text) else _mistakes(schema)
    # Without references a schema is no more work than it is long.
    return found or (excess(schema) if '"$ref"' in text else [])


def _mistakes(schema: dict[str, Any]) -> list[str]:
    return list(islice(misused(schema, _meta_errors), MAX_ANSWERS))


def _meta_errors(schema: dict[str, Any]) -> Iterator[Any]:
    for error in islice(_META.iter_errors(schema), MAX_ANSWERS):
        yield best_match([error]) or error


def _json_path(error: ValidationError) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{clean(part)}" for part in error.absolute_path)
    return path.removeprefix(".") or "the answer"


def _not_json(value: Any) -> str | None:
    """Why the value is none of JSON: its odd numbers pass every `minimum`, others cannot be printed."""
    waiting, parts = [value], 0
    while waiting:
        item, parts = waiting.pop(), parts + 1
        if isinstance(item, dict) and all(isinstance(key, str) for key in item):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{item} is not a number of JSON"
        elif isinstance(item, int) and abs(item) >= TOO_LARGE:
            return "a number has too many digits"
        elif not isinstance(item, (str, int, float, type(None))):
            return f"a value of type '{type(item).__name__}' is not JSON"
        if parts > _MAX_PARTS:  # or it contains itself
            return _TOO_HARD
    return None


def _depth(value: Any) -> int:
    """How deep the value is nested; gives up at one more than is allowed."""
    level = [value]
    for depth in range(MAX_SCHEMA_DEPTH + 2):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return depth
        if len(level) > MAX_SCHEMA_BYTES:  # aliases in YAML can stand for more than memory holds
            break
    return MAX_SCHEMA_DEPTH + 1


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compiled(pattern).search(instance):
        yield ValidationError(f"does not match {pattern}")


def _unique_items(_validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    # jsonschema compares each with each, half a minute for 3,000 objects.
    if wanted and isinstance(instance, list):
        texts = {json.dumps(_comparable(item), sort_keys=True) for item in instance}
        if len(texts) < len(instance):
            yield ValidationError("has the same item twice")


def _comparable(item: Any) -> Any:
    if isinstance(item, dict):
        return {key: _comparable(value) for key, value in item.items()}
    if isinstance(item, list):
        return [_comparable(value) for value in item]
    # To JSON Schema 1 and 1.0 are the same number.
    return int(item) if isinstance(item, float) and item.is_integer() else item


def _following(root: Any) -> Callable[..., Iterator[ValidationError]]:
    """The keyword `$ref` for references inside `root`; jsonschema's own looks each up anew."""
    targets: dict[str, Any] = {}

    def follow(validator: Any, reference: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
        if reference not in targets:
            targets[reference] = target(root, reference)
        yield from validator.descend(instance, targets[reference])

    return follow


def _metered(keyword: Callable[..., Any]) -> Callable[..., Iterator[ValidationError]]:
    def metered(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(1 + (len(wanted) if isinstance(wanted, (list, dict)) else 0))
        for error in keyword(validator, wanted, instance, schema) or ():
            _spend(len(error.message) // 100)  # jsonschema writes the whole instance into each
            yield error

    return metered


def _spend(work: int) -> None:
    _work.left -= work
    if _work.left < 0:
        raise TooHard


_Trusted: Any = extend(Draft202012Validator, {"pattern": _pattern, "uniqueItems": _unique_items})  # type: ignore[no-untyped-call]
_Untrusted: Any = extend(_Trusted, {name: _metered(keyword) for name, keyword in _Trusted.VALIDATORS.items()})  # type: ignore[no-untyped-call]
_META = Draft202012Validator(Draft202012Validator.META_SCHEMA)

# The schemas are kept beside their validators, so that no other object can come to have their ids.
_validators: dict[tuple[int, int, int], tuple[Any, Any, Any]] = {}


def _validator(kind: Any, schema: Any, root: Any) -> Any:
    key = (id(kind), id(schema), id(root))
    found = _validators.get(key)
    if found is None:
        if len(_validators) >= 256:
            _validators.clear()
        # With an empty registry jsonschema has nothing to fetch from, whatever a schema says.
        follow = _following(root)
        keywords = {"$ref": _metered(follow) if kind is _Untrusted else follow}
        own: Any = extend(kind, keywords)  # type: ignore[no-untyped-call]
        # Not read back: another thread may have cleared all.
        found = _validators[key] = (schema, root, own(schema, registry=Registry()))
    return found[2]
