"""What the user sees of a run: a live list on a terminal, plain lines elsewhere.

All text that comes from models, files or services passes `clean` before it reaches a terminal.
"""

import unicodedata
from collections.abc import Sequence
from decimal import Decimal

# Format characters that turn text around or hide it (bidirectional controls, tags, zero width), CVE-2021-42574.
_HIDDEN = {"Cf", "Cc", "Cs", "Co", "Zl", "Zp"}
_KEPT = {"\n", "\t", "\u200d"}  # the joiner holds emoji together and hides nothing


def clean(text: str) -> str:
    """`text` with every control character shown instead of sent, so that no model steers the terminal.

    Works character by character: a sequence that is cut over two pieces is harmless in both.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(character) for character in text)


def _visible(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def money(amount: Decimal | None) -> str:
    """US dollars for people; unknown is said, not shown as 0."""
    if amount is None:
        return "cost unknown"
    return "free" if amount == 0 else f"${amount:.4f}"


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {value % 60:.0f} s"


def table(rows: Sequence[tuple[str, ...]], headings: tuple[str, ...]) -> str:
    """Left-aligned columns with headings; the last column is not padded."""
    lines = [headings, *rows]
    widths = [max(len(clean(line[column])) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(clean(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
