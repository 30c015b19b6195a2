"""The files under `reads` as they follow a prompt: in sorted order, each under its path, text in a fence, images whole.

What a file is decides its content, not its name: PNG, JPEG, GIF and WebP are images, SVG is text. FC303: an image
that is too large, or too many of them; FC304: neither text nor image.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flowcraft.core.errors import StageError, UsageError
from flowcraft.core.images import media_type, pixels
from flowcraft.llm.parts import ImagePart, Part, TextPart
from flowcraft.runner.workspace import MAX_READ_BYTES, Workspace

# As Base64 they are a third larger: below what services take of one image (Model Studio and Anthropic 10 MB) and of
# one request (Anthropic 32 MB, and 100 images).
MAX_IMAGE_BYTES = 5 * 1024 * 1024
MAX_IMAGES_BYTES = 20 * 1024 * 1024
MAX_IMAGES = 100

_HEAD_BYTES = 256 * 1024  # a JPEG may have colour profiles and previews before its size
_FENCES = re.compile(r"`{3,}")


@dataclass(frozen=True, slots=True)
class Measured:
    """A file that will be attached; `pixels` is the size of an image, if its head tells it."""

    path: str
    size: int
    is_image: bool
    pixels: tuple[int, int] | None = None


def matching(workspace: Workspace, globs: Iterable[str]) -> list[str]:
    """The files that any of the globs means, sorted. Raises UsageError."""
    return sorted({path for glob in globs for path in workspace.glob(glob)})


def measured(workspace: Workspace, globs: Iterable[str]) -> list[Measured]:
    """The files that the globs mean, without reading all of them. Raises UsageError or OSError."""
    found = []
    for path in matching(workspace, globs):
        size = (workspace.root / path).stat().st_size
        shown = is_image(workspace, path)
        found.append(Measured(path, size, shown, pixels(workspace.start(path, _HEAD_BYTES)) if shown else None))
    return found


def is_image(workspace: Workspace, path: str) -> bool:
    """Whether a file that `matching` has found is an image; raises OSError."""
    with open(workspace.root / path, "rb", buffering=0) as file:
        return media_type(file.read(16)) is not None


def attached(text: str, workspace: Workspace, paths: Sequence[str]) -> str | tuple[Part, ...]:
    """The text of a prompt with the files behind it; parts where there are images. Raises StageError or UsageError."""
    parts: list[Part] = []
    images = size = 0
    for path in paths:
        data = workspace.start(path, MAX_READ_BYTES + 1)
        text += f"\n\n{path}\n"
        if media_type(data) is None:
            text += _fenced(_text(path, data))
            continue
        images, size = images + 1, size + len(data)
        _check(path, len(data), images, size)
        parts += [TextPart(text), ImagePart(data=data, name=path)]
        text = ""
    if not parts:
        return text
    return (*parts, TextPart(text)) if text else tuple(parts)


def _text(path: str, data: bytes) -> str:
    if len(data) > MAX_READ_BYTES:
        raise UsageError(f"'{path}' is larger than {MAX_READ_BYTES} bytes", hint="give the model a part of it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StageError(
            f"FC304: '{path}' is neither text in UTF-8 (byte {error.start}) nor an image (PNG, JPEG, GIF, WebP)",
            hint="convert it in a stage before, or leave it out of `reads`",
        ) from error


def _fenced(text: str) -> str:
    """The text in a fence that it does not contain itself."""
    longest = max((len(run) for run in _FENCES.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}"


def _check(path: str, size: int, images: int, total: int) -> None:
    if size > MAX_IMAGE_BYTES:
        said = f"the image '{path}' is larger than {MAX_IMAGE_BYTES >> 20} MiB"
        raise StageError(f"FC303: {said}", hint="make it smaller in a stage before")
    if images > MAX_IMAGES or total > MAX_IMAGES_BYTES:
        said = f"with '{path}' there are more than {MAX_IMAGES} images, or {MAX_IMAGES_BYTES >> 20} MiB of them"
        raise StageError(f"FC303: {said}", hint="narrow `reads` down, or use foreach")
