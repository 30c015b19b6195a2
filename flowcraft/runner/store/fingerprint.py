"""What a stage's result depends on, as hashes: one per part, so that a difference can be named.

A prompt stage: the texts, the model with its address and parameters, the shape of the answer. A run stage:
script or program, variables (secrets by name only), folder. Fields that tasks get later take part by themselves.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any

from flowcraft.core.masking import Mask
from flowcraft.core.values import ModelSettings
from flowcraft.llm.base import LLMMessage
from flowcraft.llm.parts import ImagePart, TextPart
from flowcraft.llm.routing import Choice
from flowcraft.runner.work import Execution, Question, Shape, Task

VERSION = 1  # changes when FlowCraft itself asks in another way

# Where a result goes, how long it may take and who is watching change nothing about it.
_NO_PART = {"path", "stage", "work", "timeout_s", "save", "streamed", "messages", "model", "cwd", "env", "secrets"}
_NO_PART |= {"contract", "undo", "cache", "retries", "turns"}
_SHORT = 500  # characters; longer texts are prompts, and not worth the memory
_KEPT = 16  # digits of the hash of a part
_MOST = 256  # values that are remembered at once
_PLACES = {"oauth_path", "path"}  # of credentials and files on this machine


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The hash of all parts, and each of them; `text` is what is kept of those, as JSON: enough to tell them apart.

    `bare` is the hash without round and item, which was that of the whole in databases of early versions.
    """

    whole: str
    parts: Mapping[str, str]
    text: str = field(default="", compare=False)
    bare: str = ""

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", _object(self.parts, _KEPT))


def differing(parts: Mapping[str, str], older: Mapping[str, str]) -> list[str]:
    """The names of the parts that `older` lacks, has besides, or has otherwise; of each as much as is kept counts."""
    names = dict.fromkeys((*parts, *older))
    return [name for name in names if parts.get(name, "")[:_KEPT] != older.get(name, "")[:_KEPT]]


def fingerprint(task: Task, choice: Choice | None, root: Path) -> Fingerprint:
    """The fingerprint of a rendered task; `choice` is the model of a prompt stage, `root` the workspace."""
    parts = {name: digest(value) for name, value in _parts(task, root).items()}
    if isinstance(task.work, Question):
        parts["model"] = _known_hash(_identity_text(choice.model)) if choice else digest(None)
    bare = _hash_of_parts(task.kind, parts)
    if not task.turns:
        return Fingerprint(bare, parts)
    for kind in {kind for kind, _ in task.turns}:
        parts[kind] = digest([mark for name, mark in task.turns if name == kind])
    return Fingerprint(_hash_of_parts(task.kind, parts), parts, bare=bare)


def _hash_of_parts(kind: str, parts: Mapping[str, str]) -> str:
    return _hash(f'[{VERSION},"{kind}",{_object(parts)}]')


def call_key(model: ModelSettings, messages: Sequence[LLMMessage], params: Mapping[str, Any]) -> str:
    """The hash of all that reaches `model` in one request."""
    asked = _array([f"[{_encode(one.role)},{_encode(one.content)}]" for one in messages])
    return _hash(f"[{VERSION},{_identity_text(model)},{asked},{_encode(params) if params else '{}'}]")


def identity(model: ModelSettings) -> dict[str, Any]:
    """What makes a model the same model: who serves it, where, and what it is sent besides the request."""
    options = {name: value for name, value in model.options.items() if name not in _PLACES}
    return {
        "provider": model.provider,
        "model": model.model,
        "base_url": model.base_url,
        "max_tokens": model.max_tokens,
        "params": model.params,
        "options": options,
    }


def digest(value: Any) -> str:
    """A hash of plain data that does not depend on the order of keys."""
    kind = value.__class__
    if kind in _ATOMS or (kind is str and len(value) <= _SHORT):
        return _hash_of_atom(value)
    if kind is Shape:
        return _hash_of_shape(value)
    if not value and kind in _EMPTY:
        return _EMPTY[kind]
    if kind is list:  # texts of prompts: mostly long, and no two are the same
        return _hash(_array([_encode(one) for one in value]))
    text = _encode(value)
    return _hash(text) if len(text) > _SHORT else _known_hash(text)


def _array(texts: Sequence[str]) -> str:
    # A text alone is written many times faster than in a list.
    return f"[{','.join(texts)}]"


def _object(hashes: Mapping[str, str], digits: int | None = None) -> str:
    """Names of parts with their hashes as JSON, which needs no escapes here."""
    return "{" + ",".join([f'"{name}":"{hashes[name][:digits]}"' for name in sorted(hashes)]) + "}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# Most parts of most stages are the same, and many are nothing at all: to write those as JSON takes longest.
_known_hash = lru_cache(maxsize=_MOST)(_hash)
_ATOMS = frozenset((type(None), bool, int))
_EMPTY = {dict: _hash("{}"), list: _hash("[]"), tuple: _hash("[]")}


@lru_cache(maxsize=_MOST, typed=True)
def _hash_of_atom(value: Any) -> str:
    return _hash(_encode(value))


def _parts(task: Task, root: Path) -> dict[str, Any]:
    parts: dict[str, Any] = {**_fields(task), **_fields(task.work), "check": task.contract.key}
    if isinstance(task.work, Question):
        for one in task.work.messages:
            parts.setdefault("prompt" if one.role == "user" else one.role, []).append(one.content)
    if isinstance(task.work, Execution):
        parts["cwd"] = _relative(task.work.cwd, root)
        parts["env"] = _environment(task.work)
    return parts


def _fields(value: Any) -> dict[str, Any]:
    names, values = _reader(value.__class__)
    return dict(zip(names, values(value), strict=True))


@lru_cache(maxsize=32)
def _reader(kind: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    names = tuple([name for name in _names(kind) if name not in _NO_PART])
    return names, attrgetter(*names)


@lru_cache(maxsize=32)
def _names(kind: Any) -> tuple[str, ...]:
    return kind._fields if issubclass(kind, tuple) else tuple(one.name for one in fields(kind))


def _environment(work: Execution) -> dict[str, Any]:
    mask = Mask(work.secrets)
    return {name: mask.text(value) for name, value in work.env.items()}


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _plain(value: Any) -> Any:
    if isinstance(value, (TextPart, ImagePart)):
        return value.record
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(value.__class__)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(map(str, value))
    if isinstance(value, (Decimal, Path)):
        return str(value)
    if isinstance(value, Iterable):
        return list(value)
    return repr(value)


# Made once: json.dumps makes a new encoder for every call with options.
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain).encode


def _once(make: Callable[[Any], str]) -> Callable[[Any], str]:
    """`make` for values that never change and cannot be hashed: they are known by which they are, not by content."""
    made: dict[int, tuple[Any, str]] = {}

    def remembered(value: Any) -> str:
        known = made.get(id(value))
        if known is None or known[0] is not value:  # it is kept, so that nothing else can have its id
            known = (value, make(value))
            if len(made) >= _MOST:
                made.clear()
            made[id(value)] = known
        return known[1]

    return remembered


_identity_text = _once(lambda model: _encode(identity(model)))
_hash_of_shape = _once(lambda shape: _known_hash(_encode(shape)))
