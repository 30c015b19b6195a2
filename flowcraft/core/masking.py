"""Secrets taken out of text: as they are, and as programs and services usually write them down; whole or in pieces."""

import base64
import json
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn, TypeVar
from urllib.parse import quote

_Value = TypeVar("_Value")

SHOWN = "***"
SHORTEST = 4  # shorter texts stand everywhere: masking them would change ordinary output and hide nothing
_SHORTEST_CODED = 8  # likewise for what base64 and hexadecimal make of them
_LONGEST_CODED = 4096  # of a line: no key is longer, and what is would take long to look for
# As `html.escape` does it, whose module brings a table of all names there are.
_IN_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
_QUOTES_IN_HTML = str.maketrans({'"': "&quot;", "'": "&#x27;"})


class Mask:
    """Replaces each of some texts by `***`: it and its lines, as they are or in JSON, URLs, HTML, quotes or base64."""

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = {line for secret in secrets for line in (secret, *secret.splitlines()) if len(line.strip()) >= SHORTEST}
        self._forms = sorted({form for line in lines for form in _forms(line)}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if lines else None

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self._pattern.sub(SHOWN, text) if self._pattern else text

    def stream(self) -> "MaskedStream":
        """A mask for text that arrives in pieces."""
        return MaskedStream(self)

    def pending(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a secret."""
        return max((_begun(form, text) for form in self._forms), default=0)


class MaskedStream:
    """Holds back what may be the beginning of a secret until the next piece tells."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = ""

    def add(self, piece: str) -> str:
        """What of the text so far can be shown."""
        text = self._mask.text(self._held + piece)
        keep = self._mask.pending(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """The rest."""
        rest, self._held = self._held, ""
        return self._mask.text(rest)


class Unshown(dict[str, _Value]):
    """Values that may be secret, which no traceback shows, not even one that is made with the values of variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{', '.join(self)}: not shown>"


class Unpicklable:
    """What holds secrets: a pickle of it would put them into a file, a queue or a cache."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds secrets and cannot be pickled")


def _begun(form: str, text: str) -> int:
    """How many characters at the end of `text` are the first ones of `form`, but not all of it."""
    start = max(0, len(text) - len(form) + 1)
    while (start := text.find(form[0], start)) >= 0:
        if form.startswith(text[start:]):
            return len(text) - start
        start += 1
    return 0


def _forms(secret: str) -> Iterator[str]:
    if len(secret) > _LONGEST_CODED:
        yield secret
        return
    for written in (*_written(secret), *_coded(secret)):
        yield written
        in_json = _in_json(written)
        yield from (in_json, _in_json(in_json), json.dumps(written, ensure_ascii=False)[1:-1])


def _written(secret: str) -> Iterator[str]:
    yield from (secret, repr(secret)[1:-1])
    yield from (secret.replace("'", quote_mark) for quote_mark in ("'\"'\"'", "'\\''"))  # Python and bash for the shell
    yield from (secret.translate(_IN_HTML), secret.translate(_IN_HTML | _QUOTES_IN_HTML))
    for in_url in (quote(secret, safe="", errors="replace"), quote(secret, errors="replace")):
        yield from (in_url, re.sub("%..", lambda match: match[0].lower(), in_url))


def _coded(secret: str) -> Iterator[str]:
    plain = secret.encode("utf-8", "replace")
    if len(plain) < _SHORTEST_CODED:
        return
    yield plain.hex()
    for skipped in range(3):  # how much of it shares its group of three bytes with what stands before
        whole = plain[skipped:]
        coded = base64.b64encode(whole[: len(whole) // 3 * 3])
        yield from (coded.decode(), coded.translate(bytes.maketrans(b"+/", b"-_")).decode())


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
