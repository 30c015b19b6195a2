"""The crash points of a run: each kills the process there from outside, and says if it was hit."""

import contextlib
import os
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from killing import BIG, PATIENCE_S, World, kill, until, watched
from qwen_parts import write
from qwen_service import QwenProcess

from flowcraft.llm.oauth import credentials

STARTED = "SELECT count(*) FROM calls WHERE state = 'started'"
ANSWERED = "SELECT count(*) FROM calls WHERE state = 'answered'"
RUN = ("run", "p.yaml", "--jobs", "2")

Point = Callable[[World, tuple[str, ...]], bool]


def at_server(point: str, only: str = "", *, then: Callable[[World], bool] = lambda world: True) -> Point:
    """When the server is there."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        world.server.arm(point, only)
        process = world.start(*words)
        hit = until(world.server.reached.is_set, process)
        kill(process)
        world.server.arm(None)
        return hit and then(world)

    return strike


def at_row(sql: str, *, then: Callable[[World], bool] = lambda world: True) -> Point:
    """When the database says so; `then` looks whether it is still so after the death."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        process = world.start(*words)
        with watched(world) as ask:
            hit = until(lambda: ask(sql), process)
        return kill(process) and hit and then(world)

    return strike


def at_file(pattern: str, *, then: Callable[[World], bool] = lambda world: True) -> Point:
    """When a file appears."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        process = world.start(*words)
        hit = until(lambda: any(world.folder.glob(pattern)), process)
        return kill(process) and hit and then(world)

    return strike


def big_request(world: World, words: tuple[str, ...]) -> bool:
    """4: in the middle of sending a request that is larger than any buffer."""
    (world.folder / "pad.txt").write_text(BIG)
    return at_server("headers")(world, words)


def big_answer(inner: Point) -> Point:
    """With a first answer so long that writing its file takes a while."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        world.server.answer_bytes = 8_000_000
        return inner(world, words)

    return strike


def refused(world: World, words: tuple[str, ...]) -> bool:
    """13: while it waits before trying again."""
    world.server.refusals = 1
    hit = at_row("SELECT count(*) FROM calls WHERE state = 'failed'")(world, words)
    world.server.refusals = 0
    return hit


def in_child(flag: str, sign: str) -> Point:
    """16, 17: while a command runs, or when it has done its work and its end is not recorded."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        (world.folder / flag).touch()
        hit = at_file(sign)(world, words)
        (world.folder / flag).unlink()
        return hit

    return strike


def second_ctrl_c(world: World, words: tuple[str, ...]) -> bool:
    """19: Ctrl-C, and again before it has come to its end."""
    world.server.arm("body")
    process = world.start(*words)
    hit = until(world.server.reached.is_set, process)
    os.kill(process.pid, signal.SIGINT)
    pause(process, random.uniform(0, 0.05))
    if process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=20)
    world.server.arm(None)
    return hit and process.returncode == 130


def in_refresh(sign: Callable[[Path, socket.socket], Any], *, answered: bool = False) -> Point:
    """14: while the first stage has a new token fetched for its model; the resume signs in with what is there.

    Unless it is `answered`, the first request for a token finds nobody who reads it: an answer that is lost would be a
    lost login.
    """

    def strike(world: World, words: tuple[str, ...]) -> bool:
        with QwenProcess() as service, socket.create_server(("127.0.0.1", 0)) as deaf:
            login = write(world.folder.with_name("login") / "oauth_creds.json", service.credentials(expired=True))
            world.sign_in(login, service.base_url if answered else f"http://127.0.0.1:{deaf.getsockname()[1]}")
            process = world.start(*words)
            hit = until(lambda: sign(login, deaf), process)
            hit = kill(process) and hit
            world.sign_in(login, service.base_url)
            code, printed = world.run("resume") if world.rows("SELECT 1 FROM runs") else world.run(*words)
            left = [path.name for path in login.parent.glob(".*.tmp")]
            whole = credentials.read(login).alive() and service.counts()["refreshed"] == 1
        if code or left or not whole:
            world.fault(f"after the refresh: exit code {code}, left {left}:\n{printed}")
        shutil.rmtree(login.parent)
        return hit

    return strike


def in_resume(first: Point, second: Point) -> Point:
    """18: the resume is killed, too."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        return first(world, words) and second(world, ("resume", "--on-unknown", "rerun"))

    return strike


def in_prune(begun: Callable[[World, int], bool]) -> Point:
    """20: while runs are deleted and the file is made smaller; the last run is a killed one.

    The log is deleted by whoever ends in peace: it was hit if there is still one.
    """

    def strike(world: World, words: tuple[str, ...]) -> bool:
        (world.folder / "pad.txt").write_text(BIG)  # so that there is something to delete and to move
        world.run(*words)
        world.before = len(world.server.asked)  # the rows of this run are what is deleted
        at_server("body")(world, (*words, "--fresh"))
        world.run("runs")  # moves what the killed one has left in the log
        before = world.database.stat().st_mtime_ns
        process = world.start("prune", "--keep", "1", quiet=True)
        hit = until(lambda: begun(world, before), process)
        return kill(process) and hit and size(world.log) > 0

    return strike


def disk_full(world: World, words: tuple[str, ...]) -> bool:
    """21: from some moment on no file can grow; what was begun ends with an error that says so."""
    wanted, room = random.randint(0, 3), random.randint(0, 20_000)
    process = world.start(*words)
    with watched(world) as ask:
        until(lambda: (ask(ANSWERED) or 0) >= wanted and ask("SELECT 1 FROM runs"), process)
    with contextlib.suppress(ProcessLookupError):
        limit = size(world.log) + room
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    printed = process.communicate(timeout=PATIENCE_S)[0].decode()
    code = process.returncode  # 0: it was done before
    return code != 0 and (refused_typed(code, printed) or world.fault(f"exit code {code} on a full disk:\n{printed}"))


def small_disk(world: World, words: tuple[str, ...]) -> bool:
    """21: a file system that is full at some moment; needs the right to mount one, and is never hit without."""
    place, saved = world.database.parent, world.folder / "saved"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={random.randint(70, 300)}k,mode=700", "none", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        place.rmdir()
        return False
    try:
        code, printed = world.run(*words)
        shutil.copytree(place, saved)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    place.rmdir()
    saved.rename(place)
    return code != 0 and (refused_typed(code, printed) or world.fault(f"exit code {code} on a full disk:\n{printed}"))


def refused_typed(code: int, printed: str) -> bool:
    """Whether it ended with an error of ours and not with a bug."""
    return code == 1 and "= help:" in printed and "Traceback" not in printed


def two_resumes(world: World, words: tuple[str, ...]) -> bool:
    """22: two processes go on with one run at the same moment: one does, the other names it and ends."""
    at_server("body")(world, words)
    world.server.arm("body")
    begun_s = time.monotonic()
    pair = [world.start("resume", "--on-unknown", "rerun") for _ in range(2)]
    until(lambda: any(one.poll() is not None for one in pair), pair[0])
    world.refused_s = time.monotonic() - begun_s
    refused, working = sorted(pair, key=lambda one: one.poll() is None)
    printed = refused.communicate()[0].decode()
    until(world.server.reached.is_set, working)
    kill(working)
    world.server.arm(None)
    named = refused.returncode == 2 and f"pid {working.pid}" in printed
    return named or world.fault(f"exit code {refused.returncode} of the second resume:\n{printed}")


def edited(world: World, words: tuple[str, ...]) -> bool:
    """23: the pipeline is edited before it is resumed: what the edit changes runs again, and it is said."""
    at_server("body", "last of")(world, words)
    text = (world.folder / "p.yaml").read_text()
    (world.folder / "p.yaml").write_text(text.replace("touch finished", ": edited; touch finished"))
    asked = len(world.server.asked)
    code, printed = world.run("resume")
    again = [prompt[:7] for prompt in world.server.asked[asked:]]
    said = "p.yaml was edited" in printed and "changed since it ran: script" in printed
    return (code, again, said) == (0, ["last of"], True) or world.fault(f"{code}, asked {again}:\n{printed}")


def clock_set_back(world: World, words: tuple[str, ...]) -> bool:
    """24: all that is written down lies in the future, the killed run before one that is older."""
    world.run(*words)
    world.before = len(world.server.asked)
    hit = at_server("body", "left of")(world, (*words, "--fresh"))
    with world.changed() as database:
        for table, past in (("runs", "number = 2"), ("calls", "run = 2")):
            database.execute(f"UPDATE {table} SET started = '2099-01-01T00:00:00+00:00', ended = started")
            database.execute(f"UPDATE {table} SET started = '1999-01-01T00:00:00+00:00', ended = NULL WHERE {past}")
    return hit


def at_random(world: World, words: tuple[str, ...]) -> bool:
    """At any moment of a run that is left alone otherwise."""
    process = world.start(*words)
    pause(process, random.uniform(0.1, 1.0) * world.server.span_s)
    return kill(process)


def pause(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Let it work for so long, or until its end."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _no_calls(world: World) -> bool:
    return not world.rows("SELECT 1 FROM calls")


def _unanswered(world: World) -> bool:
    return world.rows(ANSWERED) == [(0,)]


def _no_file(world: World) -> bool:
    return not (world.folder / "out" / "first.txt").exists()


def _no_second_file(world: World) -> bool:
    return not (world.folder / "out" / "b.txt").exists()


def _no_tables(world: World) -> bool:
    return world.rows("SELECT count(*) FROM sqlite_master") in ([], [(0,)])


def _checkpointing(world: World, before: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return size(world.log) > 0 and world.database.stat().st_mtime_ns != before
    return False


def size(path: Path) -> int:
    """The length of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unmarked(world: World) -> bool:
    return not world.rows("SELECT 1 FROM stages WHERE path = 'first'")


WORK_DONE = "SELECT count(*) FROM stages WHERE path = 'work' AND status = 'succeeded'"
LEFT_DONE = "SELECT count(*) FROM calls WHERE path = 'left' AND state = 'answered'"


def beside(world: World, words: tuple[str, ...]) -> bool:
    """15: one of two parallel stages has its answer, the other is held."""
    world.server.arm("body", "right of")
    process = world.start(*words)
    with watched(world) as ask:
        hit = until(lambda: world.server.reached.is_set() and ask(LEFT_DONE), process)
    kill(process)
    world.server.arm(None)
    return hit


POINTS: dict[str, Point] = {
    "1 before the run row": at_file(".flowcraft", then=lambda world: not world.rows("SELECT 1 FROM runs")),
    "2 after the run row, before an intent": at_row("SELECT count(*) FROM runs", then=_no_calls),
    "3 after the intent, before the answer is asked": at_row(STARTED, then=lambda world: not world.asked),
    "4 while the request is sent": big_request,
    "5 sent, no answer yet": at_server("body"),
    "6a after the first piece": at_server("chunk:1"),
    "6b after the middle piece": at_server("chunk:2"),
    "6c after the last piece": at_server("chunk:4"),
    "7 all arrived, not recorded": at_server("sent", "one", then=_unanswered),
    "8 inside the commit (7 or 9)": at_row(ANSWERED),
    "9 recorded, not published": big_answer(at_row(ANSWERED, then=_no_file)),
    "10 in the temporary file": big_answer(at_file("out/.flowcraft-*.tmp", then=_no_file)),
    "11a published, not marked": at_file("out/first.txt", then=_unmarked),
    "11b files of an answer half there": at_file("out/a.txt", then=_no_second_file),
    "12 between stages": at_row(WORK_DONE, then=lambda world: "edit" not in "".join(a[:4] for a in world.asked)),
    "13 in a retry wait": refused,
    "14a refresh, lock taken": in_refresh(lambda login, _: login.with_suffix(".lock").exists()),
    "14b refresh, room made": in_refresh(lambda login, _: any(login.parent.glob(".*.tmp"))),
    "14c refresh, asked": in_refresh(lambda _, deaf: select.select([deaf], [], [], 0)[0]),
    "14d refresh, new token in place": in_refresh(lambda login, _: credentials.read(login).alive(), answered=True),
    "15 parallel stages, one done": beside,
    "16 command running": in_child("hold", "begun"),
    "17 command done, not recorded": in_child("linger", "finished"),
    "18a resume killed at 5": in_resume(at_server("body"), at_server("body", "left of")),
    "18b resume killed in a command": in_resume(at_server("body", "right of"), in_child("hold", "begun")),
    "18c resume killed at random": in_resume(at_server("chunk:2"), at_random),
    "19 second Ctrl-C": second_ctrl_c,
    "20a in the first migration": at_file(".flowcraft/flowcraft.db", then=_no_tables),
    "20b while runs are deleted": in_prune(lambda world, before: size(world.log) > 0),
    "20c in vacuum": in_prune(lambda world, before: size(world.log) > 1_000_000),
    "20d in a checkpoint": in_prune(_checkpointing),
    "21a no file can grow": disk_full,
    "21b full disk": small_disk,
    "22 two resumes at once": two_resumes,
    "23 edited before the resume": edited,
    "24 clock set back": clock_set_back,
}
