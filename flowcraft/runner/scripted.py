"""Tests of pipelines: answers written down per stage, and what is expected of the run.

The models, prices and rungs are those of the settings; only the answers come from the file. Each test runs in a copy
of the files that it names under `files`, in a folder of its own.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowcraft.core.errors import DocumentError, ProviderError, ReplayMiss, TransportError, UsageError
from flowcraft.core.problems import did_you_mean
from flowcraft.core.settings import SettingsManager
from flowcraft.core.values import ModelSettings
from flowcraft.llm.attempts import Call
from flowcraft.llm.base import BaseLLMProvider, ChatRequest, Delta, Usage
from flowcraft.llm.calls import CallObserver
from flowcraft.llm.factory import LLMProviderFactory
from flowcraft.llm.integration import LLMIntegration
from flowcraft.llm.routing import Choice, Named
from flowcraft.pipeline.load import load
from flowcraft.pipeline.plan import bind
from flowcraft.runner.books import Books
from flowcraft.runner.cases import Case
from flowcraft.runner.choices import all_stages
from flowcraft.runner.gates import Decision
from flowcraft.runner.outcome import Outcome, RunRecord
from flowcraft.runner.run import run_pipeline

_UNAVAILABLE = (401, 402, 403, 407, 408, 425, 429)  # of the statuses below 500: another model may do


def check(case: Case) -> list[str]:
    """Run the test; what is not as expected. Raises FlowcraftError if it cannot be run at all."""
    try:
        return _checked(case)
    except DocumentError:
        raise
    except UsageError as error:
        raise UsageError(f"{case.file}: {case.name}: {error.message}", hint=error.hint) from error


def _checked(case: Case) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="flowcraft-test-") as folder:
        root = Path(folder)
        for name, content in case.files.items():
            _lay(case, root / name, _bytes_of(case, content), name)
        script = Script(case.answers, case.verdicts)
        pipeline = load(case.pipeline)
        names = {stage.id for _, stage in all_stages(pipeline)}
        for name in (*case.answers, *case.verdicts):
            if name.split("/")[-1].split("[")[0] not in names:
                raise UsageError(f"no stage '{name}'", hint=did_you_mean(name, names))
        bind(pipeline, case.inputs, os.environ, advice="inputs: {{{}: ...}}")
        manager = SettingsManager(case.settings)
        with ScriptedIntegration(manager, script) as llm:
            record = run_pipeline(
                pipeline, case.inputs, llm=llm, workspace=root, ask=lambda path, *_: _decision(case, path)
            )
    return [*_differences(case, record), *script.unused()]


class Script:
    """The answers, handed out in order; one that is not a list is given every time."""

    def __init__(self, answers: Mapping[str, Any], verdicts: Mapping[str, Any]) -> None:
        self._answers, self._verdicts = _copied(answers), _copied(verdicts)
        self._lock = threading.Lock()

    def answer(self, path: str, stage: str, *, check: bool = False) -> Any:
        """The next answer for this path, else for the stage wherever it is; raises ReplayMiss."""
        with self._lock:
            left = self._verdicts if check and not self._verdicts.keys().isdisjoint((path, stage)) else self._answers
            found = left.get(path, left.get(stage))
            if found is None or found == []:
                what = "no answer" if found is None else "no answer left"
                raise ReplayMiss(f"the test has {what} for '{path or stage}'", hint=f"answers: {{{stage}: [...]}}")
            return found.pop(0) if isinstance(found, list) else found

    def unused(self) -> list[str]:
        """Complaints about answers that nobody asked for."""
        return [
            f"{key}.{name}: {len(left)} not asked for"
            for key, listed in (("answers", self._answers), ("verdicts", self._verdicts))
            for name, left in listed.items()
            if isinstance(left, list) and left
        ]


def _copied(answers: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list) else value for name, value in answers.items()}


class ScriptedIntegration(LLMIntegration):
    """Chooses models as ever, and takes their answers from a script."""

    def __init__(self, settings: SettingsManager, script: Script) -> None:
        self._script = script
        self._asking = threading.local()  # a call is made in the thread that has chosen its model
        super().__init__(settings, jitter=lambda: 0.0)

    def choose(self, stage_name: str | None = None, model: str | Named | None = None) -> Choice:
        self._asking.stage = stage_name or ""
        return super().choose(stage_name, model)

    def _call(
        self,
        choice: Choice,
        request: ChatRequest,
        observer: CallObserver | None,
        retries: int | None,
        *,
        provisional: bool = False,
    ) -> Call:
        books = observer if isinstance(observer, Books) else None
        self._asking.path, self._asking.check = (books.task.path, books.event == "check") if books else ("", False)
        return super()._call(choice, request, observer, retries, provisional=provisional)

    def provider(self, model: ModelSettings) -> BaseLLMProvider:
        """A provider that answers from the script, whatever the model."""
        asking = self._asking
        return _Scripted(model, lambda: self._script.answer(asking.path, asking.stage, check=asking.check))


class _Scripted(BaseLLMProvider):
    provider_name = "scripted"
    takes_images = True

    def __init__(self, config: ModelSettings, answer: Callable[[], Any]) -> None:
        super().__init__(config)
        self._answer = answer
        # A budget in money depends on what the real one is.
        real = LLMProviderFactory.provider_class(config.provider)
        self.acts, self.own_max_tokens = real.acts, real.own_max_tokens  # type: ignore[misc]

    def deltas(self, request: ChatRequest) -> Iterator[Delta]:
        """One answer; `{error: text}` is a service that is down, with a `status` one that refuses for that reason."""
        answer = self._answer()
        if isinstance(answer, Mapping) and "error" in answer and answer.keys() <= {"error", "status"}:
            raise _error(str(answer["error"]), answer.get("status"))
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        size = sum(len(message.text) for message in request.messages) // 4
        usage = Usage(prompt_tokens=size, completion_tokens=len(text) // 4, total_tokens=size + len(text) // 4)
        yield Delta(content=text)
        yield Delta(finish_reason="stop", usage=usage)


def _error(said: str, status: Any) -> ProviderError:
    """One that is not tried again; another model is asked unless the service refuses the question itself."""
    number = status if isinstance(status, int) else 503
    refused = 400 <= number < 500 and number not in _UNAVAILABLE
    return ProviderError(said, status=number) if refused else TransportError(said, status=number)


def _lay(case: Case, place: Path, data: bytes, name: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"files.{name} cannot be written: {reason}", hint="use another name") from error


def _bytes_of(case: Case, content: str | Path) -> bytes:
    if isinstance(content, str):
        return content.encode()
    try:
        if content.exists() and not content.is_file():  # reading a pipe might never end
            raise UsageError(f"{content} is not an ordinary file", hint="check `from` under `files`")
        return content.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"{content} cannot be read: {reason}", hint="check `from` under `files`") from error


def _decision(case: Case, path: str) -> Decision | None:
    found = case.approve.get(path)
    return None if found is None else Decision(approved=found, by="test")


def _differences(case: Case, record: RunRecord) -> Iterator[str]:
    expect = case.expect
    if "status" in expect and expect["status"] != record.status:
        said = next((outcome.error for outcome in record.outcomes if outcome.error), record.error)
        yield f"status is {record.status}, not {expect['status']}" + (f": {said}" if said else "")
    by_path = {outcome.path: outcome for outcome in record.outcomes}
    for path, wanted in expect.get("stages", {}).items():
        outcome = by_path.get(path)
        if outcome is None:
            yield f"{path}: it is not in the run; there are {', '.join(by_path)}"
            continue
        inside = [one for one in record.outcomes if one.path.startswith((f"{path}/", f"{path}["))]
        found = _facts(outcome, inside)
        for key, value in (wanted if isinstance(wanted, dict) else {"status": wanted}).items():
            if found[key] != value:
                yield f"{path}: {key} is {_short(found[key])}, not {_short(value)}"
    for name, value in expect.get("outputs", {}).items():
        if record.outputs.get(name) != value:
            yield f"outputs.{name} is {_short(record.outputs.get(name))}, not {_short(value)}"


def _facts(outcome: Outcome, inside: Sequence[Outcome]) -> dict[str, Any]:
    """What can be expected of a stage; its attempts are those of all that it has run."""
    attempts = [attempt for one in (outcome, *inside) for attempt in one.attempts]
    asked = [attempt.name for attempt in attempts if attempt.event != "check"]
    return {
        "status": outcome.status,
        "output": outcome.output,
        "error": outcome.error,
        "attempts": len(asked),
        "model": asked[-1] if asked else None,
        "rungs": list(dict.fromkeys(asked)),
    }


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else f"{text[:200]}..."
