"""Real processes killed at real moments: the short form of benchmarks/kill_loop.py, which kills at all points."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_points import POINTS, RUN
from killing import PATIENCE_S, Server, World, kill, until

TRIES = 5  # narrow points are missed at times
SHORT = ("5 ", "9 ", "10 ", "14c", "15 ", "17 ", "19 ")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, server: Server) -> World:
    server.answer_bytes = 0
    return World(tmp_path / "world", server)


@pytest.mark.parametrize("name", [name for name in POINTS if name.startswith(SHORT)])
def test_a_killed_run_is_resumed_without_paying_twice(name: str, tmp_path: Path, server: Server) -> None:
    for number in range(TRIES):
        server.answer_bytes = 0
        world = World(tmp_path / str(number), server)
        hit = POINTS[name](world, RUN)
        code, printed = world.continued()

        assert (code, world.broken()) == (0, []), printed
        if hit:
            return
    raise AssertionError("the point was never hit")


def test_what_a_killed_run_left_running_is_ended_before_its_command_runs_again(world: World) -> None:
    POINTS["16 command running"](world, RUN)
    left = world.orphans()

    code, printed = world.run("resume")
    refused = world.orphans()
    again = world.run("resume", "--on-unknown", "rerun")

    assert left
    assert (code, refused) == (1, [])
    assert "nobody has seen its end" in printed
    assert (again[0], world.broken()) == (0, [])


def test_a_second_ctrl_c_leaves_no_program_behind(world: World) -> None:
    (world.folder / "hold").touch()
    process = world.start(*RUN)
    assert until(lambda: (world.folder / "begun").exists(), process)

    os.kill(process.pid, signal.SIGINT)
    os.kill(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=PATIENCE_S)[0].decode()
    (world.folder / "hold").unlink()

    assert process.returncode == 130, printed
    assert world.orphans() == []
    assert "continue with: flowcraft resume" in printed
    assert (world.continued()[0], world.broken()) == (0, [])


def test_a_second_resume_is_refused_by_the_process_of_the_first(world: World) -> None:
    world.server.arm("body")
    first = world.start(*RUN)
    assert until(world.server.reached.is_set, first)

    code, printed = world.run("resume")
    kill(first)
    world.server.arm(None)

    assert code == 2
    assert f"pid {first.pid}" in printed
    assert world.continued()[0] == 0


def test_a_clock_that_was_set_back_changes_no_order(world: World) -> None:
    world.run(*RUN)
    with world.changed() as database:
        database.execute("UPDATE runs SET started = '2099-01-01T00:00:00+00:00', ended = started")
        database.execute("UPDATE calls SET started = '2099-01-01T00:00:00+00:00', ended = started")
    (world.folder / "pad.txt").write_text("other")
    world.server.arm("body", "left of")
    process = world.start(*RUN)
    until(world.server.reached.is_set, process)
    kill(process)
    world.server.arm(None)

    code, printed = world.run("resume")

    assert code == 0
    assert "left: started" in printed
    assert world.broken() == []


def test_a_read_only_folder_is_refused_before_anything_is_asked(world: World) -> None:
    (world.folder / ".flowcraft").write_text("in the way")

    code, printed = world.run(*RUN)

    assert (code, world.asked) == (1, [])
    assert "= help:" in printed


def test_a_command_that_ctrl_c_has_stopped_runs_again_only_if_somebody_says_so(world: World) -> None:
    (world.folder / "hold").touch()
    process = world.start(*RUN)
    assert until(lambda: (world.folder / "begun").exists(), process)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=PATIENCE_S)[0].decode()
    (world.folder / "hold").unlink()

    code, printed = world.run("resume")
    again = world.run("resume", "--on-unknown", "rerun")

    assert code == 1
    assert printed.count("'work' was stopped while it ran: it may have done part of its work") == 1
    assert "runs again" not in printed
    assert "--on-unknown rerun  (if 'work' can run again)" in said
    assert "--on-unknown rerun  (if 'work' can run again)" in printed
    assert "work: started, command; runs again: it was stopped while it ran" in again[1]
    assert (again[0], world.broken()) == (0, [])


def test_a_run_whose_database_is_gone_does_not_claim_to_be_kept(world: World) -> None:
    world.server.arm("body")
    process = world.start(*RUN)
    assert until(world.server.reached.is_set, process)
    for place in world.database.parent.glob("flowcraft.db*"):
        place.unlink()
    world.server.arm(None)
    os.kill(process.pid, signal.SIGINT)
    printed = process.communicate(timeout=PATIENCE_S)[0].decode()

    assert process.returncode == 1, printed
    assert "removed or replaced while it was in use" in printed
    assert "continue with" not in printed
