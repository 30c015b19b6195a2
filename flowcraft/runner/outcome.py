"""How stages and runs end: what comes back from a worker, and what is kept.

All frozen. `to_json` exists on what leaves the process; its shape is promised by schemas/report.schema.json.
Costs are in US dollars; None means unknown and is never counted as 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeVar

from flowcraft.llm.base import Usage

Status = Literal["succeeded", "failed", "skipped", "cancelled", "waiting"]
RunStatus = Literal["succeeded", "failed", "interrupted", "paused", "rejected"]

Number = TypeVar("Number", int, Decimal)

_NOTHING = Decimal(0)

EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {"succeeded": 0, "failed": 1, "paused": 3, "rejected": 4, "interrupted": 130}
)


class Attempt(NamedTuple):
    """One request to a model: who was asked, why this one (`cause`, `source`), and what came of it.

    `event` says why it was made: first, retry, fallback, again (the answer before was rejected), escalation,
    check (a model is asked whether a result is accepted).
    """

    event: str
    name: str
    model: str
    provider: str
    tier: str | None
    cause: str
    source: str
    seconds: float
    usage: Usage | None = None
    cost: Decimal | None = None
    finish_reason: str | None = None
    error: str | None = None
    cached: bool = False

    def to_json(self) -> dict[str, Any]:
        usage = self.usage or Usage()
        return {
            "event": self.event,
            "name": self.name,
            "model": self.model,
            "provider": self.provider,
            "tier": self.tier,
            "cause": self.cause,
            "source": self.source,
            "seconds": round(self.seconds, 3),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "usd": None if self.cost is None else float(self.cost),
            "finish_reason": self.finish_reason,
            "error": self.error,
            "cached": self.cached,
        }


class Totals(NamedTuple):
    """What attempts have used together; a figure is None if it is unknown for any of them."""

    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    cost: Decimal | None = _NOTHING

    @property
    def tokens(self) -> int | None:
        known = self.prompt_tokens is not None and self.completion_tokens is not None
        return (self.prompt_tokens or 0) + (self.completion_tokens or 0) if known else None

    def to_json(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "usd": None if self.cost is None else float(self.cost),
        }


def totals(attempts: Iterable[Attempt]) -> Totals:
    """The sums over `attempts`; those that are cached do not count."""
    return sums([(attempt.cost, attempt.usage) for attempt in attempts if not attempt.cached])


def sums(calls: Iterable[tuple[Decimal | None, Usage | None]]) -> Totals:
    """The sums over the cost and usage of calls; one that cost nothing and reports no usage counts as a call only."""
    made = 0
    prompt: int | None = 0
    completion: int | None = 0
    cost: Decimal | None = _NOTHING
    for price, reported in calls:
        made += 1
        cost = _plus(cost, price)
        if reported:
            prompt = _plus(prompt, reported.prompt_tokens)
            completion = _plus(completion, reported.completion_tokens)
        elif price != 0:
            prompt = completion = None
    return Totals(made, prompt, completion, cost)


def _plus(sum_: Number | None, figure: Number | None) -> Number | None:
    return None if sum_ is None or figure is None else sum_ + figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a stage ended.

    `error` is there exactly when it failed, `reason` when it never ran; a failed run stage keeps its
    `output`. `rejected` is the last answer that was not accepted, or what had arrived of a broken one.
    `warnings` did not stop anything. `resumed` says that an earlier session of the run has done it, `cached_from`
    which other run; `saved_usd` is what that has saved, None if unknown. `written` are the files it has written with
    their hashes (None: deleted), `iterations` the rounds of `repeat` or the items of `foreach`.
    """

    path: str
    kind: str
    status: Status
    output: Any = None
    error: str | None = None
    hint: str | None = None
    reason: str | None = None
    exit_code: int | None = None
    stderr: str | None = None
    rejected: str | None = None
    saved: str | None = None
    written: Mapping[str, str | None] = field(default_factory=dict)
    iterations: int | None = None
    seconds: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    warnings: tuple[str, ...] = ()
    resumed: bool = False
    cached_from: str | None = None
    saved_usd: Decimal | None = None

    def __post_init__(self) -> None:
        if (self.error is not None) != (self.status == "failed"):
            raise ValueError(f"an outcome has an error exactly when it failed: {self.path} {self.status}")

    @property
    def ok(self) -> bool:
        return self.status == "succeeded"

    @property
    def has_output(self) -> bool:
        """Whether `output` means something: a skipped stage has none, a failed run stage its stdout."""
        return self.ok or (self.status == "failed" and self.output is not None)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "kind": self.kind,
            "status": self.status,
            "output": self.output,
            "error": self.error,
            "hint": self.hint,
            "reason": self.reason,
            "exit_code": self.exit_code,
            "stderr": self.stderr,
            "rejected": self.rejected,
            "saved": self.saved,
            "written": dict(self.written),
            "iterations": self.iterations,
            "seconds": round(self.seconds, 3),
            "warnings": list(self.warnings),
            "resumed": self.resumed,
            "cached_from": self.cached_from,
            "saved_usd": None if self.saved_usd is None else float(self.saved_usd),
            "attempts": [attempt.to_json() for attempt in self.attempts],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """One run from start to end; `outcomes` are in the order of the file, `inputs` hold no secret.

    `used` is of all sessions of a resumed run, with results that were replaced since.
    """

    id: str
    pipeline: str
    file: Path
    status: RunStatus
    inputs: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]
    outputs: Mapping[str, Any]
    started: datetime
    ended: datetime
    seconds: float
    error: str | None = None
    hint: str | None = None
    used: Totals | None = None

    @property
    def exit_code(self) -> int:
        """What the CLI exits with."""
        return EXIT_CODES[self.status]

    @property
    def totals(self) -> Totals:
        """What all stages have used together."""
        return self.used or totals(attempt for outcome in self.outcomes for attempt in outcome.attempts)

    def to_json(self) -> dict[str, Any]:
        """The record as schemas/report.schema.json describes it."""
        return {
            "report": 1,
            "id": self.id,
            "pipeline": self.pipeline,
            "file": str(self.file),
            "status": self.status,
            "exit_code": self.exit_code,
            "error": self.error,
            "hint": self.hint,
            "inputs": dict(self.inputs),
            "outputs": dict(self.outputs),
            "started": self.started.isoformat(timespec="seconds"),
            "ended": self.ended.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "totals": self.totals.to_json(),
            "stages": [outcome.to_json() for outcome in self.outcomes],
        }
