"""What the first bytes of an image say: its kind, and its width and height in pixels.

PNG, JPEG, GIF and WebP, which all services for images take; the name of a file counts for nothing. Only headers are
read and nothing is decoded: whatever the bytes are, the answer is a kind and a size, or None.
"""

from typing import Literal

PNG, JPEG, GIF, WEBP = "image/png", "image/jpeg", "image/gif", "image/webp"
MEDIA_TYPES = (PNG, JPEG, GIF, WEBP)

# Markers of JPEG that stand alone, and those of frames, which hold the size; C4, C8 and CC are tables.
_ALONE = {0x01, *range(0xD0, 0xD8)}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_SCAN, _END = 0xDA, 0xD9


def media_type(data: bytes) -> str | None:
    """The media type of an image by its signature; None for everything else (SVG is text)."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PNG
    if data.startswith(b"\xff\xd8\xff"):
        return JPEG
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GIF
    return WEBP if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def pixels(data: bytes) -> tuple[int, int] | None:
    """Width and height as the header tells them; None if it does not, or tells nonsense."""
    read = {PNG: _png, JPEG: _jpeg, GIF: _gif, WEBP: _webp}.get(media_type(data) or "")
    try:
        found = read(data) if read else None
    except IndexError:  # it ends too early
        return None
    return found if found and all(found) else None


def _number(data: bytes, start: int, size: int, order: Literal["big", "little"]) -> int:
    if len(data) < start + size:
        raise IndexError
    return int.from_bytes(data[start : start + size], order)


def _png(data: bytes) -> tuple[int, int] | None:
    if data[12:16] != b"IHDR":
        return None
    return _number(data, 16, 4, "big"), _number(data, 20, 4, "big")


def _gif(data: bytes) -> tuple[int, int]:
    return _number(data, 6, 2, "little"), _number(data, 8, 2, "little")


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":  # the canvas, less one
        return 1 + _number(data, 24, 3, "little"), 1 + _number(data, 27, 3, "little")
    if kind == b"VP8L" and data[20] == 0x2F:
        bits = _number(data, 21, 4, "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        return _number(data, 26, 2, "little") & 0x3FFF, _number(data, 28, 2, "little") & 0x3FFF
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        elif marker in _FRAMES:
            return _number(data, at + 7, 2, "big"), _number(data, at + 5, 2, "big")
        elif marker in (_SCAN, _END):
            return None
        else:
            at += 2 + _number(data, at + 2, 2, "big")
    return None
