"""Commands that run their arguments, or take them as names: there a value would become code."""

import re
from collections.abc import Sequence

_INTERPRETER = re.compile(r"(?:.*/)?(?:(?:ba|da|z|k|a)?sh|python[\d.]*|perl|ruby|node|php)")
_CODE_FLAG = re.compile(r"-[a-zA-Z]*[cer]")
_INDEX = re.compile(r"\w+\[[^\]]*")
_RUN_THEIR_WORDS = ("eval", "let", "trap", "alias")
_TAKE_NAMES = ("unset", "read", "mapfile", "readarray", "getopts")
_DECLARE = ("declare", "typeset", "local", "export", "readonly")


def runs(words: Sequence[str], word: str) -> bool:
    """Whether the command would run the word that is being read, or take it as a name."""
    if not words:
        return False
    first, last = words[0], words[-1]
    if first in _RUN_THEIR_WORDS or first in _TAKE_NAMES:
        return True
    if first in _DECLARE:
        return "=" not in word
    if last == "-v" and first in ("printf", "test", "["):
        return True
    return bool(_CODE_FLAG.fullmatch(last)) and any(_INTERPRETER.fullmatch(word) for word in words)


def is_index(words: Sequence[str], word: str) -> bool:
    """Whether the word is the index of an array that is assigned to, where bash calculates."""
    return not words and _INDEX.fullmatch(word) is not None
