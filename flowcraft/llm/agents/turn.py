"""One turn of an agent: its updates become deltas, its end becomes an answer or an error."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from flowcraft.core.errors import ReplyError, TransportError
from flowcraft.llm.agents.failures import disguised, empty
from flowcraft.llm.agents.usage import added, dollars, metered_credits, piece_of_usage, usage_of
from flowcraft.llm.base import Delta, Usage

# max_turn_requests: the agent was cut off, too, if not by tokens.
FINISH_REASONS = {
    "end_turn": "stop",
    "max_tokens": "length",
    "max_turn_requests": "length",
    "refusal": "content_filter",
}
_RUNNING = ("pending", "in_progress")


class Turn:
    """What has come of one turn so far."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._text: list[str] = []
        self._pieces: Usage | None = None
        self._credits: Decimal | None = None
        self._cost: Decimal | None = None
        self._tools: set[str] = set()
        self.refusals = 0  # how often it was told that it may not use a tool

    @property
    def text(self) -> str:
        return "".join(self._text)

    @property
    def tool_running(self) -> bool:
        """Whether the agent waits for a tool of its own, which may be silent for long."""
        return bool(self._tools)

    def update(self, update: Mapping[str, Any]) -> Delta | None:
        """Take in a `session/update`; the delta is there if it brought text."""
        kind = update.get("sessionUpdate")
        self._pieces = added(self._pieces, piece_of_usage(update))
        if kind == "agent_message_chunk":
            text = _text(update.get("content"))
            if text:
                self._text.append(text)
                return Delta(content=text)
        elif kind == "agent_thought_chunk":
            text = _text(update.get("content"))
            if text:
                return Delta(reasoning=text)
        elif kind in ("tool_call", "tool_call_update"):
            self._note_tool(update)
        elif kind == "usage_update":
            self._cost = dollars(update) or self._cost  # of the whole session, which has this one turn
        return None

    def metadata(self, params: Mapping[str, Any]) -> None:
        """Take in Kiro's metering; snapshots grow or repeat, so the largest counts."""
        amount = metered_credits(params)
        if amount is not None:
            self._credits = max(amount, self._credits or amount)

    def finished(self, result: Mapping[str, Any]) -> Delta:
        """The last delta; raises ProviderError if the turn did not end with an answer."""
        reason = result.get("stopReason")
        if reason == "cancelled":
            raise TransportError(
                f"{self._agent} cancelled its turn by itself",
                retryable=not self._text,
                partial_text=self.text,
                hint="ask again, or run the agent by hand",
            )
        if reason not in FINISH_REASONS:
            raise ReplyError(
                f"{self._agent} ended its turn for a reason that is not known: {reason!r}",
                partial_text=self.text,
                hint="update FlowCraft, or the agent",
            )
        usage = self._usage(result)
        if usage is None:
            # Some agents end their turn well and give the error as the answer.
            error = disguised(self._agent, self.text)
            if error:
                raise error
        if reason == "end_turn" and not self.text.strip() and (usage is None or not usage.completion_tokens):
            raise empty(self._agent, self.refusals)
        return Delta(finish_reason=FINISH_REASONS[str(reason)], usage=usage, cost=self._cost)

    def _usage(self, result: Mapping[str, Any]) -> Usage | None:
        usage = usage_of(result) or self._pieces
        return usage if self._credits is None else replace(usage or Usage(), credits=self._credits)

    def _note_tool(self, update: Mapping[str, Any]) -> None:
        number = str(update.get("toolCallId"))
        if update.get("status", "pending" if update["sessionUpdate"] == "tool_call" else None) in _RUNNING:
            self._tools.add(number)
        elif "status" in update:
            self._tools.discard(number)


def _text(content: Any) -> str:
    if not isinstance(content, Mapping) or content.get("type", "text") != "text":
        return ""
    text = content.get("text")
    return text if isinstance(text, str) else ""
