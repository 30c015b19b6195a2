"""One agent and what is said with it: the Agent Client Protocol, version 1.

An agent serves one prompt at a time and any number after each other, each in a session of its own.
The thread that has asked reads, answers the agent's own requests, and cancels; there are no others.
"""

import contextlib
import logging
import re
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from flowcraft.core.errors import AuthError, DeadlineError, FlowcraftError, ProviderError
from flowcraft.core.scope import Scope
from flowcraft.core.version import VERSION
from flowcraft.llm.agents.acp import jsonrpc
from flowcraft.llm.agents.acp.link import Launch, Link
from flowcraft.llm.agents.acp.models import choose_mode, choose_model
from flowcraft.llm.agents.acp.permissions import CANCELLED_OUTCOME, Policy, Refused
from flowcraft.llm.agents.turn import Turn
from flowcraft.llm.base import Delta
from flowcraft.llm.parts import ImagePart, Part

log = logging.getLogger(__name__)

PROTOCOL_VERSION = 1
PERMISSION = "session/request_permission"
_METADATA = "_kiro.dev/metadata"
_API_KEY = re.compile(r"api[-_ ]?key", re.IGNORECASE)


class Agent:
    """A started agent; `reusable` says whether it can serve another prompt. For one thread at a time.

    Making one raises ProcessError if it cannot be started. ProviderError and Cancelled come from everything;
    an agent whose state is not known then is stopped.
    """

    def __init__(self, launch: Launch, scope: Scope) -> None:
        self._launch = launch
        self._methods: Sequence[Any] = ()
        self._evicts = launch.evict
        self._sees = False
        self._known = False  # whether it waits for a session of ours, as far as we know
        self._link = Link(launch)
        try:
            self._initialize(scope)
        except BaseException:
            self.stop()
            raise
        self._known = True

    @property
    def reusable(self) -> bool:
        return self._known and self._link.alive

    def stop(self) -> None:
        """End it and all that it has started; safe to call again and from another thread."""
        self._link.stop()

    def answer(
        self, prompt: Sequence[Part], scope: Scope, *, model: str | None = None, required: bool = True
    ) -> Iterator[Delta]:
        """Ask in a new session; the pieces of the answer as they arrive.

        `model` is the agent's name of a model, None for its own choice, which also serves where the model
        is not `required`. However this is left, the agent is told, and stopped if it does not obey in time.
        """
        blocks = [self._block(part) for part in prompt]
        self._known, self._link.sent = False, False
        session = asked = None
        try:
            opened = self._open_session(scope)
            session = str(opened["sessionId"])
            chosen = choose_model(self._launch.name, opened, model, required=required)
            for method, params in (chosen, choose_mode(opened, self._launch.mode)):
                if method:
                    self._call(method, {"sessionId": session, **params}, scope)
            asked = self._link.ask("session/prompt", {"sessionId": session, "prompt": blocks}, scope)
            self._link.sent = True
            last = yield from self._turn(session, asked, scope)
        except BaseException as error:
            self._left(session, asked, error)
            raise
        self._evict(session)
        self._known = True
        yield last

    def _initialize(self, scope: Scope) -> None:
        result = self._call(
            "initialize",
            {
                "protocolVersion": PROTOCOL_VERSION,
                "clientCapabilities": self._launch.policy.capabilities,
                "clientInfo": {"name": "flowcraft", "title": "FlowCraft", "version": VERSION},
            },
            scope,
        )
        version = result.get("protocolVersion")
        if version != PROTOCOL_VERSION:
            raise ProviderError(
                f"{self._launch.name} speaks version {version!r} of the Agent Client Protocol, not {PROTOCOL_VERSION}",
                sent=False,
                hint="install another version of the agent",
            )
        methods = result.get("authMethods")
        self._methods = methods if isinstance(methods, list) else ()
        capabilities = result.get("agentCapabilities")
        self._sees = _inner(capabilities, "promptCapabilities", "image") is True
        if _inner(capabilities, "sessionCapabilities", "close") not in (None, False):
            self._evicts = self._evicts or "session/close"

    def _block(self, part: Part) -> dict[str, Any]:
        """A content block of a prompt; raises ProviderError for an image that the agent does not take."""
        if not isinstance(part, ImagePart):
            return {"type": "text", "text": part.text}
        if not self._sees:
            hint = "name a model that takes images (ACP: promptCapabilities.image)"
            raise ProviderError(
                f"{self._launch.name} takes no images, and it is shown {part.called}", sent=False, hint=hint
            )
        if part.url:
            raise ProviderError(
                f"{self._launch.name} takes images as data only, not {part.url}", sent=False, hint="give its bytes"
            )
        return {"type": "image", "mimeType": part.media_type, "data": part.encoded}

    def _open_session(self, scope: Scope) -> Mapping[str, Any]:
        params = {"cwd": self._link.cwd, "mcpServers": []}
        try:
            opened = self._call("session/new", params, scope)
        except AuthError:
            method = self._auth_method()
            if method is None:
                raise
            with contextlib.suppress(ProviderError):  # what counts is whether a session can be opened then
                self._call("authenticate", {"methodId": method}, scope)
            opened = self._call("session/new", params, scope)
        if not isinstance(opened.get("sessionId"), str):
            raise self._link.broken("answered session/new without a sessionId")
        return opened

    def _auth_method(self) -> str | None:
        """How to log in without a person: the method that settings name, else one that takes a key."""
        if not self._launch.authenticates:
            return None
        if self._launch.auth_method:
            return self._launch.auth_method
        for method in self._methods:
            if not isinstance(method, Mapping) or "terminal" in (method.get("type"), _meta_type(method)):
                continue
            if method.get("type") == "env_var" or _API_KEY.search(f"{method.get('id')} {method.get('name')}"):
                return str(method.get("id"))
        return None

    def _call(self, method: str, params: Mapping[str, Any], scope: Scope) -> Mapping[str, Any]:
        """Ask something that is not a prompt, and wait for the answer."""
        asked = self._link.ask(method, params, scope)
        until = time.monotonic() + self._launch.start_s
        while True:
            message = self._link.next(method, scope, until - time.monotonic())
            if isinstance(message, jsonrpc.Response) and message.id == asked:
                return self._result(message)
            if isinstance(message, jsonrpc.Request):
                self._serve(message, scope)

    def _turn(self, session: str, asked: int, scope: Scope) -> Generator[Delta, None, Delta]:
        turn = Turn(self._launch.name)
        silence_s = self._launch.start_s
        try:
            while True:
                message = self._link.next("the prompt", scope, None if turn.tool_running else silence_s)
                if isinstance(message, jsonrpc.Response) and message.id == asked:
                    return turn.finished(self._result(message))
                silence_s = self._launch.idle_s
                delta = self._heard(message, session, turn, scope)
                if delta:
                    yield delta
        except ProviderError as error:
            error.partial_text = error.partial_text or turn.text
            error.retryable = error.retryable and not turn.text
            raise

    def _result(self, response: jsonrpc.Response) -> Mapping[str, Any]:
        if response.failure:
            raise self._link.refused(response.failure)
        return response.result

    def _heard(self, message: jsonrpc.Message, session: str, turn: Turn, scope: Scope) -> Delta | None:
        if isinstance(message, jsonrpc.Request):
            turn.refusals += message.method == PERMISSION and self._launch.policy.permission == "reject"
            self._serve(message, scope, session)
        elif isinstance(message, jsonrpc.Notification) and message.params.get("sessionId", session) == session:
            update = message.params.get("update")
            if message.method == "session/update" and isinstance(update, Mapping):
                return turn.update(update)
            if message.method == _METADATA:
                turn.metadata(message.params)
        return None

    def _serve(self, request: jsonrpc.Request, scope: Scope, session: str | None = None) -> None:
        """Answer a request of the agent: by policy in the running session, never in another."""
        mine = session is not None and request.params.get("sessionId", session) == session
        try:
            result = _served(request, self._launch.policy if mine else Policy())
        except Refused as refused:
            log.debug("%s was refused: %s", self._launch.name, refused)
            self._link.refuse(request, jsonrpc.INVALID_PARAMS, str(refused), scope)
            return
        if result is None:
            self._link.refuse(request, jsonrpc.METHOD_NOT_FOUND, f"no method {request.method}", scope)
        else:
            self._link.answer(request, result, scope)

    def _evict(self, session: str) -> None:
        """Have it forget the session; nobody waits for the answer."""
        if self._evicts:
            with contextlib.suppress(FlowcraftError):
                self._link.ask(self._evicts, {"sessionId": session})

    def _left(self, session: str | None, asked: int | None, error: BaseException) -> None:
        """The prompt was left early: cancel it, and stop an agent that does not obey or answer."""
        if self._link.alive and session is not None:
            answered = isinstance(error, ProviderError) and not isinstance(error, DeadlineError)
            self._known = answered or (asked is not None and self._cancelled(session, asked))
        if self._known:
            self._evict(str(session))
        else:
            self.stop()

    def _cancelled(self, session: str, asked: int) -> bool:
        """Tell it to stop; whether its turn ended within the grace time, for whatever reason."""
        until = time.monotonic() + self._launch.grace_s
        with contextlib.suppress(FlowcraftError):
            self._link.tell("session/cancel", {"sessionId": session})
            while (left_s := until - time.monotonic()) > 0:
                message = self._link.receive(left_s)
                if isinstance(message, jsonrpc.Response) and message.id == asked:
                    return True
                if isinstance(message, jsonrpc.Request):
                    self._decline(message)
        return False

    def _decline(self, request: jsonrpc.Request) -> None:
        if request.method == PERMISSION:
            self._link.answer(request, CANCELLED_OUTCOME)
        else:
            self._link.refuse(request, jsonrpc.METHOD_NOT_FOUND, "the turn was cancelled")


def _inner(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _meta_type(method: Mapping[str, Any]) -> Any:
    meta = method.get("_meta")
    return meta.get("type") if isinstance(meta, Mapping) else None


def _served(request: jsonrpc.Request, policy: Policy) -> dict[str, Any] | None:
    """The result of an agent's request; None if there is no such method here."""
    if request.method == PERMISSION:
        return policy.outcome(request.params)
    if request.method == "fs/read_text_file":
        return {"content": policy.files.read(request.params)}
    if request.method == "fs/write_text_file":
        policy.files.write(request.params)
        return {}
    return None
