"""The tests in `*.test.yaml` files: what stands in them, and what cannot be meant."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from flowcraft.core import document
from flowcraft.core.errors import DocumentError, UsageError
from flowcraft.core.globs import escapes
from flowcraft.core.problems import Problem, did_you_mean
from flowcraft.runner.outcome import RunStatus, Status

_KEYS = ("name", "pipeline", "inputs", "answers", "verdicts", "approve", "files", "expect", "settings")
_EXPECTED = ("status", "stages", "outputs")
_OF_STAGE = ("status", "output", "attempts", "model", "rungs", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test; `answers` are by path or id of a stage, a list for successive attempts.

    `verdicts` are what models say to its checks (`ask`); where there are none, they are taken from its answers.
    `files` are by path: text, or the place of a file to copy (an image, say).
    """

    file: Path
    name: str
    pipeline: Path
    inputs: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    approve: Mapping[str, bool] = field(default_factory=dict)
    files: Mapping[str, str | Path] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    settings: Path | None = None


def load_cases(file: Path) -> list[Case]:
    """The tests of a file: one map, or a list of maps. Raises UsageError or DocumentError."""
    read = document.load(file)
    cases = read.data if isinstance(read.data, list) else [read.data]
    found = [_case(file, one, number) for number, one in enumerate(cases, start=1)]
    if problems := [problem for number, case in enumerate(found) for problem in _misplaced(read, number, case)]:
        raise DocumentError(problems)
    return found


def _case(file: Path, data: Any, number: int) -> Case:
    if not isinstance(data, dict) or not isinstance(data.get("pipeline"), str):
        raise UsageError(f"{file}: test {number} names no pipeline", hint="pipeline: change.yaml")
    for key in data:
        if key not in _KEYS:
            raise UsageError(f"{file}: test {number}: unknown key '{key}'", hint=did_you_mean(str(key), _KEYS))
    expect = _expected(file, number, data)
    approve = _map(file, number, data, "approve")
    for name, said in approve.items():
        if not isinstance(said, bool):
            wrong = f"{file}: test {number}: approve.{name} is neither true nor false"
            raise UsageError(wrong, hint="approve: {gate: true}")
    settings = data.get("settings")
    return Case(
        file=file,
        name=str(data.get("name", f"test {number}")),
        pipeline=file.parent / data["pipeline"],
        inputs=_map(file, number, data, "inputs"),
        answers=_map(file, number, data, "answers"),
        verdicts=_map(file, number, data, "verdicts"),
        approve=approve,
        files={name: _content(file, number, name, given) for name, given in _map(file, number, data, "files").items()},
        expect=expect,
        settings=file.parent / settings if isinstance(settings, str) else None,
    )


def _expected(file: Path, number: int, data: Mapping[str, Any]) -> dict[str, Any]:
    expect = _map(file, number, data, "expect")
    for key in expect:
        if key not in _EXPECTED:
            hint = did_you_mean(str(key), _EXPECTED)
            raise UsageError(f"{file}: test {number}: nothing is known of '{key}'", hint=hint)
    if "status" in expect:
        _check_status(f"{file}: test {number}: no run", expect["status"], get_args(RunStatus))
    for name, wanted in _map(file, number, expect, "stages").items():
        facts = wanted if isinstance(wanted, dict) else {"status": wanted}
        for key in facts:
            if key not in _OF_STAGE:
                hint = did_you_mean(str(key), _OF_STAGE)
                raise UsageError(f"{file}: test {number}: a stage has no '{key}'", hint=hint)
        if "status" in facts:
            _check_status(f"{file}: test {number}: expect.stages.{name}: no stage", facts["status"], get_args(Status))
    _map(file, number, expect, "outputs")
    return expect


def _check_status(where: str, status: Any, known: Sequence[str]) -> None:
    if status not in known:
        raise UsageError(f"{where} ends as '{status}'", hint=did_you_mean(str(status), known))


def _map(file: Path, number: int, data: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = data.get(key, {})
    if not isinstance(found, dict):
        raise UsageError(f"{file}: test {number}: '{key}' is a map", hint=f"{key}: {{name: value}}")
    return found


def _content(file: Path, number: int, name: str, given: Any) -> str | Path:
    if isinstance(given, str):
        return given
    if isinstance(given, dict) and set(given) == {"from"} and isinstance(given["from"], str):
        return file.parent / given["from"]
    hint = f"files: {{{name}: some text}}, or files: {{{name}: {{from: path/of/a/file}}}}"
    raise UsageError(f"{file}: test {number}: files.{name} is neither text nor a file to copy", hint=hint)


def _misplaced(read: document.Document, number: int, case: Case) -> Iterator[Problem]:
    """The files that would not lie in the folder of the test, or of which one would be in another."""
    above = [number] if isinstance(read.data, list) else []
    files: dict[PurePosixPath, str] = {}
    folders: dict[PurePosixPath, str] = {}
    for name in case.files:
        pure = PurePosixPath(name)
        other = next((files[part] for part in (pure, *pure.parents) if part in files), folders.get(pure))
        if escapes(name) or not pure.name:
            wrong = f"files.{name} is outside the folder of the test"
        elif other is not None:
            wrong = f"files.{name} and files.{other} cannot both be there"
        else:
            files[pure] = name
            folders.update(dict.fromkeys(pure.parents, name))
            continue
        hint = "a path starts at the folder that the test makes: photos/a.png"
        yield read.problem([*above, "files", name], wrong, code="FC131", hint=hint, at="key")
