"""What a program meant for terminals writes, as plain text, piece by piece as it arrives."""

import codecs
import re

# ECMA-48: CSI, OSC (ended by BEL or ST), and the two-character escapes.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()*+#%].|[0-Z\\^_`-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[()*+#%])?\Z")
_MARK = re.compile(r"(?<![^\n])\x1b\[[0-9;]*m> \x1b\[0?m")
_UNFINISHED_MARK = re.compile(r"(?<![^\n])\x1b\[[0-9;]*m(?:>(?: (?:\x1b(?:\[0?)?)?)?)?\Z")
MAX_HELD = 4096  # characters: a sequence that long is none

_CODE = re.compile(r"\b[A-Z0-9]{4}-[A-Z0-9]{4}\b")


def plain(text: str) -> str:
    """The text without escape sequences and carriage returns before newlines."""
    return _SEQUENCE.sub("", text).replace("\r\n", "\n")


def asks_for_login(text: str) -> bool:
    """Whether a device login is shown: an address and a code to type there."""
    text = plain(text)
    return "https://" in text and bool(_CODE.search(text))


class PlainText:
    """Bytes of a terminal program in, plain text out; what is cut in the middle waits for its rest.

    With `marked`, the sign `> ` that opens an answer is dropped: coloured at the start of any line,
    in any form at the very start. Blanks around the whole text are dropped, too.
    """

    def __init__(self, *, marked: bool = False) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._marked = marked
        self._raw = ""
        self._line_start = True
        self.started = False
        self._blanks = ""

    def add(self, data: bytes, *, last: bool = False) -> str:
        """The text that is certain now; `last` says that nothing follows."""
        self._raw += self._decoder.decode(data, last)
        ready = self._raw if last else self._raw[: self._certain()]
        self._raw = self._raw[len(ready) :]
        text = self._unmarked(ready)
        if not self.started:
            text = self._opened(text, last=last)
        text = self._blanks + text
        kept = text.rstrip()
        self._blanks = text[len(kept) :]
        return kept

    def _certain(self) -> int:
        ends = [len(self._raw)]
        for pattern in (_UNFINISHED, _UNFINISHED_MARK) if self._marked else (_UNFINISHED,):
            found = pattern.search(self._raw, max(0, len(self._raw) - MAX_HELD))
            if found:
                ends.append(found.start())
        if self._raw.endswith("\r"):
            ends.append(len(self._raw) - 1)
        return min(ends)

    def _unmarked(self, raw: str) -> str:
        if self._marked:
            # The first line of this piece may go on from the piece before.
            raw = _MARK.sub("", raw) if self._line_start else raw[:1] + _MARK.sub("", raw[1:]) if raw else ""
        if raw:
            self._line_start = raw.endswith("\n")
        return plain(raw)

    def _opened(self, text: str, *, last: bool) -> str:
        text = (self._blanks + text).lstrip()
        self._blanks = ""
        if self._marked and text in ("", ">") and not last:
            self._raw = text + self._raw
            return ""
        self.started = bool(text)
        return text.removeprefix("> ") if self._marked else text
