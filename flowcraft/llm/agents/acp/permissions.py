"""What an agent may do here: its questions for permission, and the files it reads and writes through us."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flowcraft.core.errors import FlowcraftError
from flowcraft.core.globs import matches

MAX_FILE_BYTES = 8 * 1024 * 1024

_WANTED = {"allow": ("allow_once", "allow_always"), "reject": ("reject_once", "reject_always")}


class Refused(FlowcraftError):
    """The agent asked for something that it may not have; told to the agent, never to the user."""


@dataclass(frozen=True, slots=True)
class FileAccess:
    """The files below `root` that an agent may ask us for; globs are relative to it."""

    root: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def read(self, params: Mapping[str, Any]) -> str:
        """The text for `fs/read_text_file`; raises Refused."""
        path = self._allowed(params, self.reads, "read")
        try:
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                raise Refused(f"{path} is no file, or too large")
            text = path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from error
        return _lines(text, params.get("line"), params.get("limit"))

    def write(self, params: Mapping[str, Any]) -> None:
        """Do `fs/write_text_file`; raises Refused."""
        path = self._allowed(params, self.writes, "write")
        content = params.get("content")
        if not isinstance(content, str):
            raise Refused("content must be a string")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode("utf-8", "replace"))
        except OSError as error:
            raise Refused(f"{path} cannot be written: {error.strerror}") from error

    def _allowed(self, params: Mapping[str, Any], globs: Sequence[str], what: str) -> Path:
        asked = params.get("path")
        if not isinstance(asked, str) or not os.path.isabs(asked) or "\0" in asked:
            raise Refused("path must be absolute")
        root, path = os.path.realpath(self.root), os.path.realpath(asked)  # links are followed before we judge
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        if not self.root or relative.startswith("../") or not any(matches(glob, relative) for glob in globs):
            raise Refused(f"this agent may not {what} {asked}")
        return Path(path)


@dataclass(frozen=True, slots=True)
class Policy:
    """How an agent's wishes are answered."""

    permission: Literal["reject", "allow"] = "reject"
    files: FileAccess = FileAccess()

    @property
    def capabilities(self) -> dict[str, Any]:
        """What is offered to the agent: only what we would also do."""
        reads, writes = bool(self.files.reads), bool(self.files.writes)
        return {"fs": {"readTextFile": reads, "writeTextFile": writes}, "terminal": False}

    def outcome(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to `session/request_permission`; options are known by kind, ids mean nothing."""
        options = [option for option in params.get("options") or [] if isinstance(option, Mapping)]
        for kind in _WANTED.get(self.permission, _WANTED["reject"]):
            for option in options:
                if option.get("kind") == kind and "optionId" in option:
                    return {"outcome": {"outcome": "selected", "optionId": option["optionId"]}}
        return CANCELLED_OUTCOME


CANCELLED_OUTCOME: dict[str, Any] = {"outcome": {"outcome": "cancelled"}}


def _lines(text: str, line: Any, limit: Any) -> str:
    if not isinstance(line, int) and not isinstance(limit, int):
        return text
    first = max(0, line - 1) if isinstance(line, int) else 0
    lines = text.splitlines(keepends=True)[first:]
    return "".join(lines[: max(0, limit)] if isinstance(limit, int) else lines)
