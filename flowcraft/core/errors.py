"""Every error FlowCraft raises, on one page.

FlowcraftError
├── UsageError                the caller's request makes no sense (exit 2)
│   ├── DocumentError         problems of a file, all of them, each with file:line:column
│   │   ├── SettingsError
│   │   └── PipelineError
│   └── ExpressionError       a template or condition cannot be evaluated
├── ProviderError             a model could not give an answer
│   ├── AuthError             credentials missing or refused; never retried
│   ├── RateLimitError        asked too often
│   │   └── QuotaError        a quota is spent, or a bill unpaid: asking again does not help
│   ├── TransportError        connection, broken stream, dead child
│   │   └── IncompleteStream  the answer stopped before its finish_reason
│   ├── DeadlineError         one of the time limits was reached
│   ├── ReplyError            the model answered, but not what was agreed
│   └── ReplayMiss            the recording holds no answer to this request
├── ProcessError              a command failed, was killed or could not be started
├── StageError                a stage of a pipeline failed for a reason of its own
├── BudgetError               the next call does not fit the budget
├── LedgerError               the record of runs cannot be read or written; nothing is paid without it
└── Cancelled                 stopped by the user (exit 130)

Classes differ only where a caller would do something different; all else is a field.
"""

from collections.abc import Sequence

from flowcraft.core.problems import Problem


class FlowcraftError(Exception):
    """Base of all errors; `hint` says what to do next and `exit_code` what the CLI exits with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(FlowcraftError):
    """The request makes no sense as it was made."""

    exit_code = 2


class DocumentError(UsageError):
    """A file has problems; `problems` holds all of them, sorted by place."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = tuple(problems)


class SettingsError(DocumentError):
    """The settings cannot be used."""


class PipelineError(DocumentError):
    """The pipeline cannot be run."""


class ExpressionError(UsageError):
    """A template or condition failed; `expression` is its text, `offset` where in it (characters)."""

    def __init__(
        self, message: str, *, expression: str, offset: int = 0, code: str = "FC202", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.expression = expression
        self.offset = offset
        self.code = code


class ProviderError(FlowcraftError):
    """A model could not give an answer.

    `retryable` is decided by the provider, where the protocol is known. `sent` says whether the
    request may have reached the service and been paid for. `retry_after_s` is the service's own wish.
    `partial_text` holds what had arrived of the answer.
    """

    def __init__(  # noqa: PLR0913 - every field is one the caller may act on
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retryable: bool = False,
        sent: bool = True,
        retry_after_s: float | None = None,
        partial_text: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.provider = provider
        self.model = model
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.sent = sent
        self.retry_after_s = retry_after_s
        self.partial_text = partial_text

    def __str__(self) -> str:
        facts = (
            ("provider", self.provider),
            ("model", self.model),
            ("status", self.status),
            ("request id", self.request_id),
        )
        known = ", ".join(f"{name} {value}" for name, value in facts if value not in (None, ""))
        return f"{self.message} ({known})" if known else self.message


class AuthError(ProviderError):
    """Credentials are missing or were refused."""


class RateLimitError(ProviderError):
    """The service was asked too often."""


class QuotaError(RateLimitError):
    """A quota is spent, or the account has no credit: asking again does not help, another model does."""


class TransportError(ProviderError):
    """The connection, the stream or the child process broke.

    `stale`: it was a kept connection, and broke at once, before a byte of the answer had come: the service had closed
    it before the request. A new connection may well do, and nothing was paid for.
    """

    stale = False


class IncompleteStream(TransportError):
    """The answer ended before its finish_reason; `partial_text` is not an answer."""


class DeadlineError(ProviderError):
    """A time limit was reached: connect, first event, idle or total."""


class ReplyError(ProviderError):
    """The model answered, but not what was agreed on (bad JSON, cut off, refused)."""


class ReplayMiss(ProviderError):
    """The recording holds no answer to this request."""


class ProcessError(FlowcraftError):
    """A command failed; `returncode` is negative for a signal and None if it never started."""

    def __init__(
        self, message: str, *, argv: Sequence[str], returncode: int | None, output: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class StageError(FlowcraftError):
    """A stage failed for a reason of its own."""


class BudgetError(FlowcraftError):
    """The next call does not fit what is left of a budget; `unit` says which (usd, tokens, ...)."""

    def __init__(self, message: str, *, unit: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.unit = unit


class LedgerError(FlowcraftError):
    """The record of runs cannot be read or written; without it nothing is called any more."""


class Cancelled(FlowcraftError):
    """The call or run was stopped by the user; never recorded as an outcome."""

    exit_code = 130

    def __init__(self, message: str = "cancelled", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
