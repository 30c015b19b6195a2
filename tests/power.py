"""Power cuts in the life of a ledger: real runs are recorded, and what the disk may hold after a cut is judged.

Promised to the outside is what was sent (a request: it has a row), printed (`ok`: its answer or result is kept, its
file is in place) and, after `prune`, that what was deleted stays deleted.
"""

import contextlib
import os
import random
import re
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuts import cut
from killing import Server, World
from traced import Step, traced

from flowcraft.core.errors import FlowcraftError
from flowcraft.runner.store.database import Database
from flowcraft.runner.store.ledger_schema import APPLICATION_ID, MIGRATIONS

CHAPTERS = {
    "update": ("runs",),
    "first run": ("run", "p.yaml"),
    "second run": ("run", "p.yaml", "--fresh"),
    "prune": ("prune", "--keep", "1"),
}
FILES = ("out/first.txt", "out/deep/last.txt", "out/a.txt", "out/b.txt")

_ENDED = re.compile(rb"(\S+): ok, (?!cached)")


@dataclass(frozen=True, slots=True)
class Chapter:
    """One program of the story: the folder before it, what it did, and the files it leaves."""

    name: str
    origin: Path
    steps: Sequence[Step]
    before: dict[str, bytes | None]
    after: dict[str, bytes | None]
    rows: tuple[tuple[int, int], tuple[int, int]]  # runs and calls before and after
    run: int  # the number of the run that it works on, 0 if it works on none


def story(folder: Path, server: Server) -> Iterator[Chapter]:
    """Record the update of an old database, then a first run, one that replaces all its files, its deletion."""
    world = World(folder / "life", server)
    (world.folder / "out").rmdir()
    _old_database(world.database)
    yield _chapter(world, folder, "update", 0)
    shutil.rmtree(world.database.parent)
    for name, run in (("first run", 1), ("second run", 2), ("prune", 0)):
        (world.folder / "pad.txt").write_text(f"chapter {name}")
        yield _chapter(world, folder, name, run)


def _old_database(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"{MIGRATIONS[0]}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1; PRAGMA journal_mode=WAL;"
            "INSERT INTO runs (id, pipeline, file, file_hash, status, inputs, options, started)"
            " VALUES ('old', 'p', 'p.yaml', '', 'succeeded', '{}', '{}', '');"
            "INSERT INTO calls (id, run, path, state, session, event, key, choice, request, reserved, started)"
            " VALUES ('c', 1, 'a', 'answered', 1, 'first', 'k', '{}', '{}', '{}', '');"
        )


def _chapter(world: World, folder: Path, name: str, run: int) -> Chapter:
    origin = folder / name
    shutil.copytree(world.folder, origin)
    before, rows = _files(world.folder), _rows(world)
    env = {one: os.environ[one] for one in ("PATH", "PYTHONPATH", "HOME") if one in os.environ}
    command = [sys.executable, "-m", "flowcraft", *CHAPTERS[name]]
    code, steps = traced(command, world.folder, folder / f"{name} aside", env)
    assert code == 0, (folder / f"{name} aside" / "printed").read_text()
    return Chapter(name, origin, steps, before, _files(world.folder), (rows, _rows(world)), run)


def _rows(world: World) -> tuple[int, int]:
    return len(world.rows("SELECT 1 FROM runs")), len(world.rows("SELECT 1 FROM calls"))


def after_cut(chapter: Chapter, at: int, model: str, seed: int, target: Path) -> list[str]:
    """Lay out what a cut leaves in `target`; what must not be is the answer."""
    cut(chapter.origin, chapter.steps, at, model, random.Random(seed), target)
    return [*_unsound_files(chapter, at, target), *_unsound_ledger(chapter, at, target)]


def resumed(chapter: Chapter, target: Path, server: Server) -> list[str]:
    """Go on after the cut in the folder `target`; what must not be is the answer."""
    world = World.__new__(World)  # the folder is there as it is
    world.folder, world.server = target, server
    kept = {row[0] for row in world.rows(_ANSWERED.format(run=chapter.run))}
    began = bool(world.rows(f"SELECT 1 FROM runs WHERE number = {chapter.run}"))
    asked = len(server.asked)
    words = ("resume", "--on-unknown", "rerun") if began else ("run", "p.yaml", "--fresh")
    code, printed = world.run(*words)
    found = [f"exit code {code} of {words[0]}:\n{printed}"] if code else []
    again = {_path(prompt) for prompt in server.asked[asked:]} & kept
    found += [f"asked again for {again}"] if again and began else []
    found += [] if _files(target) == chapter.after else ["the files differ after it went on"]
    return found + [str(path) for path in target.rglob("*.tmp")]


_ANSWERED = (
    "SELECT path FROM calls WHERE run = {run} AND state = 'answered'"
    " UNION SELECT path FROM stages WHERE run = {run} AND status = 'succeeded'"
)


def _unsound_files(chapter: Chapter, at: int, target: Path) -> list[str]:
    found, now = [], _files(target)
    said = b"".join(step.data for step in chapter.steps[:at] if step.kind == "said")
    for name in FILES:
        if now[name] not in (chapter.before[name], chapter.after[name]):
            found.append(f"{name} is neither old nor new: {(now[name] or b'')[:40]!r}")
        promised = f"saved {name}".encode() in said or (name[4:] in ("a.txt", "b.txt") and b"edit: ok" in said)
        if promised and now[name] != chapter.after[name]:
            found.append(f"{name} was there, and is gone")
    return found


def _unsound_ledger(chapter: Chapter, at: int, target: Path) -> list[str]:
    steps = chapter.steps[:at]
    said = b"".join(step.data for step in steps if step.kind == "said")
    sent = sum(step.data.startswith(b"POST ") for step in steps)
    try:
        database = Database(target / ".flowcraft")
    except FlowcraftError as error:
        return [f"it does not open: {error}"]
    with contextlib.closing(database):
        found = database.problems()
        if chapter.run:
            rows = database.rows("SELECT count(*) FROM calls WHERE run = ?", (chapter.run,))[0][0]
            found += [f"{sent} requests were sent, {rows} have a row"] if sent > rows else []
            kept = {row[0] for row in database.rows(_ANSWERED.format(run=chapter.run))}
            lost = {path.decode() for path in _ENDED.findall(said)} - kept
            found += [f"lost: {sorted(lost)}"] if lost else []
            ended = database.rows("SELECT 1 FROM runs WHERE number = ? AND status = 'succeeded'", (chapter.run,))
            found += ["the end of the run is lost"] if b": succeeded in " in said and not ended else []
        else:
            counts = tuple(len(database.rows(f"SELECT 1 FROM {table}")) for table in ("runs", "calls"))
            allowed = chapter.rows[1:] if said else chapter.rows
            found += [f"{counts} runs and calls, not {allowed}"] if counts not in allowed else []
    return found


def _files(folder: Path) -> dict[str, bytes | None]:
    return {name: (folder / name).read_bytes() if (folder / name).exists() else None for name in FILES}


def _path(prompt: str) -> str:
    word = prompt.split()[0]
    return {"one": "first"}.get(word, word)
