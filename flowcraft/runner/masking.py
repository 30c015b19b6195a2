"""Secrets of a run, taken out of what programs print, whole or in pieces."""

import re
from collections.abc import Iterable

SHOWN = "***"
SHORTEST = 4  # shorter texts stand everywhere: masking them would change ordinary output and hide nothing


class Mask:
    """Replaces each of some texts by `***`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        lines = {line for secret in secrets for line in (secret, *secret.splitlines()) if len(line.strip()) >= SHORTEST}
        self._secrets = sorted(lines, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets))) if lines else None

    def text(self, text: str) -> str:
        """`text` without the secrets."""
        return self._pattern.sub(SHOWN, text) if self._pattern else text

    def stream(self) -> "MaskedStream":
        """A mask for text that arrives in pieces."""
        return MaskedStream(self)

    def pending(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a secret."""
        longest = 0
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(text)), longest, -1):
                if text.endswith(secret[:size]):
                    longest = size
                    break
        return longest


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
