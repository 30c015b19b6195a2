"""A conversation as one text for programs that take a single prompt, and back again.

A lone user message is the text itself. Anything else is a first line that says what follows, then one
block per message in order: `<role>`, its text, `</role>`, each tag on a line of its own and an empty line
between the blocks. A line of a message that is such a tag (or was escaped) gets a `\\` in front, so
`read_back(prompt_text(messages)) == messages` for every conversation.
"""

import re
from collections.abc import Sequence

from flowcraft.llm.base import ROLES, LLMMessage

PREFACE = (
    "Below is a conversation, one block per message. Follow its system and developer messages, "
    "and answer with the text of the next assistant message only, without tags."
)

_TAG = re.compile(rf"^\\*</?(?:{'|'.join(ROLES)})>$", re.MULTILINE)
_BLOCK = re.compile(rf"^<({'|'.join(ROLES)})>\n((?:.*\n)*?)</\1>(?:\n\n|\Z)", re.MULTILINE)


def prompt_text(messages: Sequence[LLMMessage]) -> str:
    """The conversation as one text."""
    if len(messages) == 1 and messages[0].role == "user" and not messages[0].content.startswith(PREFACE):
        return messages[0].content
    return "\n\n".join([PREFACE, *(_block(message) for message in messages)])


def read_back(text: str) -> tuple[LLMMessage, ...]:
    """The messages that `prompt_text` has made this text of; raises ValueError if it has not."""
    if not text.startswith(PREFACE):
        return (LLMMessage("user", text),)
    messages: list[LLMMessage] = []
    at = len(PREFACE) + 2
    while at < len(text):
        block = _BLOCK.match(text, at)
        if block is None:
            raise ValueError(f"no message starts at character {at}")
        messages.append(LLMMessage(block[1], _unescaped(block[2][:-1])))
        at = block.end()
    return tuple(messages)


def _block(message: LLMMessage) -> str:
    escaped = _TAG.sub(r"\\\g<0>", message.content)
    return f"<{message.role}>\n{escaped}\n</{message.role}>"


def _unescaped(text: str) -> str:
    return _TAG.sub(lambda tag: tag[0].removeprefix("\\"), text)
