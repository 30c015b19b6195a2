"""What is told of a run while it goes on, to whoever listens; all frozen, in the order it happens."""

from dataclasses import dataclass
from typing import Literal

from flowcraft.runner.outcome import Attempt, Outcome, RunRecord

Channel = Literal["answer", "stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run begins; `stages` are its paths in the order of the file."""

    id: str
    pipeline: str
    stages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage begins; `model` and `because` tell who answers a prompt stage, and why.

    `again` says why it runs again in a run that was resumed.
    """

    path: str
    kind: str
    model: str | None = None
    tier: str | None = None
    because: str | None = None
    again: str | None = None


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Some text of a stage as it arrives; it may yet be rejected. Not made safe for a terminal."""

    path: str
    text: str
    channel: Channel


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """A request to a model has ended, in an answer or an error."""

    path: str
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class AnswerRejected:
    """An answer is not what was agreed on; the model is asked again unless `last`."""

    path: str
    number: int
    reasons: tuple[str, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class StageFinished:
    """A stage has ended, or will never start."""

    outcome: Outcome


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over."""

    record: RunRecord


Event = RunStarted | StageStarted | TextPiece | AttemptEnded | AnswerRejected | StageFinished | RunFinished
