"""The line to one agent process: messages in and out, time limits, and what to make of its end.

Every failure becomes a ProviderError here, and a process that is of no further use is stopped.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flowcraft.core.errors import AuthError, DeadlineError, ProcessError, ProviderError, TransportError
from flowcraft.core.programs.child import Child
from flowcraft.core.scope import Scope
from flowcraft.llm.agents.acp import jsonrpc
from flowcraft.llm.agents.acp.permissions import Policy
from flowcraft.llm.agents.failures import AUTH, failure, kind_of, unproven
from flowcraft.llm.agents.presets import EmptyFolder
from flowcraft.llm.agents.terminal import asks_for_login

Spoken = TypeVar("Spoken")

CANCEL_GRACE_S = 2.0  # between session/cancel and TERM: the slowest agent that was measured needs 1.0 s
STOP_GRACE_S = 0.2  # between TERM and KILL for one that has let the first grace pass
GLANCE_S = 0.25  # how often stderr is looked at while nothing comes
NOISE_SHOWN = 200  # characters of such a line in a message
MAX_NOISE = 2000  # lines that are no messages, before the first one that is: this is another program


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How an agent is started and spoken to; times in seconds.

    `cwd` None gives it an empty folder of its own. `mode` is chosen where it is offered.
    `evict` is the method that makes it forget a session.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    policy: Policy = field(default_factory=Policy)
    authenticates: bool = True
    auth_method: str | None = None
    mode: str | None = None
    evict: str | None = None
    login: str = "log in with the agent's own command"
    start_s: float = 60.0
    idle_s: float = 60.0
    grace_s: float = CANCEL_GRACE_S


class Link:
    """The process and its pipes; `sent` says whether a prompt may have reached the model.

    `answered` is whether it has ever spoken the protocol. Raises ProcessError if it cannot be started.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.sent = self.answered = False
        self._folder = None if launch.cwd else EmptyFolder()
        self.cwd = self._folder.path if self._folder else str(launch.cwd)
        try:
            self._child = Child(launch.argv, cwd=self.cwd, env=launch.env)
        except BaseException:
            self._forget_folder()
            raise
        self._peer = jsonrpc.Peer(self._child)

    @property
    def alive(self) -> bool:
        return self._child.returncode is None and self._child.alive

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End it and all that it has started; safe to call again and from another thread."""
        self._child.stop(grace_s)
        self._forget_folder()

    def ask(self, method: str, params: Mapping[str, Any], scope: Scope | None = None) -> int:
        """Send a request; returns its id."""
        return self._spoken(lambda: self._peer.ask(method, params, scope), scope)

    def tell(self, method: str, params: Mapping[str, Any], scope: Scope | None = None) -> None:
        self._spoken(lambda: self._peer.tell(method, params, scope), scope)

    def answer(self, request: jsonrpc.Request, result: Mapping[str, Any], scope: Scope | None = None) -> None:
        self._spoken(lambda: self._peer.answer(request, result, scope), scope)

    def refuse(self, request: jsonrpc.Request, code: int, message: str, scope: Scope | None = None) -> None:
        self._spoken(lambda: self._peer.refuse(request, code, message, scope), scope)

    def next(self, what: str, scope: Scope, silence_s: float | None) -> jsonrpc.Message:
        """The next message; lines that are none are looked at for a login and then passed over.

        `silence_s` is how long it may write nothing at all (None: for ever), `what` the method that is waited for.
        """
        watch = _Watch(silence_s, self._child.stderr)
        while True:
            message = self.receive(GLANCE_S, scope)
            if message is not None and not isinstance(message, str):
                self.answered = True
                return message
            watch.glance(self._child.stderr, noise=message is not None, counts=self.sent)
            self._check(watch, scope, what)

    def receive(self, timeout_s: float, scope: Scope | None = None) -> jsonrpc.Message | str | None:
        """The next message, a line that is none, or None if the time limit came first."""
        try:
            return self._peer.receive(timeout_s, scope)
        except (EOFError, ProcessError, jsonrpc.BrokenMessage) as error:
            raise self._ended(error, scope) from error

    def refused(self, refusal: jsonrpc.Failure) -> ProviderError:
        """The error for a request of ours that the agent has answered with one."""
        return self._hinted(failure(self.launch.name, refusal.text, code=refusal.code, sent=self.sent))

    def broken(self, what: str) -> ProviderError:
        """The error for an agent that does not do what was agreed; it is stopped."""
        self.stop()
        return TransportError(
            f"{self.launch.name} {what}",
            sent=self.sent,
            hint="check that the command starts the agent's ACP mode, and update it",
        )

    def _check(self, watch: "_Watch", scope: Scope, what: str) -> None:
        said = self._said()
        if not self.sent and asks_for_login(said):
            raise AuthError(f"{self.launch.name} waits for somebody to log in", sent=False, hint=self.launch.login)
        if not self.answered and watch.noise > MAX_NOISE:
            raise self.broken(f"does not speak the Agent Client Protocol{self._instead()}")
        if scope.expired:
            raise DeadlineError(
                f"{self.launch.name} was not done with {what} within the time limit{self._instead()}",
                sent=self.sent,
                hint="raise llm.timeouts.total",
            )
        if watch.over:
            raise self._silent(what, said)

    def _silent(self, what: str, said: str) -> ProviderError:
        if kind_of(said) is AUTH:
            return self._hinted(failure(self.launch.name, said, sent=self.sent))
        return DeadlineError(
            f"{self.launch.name} gave no answer to {what} in time{self._instead()}",
            sent=self.sent,
            hint="check that it is logged in, or raise llm.timeouts.first_event and idle",
        )

    def _instead(self) -> str:
        noise = self._peer.noise
        return f"; instead it wrote {noise[0][:NOISE_SHOWN]!r}" if noise and not self.answered else ""

    def _said(self) -> str:
        return "\n".join([self._child.stderr.decode("utf-8", "replace"), *self._peer.noise])

    def _ended(self, error: Exception, scope: Scope | None) -> ProviderError:
        """The error for the end of its output, or for output that is of no use."""
        if isinstance(error, jsonrpc.BrokenMessage):
            return self.broken(str(error))
        if isinstance(error, ProcessError) and self._child.alive:
            return self.broken(error.message.split("' ", 1)[-1])
        self.stop()
        if scope:
            scope.check()  # it may have ended because the call was cancelled
        found = unproven(self.launch.name, self._said(), ended=_how(self._child.returncode))
        found.sent = self.sent
        return self._hinted(found)

    def _spoken(self, speak: Callable[[], Spoken], scope: Scope | None) -> Spoken:
        try:
            return speak()
        except ProcessError as error:
            raise self._ended(error, scope) from error

    def _hinted(self, error: ProviderError) -> ProviderError:
        if isinstance(error, AuthError):
            error.hint = self.launch.login
        return error

    def _forget_folder(self) -> None:
        if self._folder:
            self._folder.close()


class _Watch:
    """How long an agent has been silent, on both outputs, and how many lines were no messages."""

    def __init__(self, silence_s: float | None, stderr: bytes) -> None:
        self._silence_s, self._stderr = silence_s, stderr
        self._since = time.monotonic()
        self.noise = 0

    @property
    def over(self) -> bool:
        return self._silence_s is not None and time.monotonic() - self._since >= self._silence_s

    def glance(self, stderr: bytes, *, noise: bool, counts: bool) -> None:
        """Look at it again; words on stderr are a sign of life if they are to count."""
        self.noise += noise
        if counts and stderr != self._stderr:
            self._since = time.monotonic()
        self._stderr = stderr


def _how(returncode: int | None) -> str:
    if not returncode:
        return "without an answer"
    return f"with exit code {returncode}" if returncode > 0 else f"by signal {-returncode}"
