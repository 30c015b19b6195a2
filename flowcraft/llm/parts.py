"""What a message holds that is more than one text: texts and images, in their order.

Written as OpenAI's chat completions do, `{"type": "text", "text": ...}` and `{"type": "image_url", "image_url":
{"url": "data:image/png;base64,..."}}`, or made here. An image is its bytes, or an https address that is passed on to
a service which fetches it; FlowCraft itself fetches nothing.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowcraft.core.errors import UsageError
from flowcraft.core.images import JPEG, MEDIA_TYPES, media_type, pixels

DETAILS = ("auto", "low", "high", "original")
_AS_DATA = "give its bytes: data:image/png;base64,..., or ImagePart(data=...)"
_EXAMPLE = '[{"type": "text", "text": "..."}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}]'


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of text."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise UsageError(f"the text of a part is a str, not {type(self.text).__name__}", hint=_EXAMPLE)

    @property
    def shown(self) -> str:
        return self.text

    @property
    def record(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePart:
    """An image: `data` (PNG, JPEG, GIF or WebP), or an https `url`, one of both.

    `media_type` follows from the data; one that is given must agree. `name` is what errors and records call it,
    `detail` is OpenAI's word for how closely to look (auto, low, high, original). Raises UsageError.
    """

    data: bytes = field(default=b"", repr=False)
    url: str = ""
    media_type: str = ""
    name: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.url):
            raise UsageError("an image has either data or a url", hint=_AS_DATA)
        if self.detail and self.detail not in DETAILS:
            raise UsageError(f"'detail' of an image is {self.detail!r}", hint=f"use one of {', '.join(DETAILS)}")
        if self.url:
            _check_address(self.url)
            return
        if not isinstance(self.data, bytes):
            raise UsageError(f"the data of an image are bytes, not {type(self.data).__name__}", hint=_AS_DATA)
        found = media_type(self.data)
        if found is None:
            what = self.name or "the data of an image"
            raise UsageError(f"{what} is none of {', '.join(MEDIA_TYPES)}", hint="convert it, to PNG for example")
        if self.media_type not in ("", found):
            what = self.name or "an image"
            raise UsageError(f"{what} is given as {self.media_type}, but is {found}", hint="correct its type")
        object.__setattr__(self, "media_type", found)

    @property
    def called(self) -> str:
        """What a person would call it."""
        return self.name or self.url or "an image"

    @property
    def encoded(self) -> str:
        """The bytes in base64."""
        return str(base64.b64encode(self.data), "ascii")

    @property
    def address(self) -> str:
        """The image as one URL."""
        return self.url or f"data:{self.media_type};base64,{self.encoded}"

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels, if its header tells them."""
        return pixels(self.data)

    @property
    def shown(self) -> str:
        """A line that stands for the image where there is only text."""
        return shown_record(self.record)

    @property
    def record(self) -> dict[str, Any]:
        """What is written down of it: everything but the bytes, and their hash."""
        facts: dict[str, Any] = {"type": "image", "name": self.name, "url": self.url, "media_type": self.media_type}
        if self.data:
            width, height = self.size or (None, None)
            digest = hashlib.sha256(self.data).hexdigest()
            facts |= {"sha256": digest, "bytes": len(self.data), "width": width, "height": height}
        facts["detail"] = self.detail
        return {name: value for name, value in facts.items() if value not in ("", None)}


Part = TextPart | ImagePart


def parts_of(content: Any) -> tuple[Part, ...]:
    """The parts that a caller has given as content; raises UsageError."""
    if isinstance(content, str):
        return (TextPart(content),)
    if isinstance(content, (bytes, bytearray, Mapping)) or not isinstance(content, Sequence):
        kind = type(content).__name__
        raise UsageError(f"the content of a message is a str or a list of parts, not {kind}", hint=_EXAMPLE)
    if not content:
        raise UsageError("the content of a message has no parts", hint=_EXAMPLE)
    return tuple(map(_part, content))


def checked(role: str, content: Any) -> str | tuple[Part, ...]:
    """The content of a message of `role` as it is kept, from what is no str. Raises UsageError."""
    parts = parts_of(content)
    if role == "user":
        return parts
    if images_in(parts):
        raise UsageError(f"a message of the role '{role}' holds no images", hint="put them into a user's")
    return shown(parts)


def images_in(parts: Iterable[Part]) -> tuple[ImagePart, ...]:
    """The images among the parts."""
    return tuple(part for part in parts if isinstance(part, ImagePart))


def shown(content: str | Iterable[Part | Mapping[str, Any]]) -> str:
    """Content, recorded or not, as text with a line for each image."""
    if isinstance(content, str):
        return content
    whole = ""
    for part in content:
        text = part.shown if isinstance(part, (TextPart, ImagePart)) else shown_record(part)
        whole += text if not whole or whole.endswith("\n") or text.startswith("\n") else f"\n{text}"
    return whole


def shown_record(record: Mapping[str, Any]) -> str:
    """What `record` of a part has made, for people: a text as it is, an image as one line."""
    if record.get("type") == "text":
        return str(record.get("text"))
    size = f"{record['width']}x{record['height']}" if record.get("width") else ""
    weight = f"{max(1, round(record['bytes'] / 1000))} kB" if record.get("bytes") else ""
    facts = [record.get("url") or record.get("name") or "", record.get("media_type", ""), size, weight]
    return f"[image {', '.join(fact for fact in facts if fact)}]"


def recorded(content: Any) -> Any:
    """Content as it is written down; parts in OpenAI's shape become what a record of them says."""
    if isinstance(content, str):
        return content
    made = [part if _is_record(part) else _part(part).record for part in content]
    # What an image was called is for people only.
    return [{name: value for name, value in part.items() if name != "name"} for part in made]


def _is_record(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") in ("text", "image")


def _part(given: Any) -> Part:
    if isinstance(given, (TextPart, ImagePart)):
        return given
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "text" and set(given) == {"type", "text"}:
        return TextPart(given["text"])
    if kind == "image_url" and set(given) == {"type", "image_url"}:
        return _image(given["image_url"])
    what = f"of the type {kind!r}" if kind else f"a {type(given).__name__}"
    raise UsageError(f"a part of a message is a text or an image_url, and this is {what}", hint=_EXAMPLE)


def _image(given: Any) -> ImagePart:
    if not isinstance(given, Mapping) or not isinstance(given.get("url"), str) or set(given) - {"url", "detail"}:
        raise UsageError("'image_url' is an object with a 'url', and perhaps a 'detail'", hint=_EXAMPLE)
    url, detail = given["url"], given.get("detail") or ""
    if url[:5].lower() != "data:":
        return ImagePart(url=url, detail=detail)
    head, comma, text = url[5:].partition(",")
    kind, *options = head.lower().replace("image/jpg", JPEG).split(";")  # as many write it
    if not comma or options[-1:] != ["base64"]:
        raise UsageError("the data: URL of an image is not in base64", hint="data:image/png;base64,...")
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(f"the data: URL of an image is not base64: {error}", hint=_AS_DATA) from error
    return ImagePart(data=data, media_type=kind, detail=detail)


def _check_address(url: str) -> None:
    if not isinstance(url, str) or not url.lower().startswith("https://") or not url.isprintable() or " " in url:
        shown_url = str(url)[:80]
        raise UsageError(f"an image is data or an https address, and this is {shown_url!r}", hint=_AS_DATA)
