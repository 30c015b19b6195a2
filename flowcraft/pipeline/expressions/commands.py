"""Commands that run their arguments, or take them as names: there a value would become code."""

import re
from collections.abc import Sequence

_INTERPRETER = re.compile(r"(?:.*/)?(?:(?:ba|da|z|k|a)?sh|python[\d.]*|perl|ruby|node|php)")
_STOPPING = re.compile(r"(?:.*/)?(?:(?:ba|da|z|k|a)?sh|python[\d.]*)")
_LAST_FLAG = re.compile(r"-[a-zA-Z]*c")
_CODE_FLAG = re.compile(r"-[a-zA-Z]*[cer]")
_INDEX = re.compile(r"\w+\[[^\]]*")
_RUN_THEIR_WORDS = ("eval", "let", "trap", "alias")
_TAKE_NAMES = ("unset", "read", "mapfile", "readarray", "getopts")
# What takes any text, or none that begins with a letter behind `-`.
_NO_OPTIONS = ("echo", "printf", "test", "[", ":", "true", "false", "case", "for", "select", "return", "exit")
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


def option_of(words: Sequence[str], script: str) -> str:
    """The command, if an argument that comes next could be an option of it."""
    if not words or words[0] in _NO_OPTIONS or ends_options(words):
        return ""
    own = re.search(rf"(?:^|[\s;]){re.escape(words[0])}\s*\(\)|function\s+{re.escape(words[0])}\b", script)
    return "" if own else words[0]


def ends_options(words: Sequence[str]) -> bool:
    """Whether no option can follow: behind `--`, and behind the code of `bash -c` and `python -c`."""
    code = next((at for at, word in enumerate(words) if _LAST_FLAG.fullmatch(word)), len(words))
    return "--" in words or (code + 1 < len(words) and _STOPPING.fullmatch(words[0]) is not None)


def is_index(words: Sequence[str], word: str) -> bool:
    """Whether the word is the index of an array that is assigned to, where bash calculates."""
    return not words and _INDEX.fullmatch(word) is not None
