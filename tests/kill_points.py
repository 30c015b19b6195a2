"""The crash points of a run: each kills the process there from outside, and says if it was hit."""

import contextlib
import os
import random
import signal
import subprocess
from collections.abc import Callable

from killing import BIG, World, kill, until, watched

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


def in_resume(first: Point, second: Point) -> Point:
    """18: the resume is killed, too."""

    def strike(world: World, words: tuple[str, ...]) -> bool:
        return first(world, words) and second(world, ("resume", "--on-unknown", "rerun"))

    return strike


def in_prune(world: World, words: tuple[str, ...]) -> bool:
    """20: while runs are deleted and the file is made smaller; the last run is a killed one."""
    for _ in range(2):
        world.run(*words, "--fresh")
    world.before = len(world.server.asked)  # the rows of these two are what is deleted
    at_server("body")(world, (*words, "--fresh"))
    process = world.start("prune", "--keep", "1")
    pause(process, random.uniform(0.2, 0.7))
    return kill(process)


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
    "11 published, not marked": at_file("out/first.txt", then=_unmarked),
    "12 between stages": at_row(WORK_DONE, then=lambda world: "last" not in "".join(a[:4] for a in world.asked)),
    "13 in a retry wait": refused,
    "15 parallel stages, one done": beside,
    "16 command running": in_child("hold", "begun"),
    "17 command done, not recorded": in_child("linger", "finished"),
    "18a resume killed at 5": in_resume(at_server("body"), at_server("body", "left of")),
    "18b resume killed in a command": in_resume(at_server("body", "right of"), in_child("hold", "begun")),
    "18c resume killed at random": in_resume(at_server("chunk:2"), at_random),
    "19 second Ctrl-C": second_ctrl_c,
    "20 in prune and vacuum": in_prune,
}
