"""Whole files in an answer, and putting them into the workspace so that they can be taken back.

The form is that of `file_blocks`. A fence may be longer than three, so files may contain fences. What was there
before is kept in a folder until the result is accepted and written down: a stage leaves an accepted result or nothing.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from flowcraft.core.disk import sync_chain, sync_folder, write_synced
from flowcraft.core.errors import FlowcraftError, StageError
from flowcraft.core.globs import is_plain, matches
from flowcraft.runner.file_blocks import Change, blocks
from flowcraft.runner.leftovers import remove_temporary
from flowcraft.runner.workspace import Workspace

MAX_FILES = 500
INSTRUCTION = """Answer with whole files, each in this form and nothing left out of it:

path/of/the/file.ext
```
the complete text of the file
```

Where a file itself contains ``` use a longer fence (````) around it. If the last line of a file must not end with a
line break, write `(no newline at end)` after the path. To delete a file write its path and `(deleted)` alone.
You may write files that match: """

_MANIFEST = "manifest.json"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Changes:
    """All files of an answer, or the reasons why they cannot be used; `examples` are blocks that are no files."""

    changes: tuple[Change, ...] = ()
    reasons: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


def changes_in(answer: str, writes: Sequence[str], workspace: Workspace) -> Changes:
    """The files of an answer, held to the globs that may be written."""
    read = blocks(answer, partial(_may_write, writes), workspace.has)
    found: dict[str, Change] = {}
    reasons = list(read.reasons)
    for change in read.changes:
        if change.path in found:
            reasons.append(f"{change.path} is there twice: give each file once")
        elif refused := _refused(change, writes, workspace):
            reasons.append(refused)
        else:
            found[change.path] = change
    for path in found:
        above = (str(folder) for folder in PurePosixPath(path).parents if str(folder) in found)
        reasons += (f"{path} is below {file}, which is a file" for file in above)
    if not found and not reasons:
        reasons.append(
            "there is no file in it: write the path on a line of its own and the text in a fenced block below"
        )
    if len(found) > MAX_FILES:
        reasons.append(f"there are {len(found)} files in it, at most {MAX_FILES} can be written")
    return Changes(reasons=tuple(reasons)) if reasons else Changes(tuple(found.values()), examples=read.examples)


def result_of(changes: Sequence[Change], answer: str) -> dict[str, Any]:
    """The output of a stage with `output: files`."""
    return {
        "files": [change.path for change in changes if change.text is not None],
        "deleted": [change.path for change in changes if change.text is None],
        "text": answer,
    }


class Transaction:
    """Changes of the workspace that can be taken back, also by another process: the old contents lie in `folder`."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self._tag = secrets.token_hex(8)
        self._workspace = Workspace(workspace.root, tag=self._tag)
        self._folder = folder
        self._kept: dict[str, str | None] = {}

    def apply(self, changes: Sequence[Change]) -> dict[str, str | None]:
        """Make the changes; returns the hash of each file now. Raises StageError, and then nothing is changed."""
        self._keep(changes)
        hashes: dict[str, str | None] = {}
        try:
            for change in changes:
                place = self._workspace.target(change.path)
                if change.text is None:
                    self._workspace.remove(place)
                    hashes[change.path] = None
                else:
                    data = _as_before(change, self._old(change.path)).encode("utf-8", "replace")
                    self._workspace.write_bytes(place, data)
                    hashes[change.path] = hashlib.sha256(data).hexdigest()
        except (OSError, FlowcraftError) as error:
            self.take_back()
            if isinstance(error, FlowcraftError):
                raise
            raise StageError(f"a file cannot be changed: {error}", hint="check folder and disk") from error
        return hashes

    def take_back(self) -> None:
        """Put everything back as it was before; raises StageError if that fails."""
        restore(self._workspace, self._folder)
        self._kept.clear()

    def _keep(self, changes: Sequence[Change]) -> None:
        """Copy what is there; the manifest is written last, so that a half-made folder takes nothing back.

        All of it has to survive a power cut before the first file is touched.
        """
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(parents=True, mode=0o700)
            for number, change in enumerate(changes):
                place = self._workspace.target(change.path)
                self._kept[change.path] = None
                if place.is_file():
                    name = self._kept[change.path] = str(number)
                    write_synced(self._folder / name, place.read_bytes())
            made = [change.path for change in changes]
            folders = [folder for path in made for folder in _missing_folders(self._workspace, path)]
            sync_folder(self._folder)
            manifest = {"files": self._kept, "folders": folders, "tag": self._tag}
            write_synced(self._folder / _MANIFEST, json.dumps(manifest).encode())
            sync_folder(self._folder)
            sync_chain(self._folder, self._workspace.root)
        except OSError as error:
            raise StageError(f"the old files cannot be kept: {error}", hint="check folder and disk") from error

    def _old(self, path: str) -> bytes | None:
        name = self._kept.get(path)
        return None if name is None else (self._folder / name).read_bytes()


def restore(workspace: Workspace, folder: Path) -> None:
    """Take back what a transaction has changed, this process's or that of one that was killed."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return
    try:
        for path, name in manifest["files"].items():
            place = workspace.target(path)
            remove_temporary(place.parent, manifest["tag"])
            if name is None:
                workspace.remove(place)
            else:
                workspace.write_bytes(place, (folder / name).read_bytes())
        for made in sorted(manifest["folders"], key=len, reverse=True):
            with suppress(OSError):  # somebody has put something else into it
                os.rmdir(workspace.root / made)
    except OSError as error:
        raise StageError(f"files cannot be put back: {error}", hint=f"the old ones are in {folder}") from error
    shutil.rmtree(folder, ignore_errors=True)


def take_back(folder: Path, done: Collection[str], workspace: Workspace) -> None:
    """Take back what a run that was killed has left half done; `done` are the names of what was accepted."""
    for place in sorted(folder.iterdir()) if folder.is_dir() else ():
        if place.name not in done:
            restore(workspace, place)
    shutil.rmtree(folder, ignore_errors=True)


def hashes_of(workspace: Workspace, globs: Sequence[str]) -> dict[str, str]:
    """The files that match, sorted, with the hashes of their contents. Raises StageError or UsageError."""
    found: dict[str, str] = {}
    for path in dict.fromkeys(path for glob in globs for path in workspace.glob(glob)):
        try:
            found[path] = _hash_of(workspace.root / path)
        except OSError as error:
            raise StageError(f"{path} cannot be read: {error.strerror}", hint="check `reads`") from error
    return dict(sorted(found.items()))


def read_by(stage: str, workspace: Workspace, globs: Sequence[str]) -> dict[str, str]:
    """The files that a stage reads, with their hashes; raises StageError also for one that is named and missing."""
    found = hashes_of(workspace, globs)
    for path in (glob for glob in globs if is_plain(glob) and glob not in found):
        place = workspace.inside(path)
        if place.is_dir():
            raise StageError(f"'{stage}' reads {path}, which is a folder", hint=f"write {path.rstrip('/')}/**")
        if not place.exists():
            hint = "check its name, or make it in a stage before; one that may be missing needs a glob"
            raise StageError(f"'{stage}' reads {path}, and there is no such file", hint=hint)
        if not place.is_file():
            raise StageError(f"'{stage}' reads {path}, which is not an ordinary file", hint="name a file")
    return found


def _hash_of(place: Path) -> str:
    """The hash of a file of any size."""
    made = hashlib.sha256()
    with open(place, "rb") as file:
        while data := file.read(_BLOCK_BYTES):
            made.update(data)
    return made.hexdigest()


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """What differs between two sets of hashes."""
    gone = {path: None for path in before if path not in after}
    return {path: value for path, value in after.items() if before.get(path) != value} | gone


def _may_write(writes: Sequence[str], path: str) -> bool:
    return any(matches(glob, path.removeprefix("./")) for glob in writes)


def _refused(change: Change, writes: Sequence[str], workspace: Workspace) -> str:
    try:
        place = workspace.target(change.path)
    except FlowcraftError as error:
        return str(error)
    relative = place.relative_to(workspace.root).as_posix()
    if not any(matches(glob, relative) and matches(glob, change.path.removeprefix("./")) for glob in writes):
        return f"{change.path} may not be written, only {', '.join(writes)}"
    return ""


def _as_before(change: Change, old: bytes | None) -> str:
    """The text with the line ends of the file that it replaces."""
    text = (change.text or "") + ("\n" if change.final_newline and change.text else "")
    if old is None or not change.text:
        return text
    if b"\r\n" in old and old.count(b"\r\n") == old.count(b"\n"):
        text = text.replace("\n", "\r\n")
    if old.startswith(b"\xef\xbb\xbf"):
        text = "\ufeff" + text
    if old and not old.endswith(b"\n"):
        text = text.removesuffix("\n").removesuffix("\r")
    return text


def _missing_folders(workspace: Workspace, path: str) -> list[str]:
    folders = [folder.as_posix() for folder in Path(path).parents if folder != Path()]
    return [folder for folder in folders if not (workspace.root / folder).exists()]
