"""A conversation as one text for programs that take a single prompt, and back again.

A lone user message is the text itself. Anything else is a first line that says what follows, then one
block per message in order: `<role>`, its text, `</role>`, each tag on a line of its own and an empty line
between the blocks. A line of a message that is such a tag (or was escaped) gets a `\\` in front, so
`read_back(prompt_text(messages)) == messages` for every conversation without images. An image, for programs that
take one, stands between two texts, where it is in its message.
"""

import re
from collections.abc import Sequence

from flowcraft.llm.base import ROLES, LLMMessage, refuse_images
from flowcraft.llm.parts import ImagePart, Part, TextPart

PREFACE = (
    "Below is a conversation, one block per message. Follow its system and developer messages, "
    "and answer with the text of the next assistant message only, without tags."
)

_TAG = re.compile(rf"^\\*</?(?:{'|'.join(ROLES)})>$", re.MULTILINE)
_BLOCK = re.compile(rf"^<({'|'.join(ROLES)})>\n((?:.*\n)*?)</\1>(?:\n\n|\Z)", re.MULTILINE)


def prompt_text(messages: Sequence[LLMMessage], model: str = "the model") -> str:
    """The conversation as one text; raises UsageError, naming `model`, if an image is in it."""
    refuse_images(messages, model)
    if len(messages) == 1 and messages[0].role == "user" and not messages[0].text.startswith(PREFACE):
        return messages[0].text
    return "\n\n".join([PREFACE, *(f"<{one.role}>\n{_escaped(one.text)}\n</{one.role}>" for one in messages)])


def prompt_parts(messages: Sequence[LLMMessage]) -> tuple[Part, ...]:
    """The conversation as one text, and the images in it at their places."""
    if not any(message.images for message in messages):
        return (TextPart(prompt_text(messages)),)
    if len(messages) == 1:
        return messages[0].parts
    parts: list[Part] = []
    text = PREFACE
    for message in messages:
        text += f"\n\n<{message.role}>\n"
        for part in message.parts:
            if isinstance(part, ImagePart):
                parts += [TextPart(text), part]
                text = ""
            else:
                text += _escaped(part.text)
        text += f"\n</{message.role}>"
    return (*parts, TextPart(text))


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


def _escaped(text: str) -> str:
    return _TAG.sub(r"\\\g<0>", text)


def _unescaped(text: str) -> str:
    return _TAG.sub(lambda tag: tag[0].removeprefix("\\"), text)
