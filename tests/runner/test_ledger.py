"""The database of runs: real SQLite files, real processes beside us."""

import fcntl
import json
import os
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flowcraft.core.errors import LedgerError, UsageError
from flowcraft.runner.store.database import CHECKPOINT_COMMITS, Database
from flowcraft.runner.store.ledger_schema import APPLICATION_ID, MIGRATIONS
from flowcraft.runner.store.records import Records
from flowcraft.runner.store.runlock import RunLock, check_free, is_running

INSERT = (
    "INSERT INTO runs (id, pipeline, file, file_hash, status, inputs, options, started)"
    " VALUES (?, 'p', 'f', '', 'running', '{}', '{}', '')"
)


@pytest.fixture
def folder(workspace: Path) -> Path:
    return workspace / ".flowcraft"


def made(folder: Path, *scripts: str) -> Path:
    folder.mkdir()
    connection = sqlite3.connect(folder / "flowcraft.db")
    for script in scripts:
        connection.executescript(script)
    connection.close()
    return folder / "flowcraft.db"


def refusal(folder: Path) -> LedgerError:
    with pytest.raises(LedgerError) as caught:
        Database(folder)
    assert caught.value.hint
    return caught.value


def test_a_new_database_is_ours_and_nobody_else_can_read_it(folder: Path) -> None:
    database = Database(folder)
    database.commit([(INSERT, ("one",))])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}

    assert database.version == len(MIGRATIONS)
    assert database.rows("PRAGMA application_id")[0][0] == APPLICATION_ID
    assert modes.pop(".flowcraft") == 0o700
    assert set(modes.values()) == {0o600}


def test_commits_survive_a_power_cut_by_their_settings(folder: Path) -> None:
    database = Database(folder)

    assert database.rows("PRAGMA journal_mode")[0][0] == "wal"
    assert database.rows("PRAGMA synchronous")[0][0] == 2
    assert database.rows("PRAGMA wal_autocheckpoint")[0][0] == 0


def test_a_transaction_that_breaks_leaves_nothing(folder: Path) -> None:
    database = Database(folder)

    with pytest.raises(LedgerError, match="UNIQUE"):
        database.commit([(INSERT, ("one",))] * 2)

    assert database.rows("SELECT id FROM runs") == []


def test_the_database_of_another_program_is_left_alone(folder: Path) -> None:
    path = made(folder, "CREATE TABLE theirs (a)")
    before = path.read_bytes()

    assert "belongs to another program" in str(refusal(folder))
    assert path.read_bytes() == before


def test_the_database_of_a_newer_version_is_left_alone(folder: Path) -> None:
    made(folder, f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=99; CREATE TABLE runs (a)")

    assert "newer FlowCraft (version 99" in str(refusal(folder))


def test_a_file_that_is_no_database_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "flowcraft.db").write_text("a letter to my aunt, with more than sixteen bytes")

    assert "not a SQLite database" in str(refusal(folder))
    assert (folder / "flowcraft.db").read_text().startswith("a letter")


def test_a_link_in_its_place_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "flowcraft.db").symlink_to(tmp_path / "elsewhere.db")

    assert "not an ordinary file" in str(refusal(folder))
    assert not (tmp_path / "elsewhere.db").exists()


def test_a_workspace_without_runs_says_so(folder: Path) -> None:
    with pytest.raises(UsageError, match="there are no runs here"):
        Database(folder, create=False)

    assert not folder.exists()


def test_a_database_that_is_deleted_in_use_is_noticed_at_the_next_commit(folder: Path) -> None:
    database = Database(folder)
    (folder / "flowcraft.db").unlink()

    with pytest.raises(LedgerError, match="removed or replaced"):
        database.commit([])


def test_a_full_disk_is_an_error_of_ours_and_the_next_commit_works_again(folder: Path) -> None:
    database = Database(folder)
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count={pages}")  # SQLite's own word for "the disk is full"

    with pytest.raises(LedgerError, match="the disk is full"):
        database.commit([(INSERT, ("x" * 100_000,))])
    database.rows("PRAGMA max_page_count=100000")
    database.commit([(INSERT, ("one",))])

    assert [row["id"] for row in database.rows("SELECT id FROM runs")] == ["one"]


def test_a_damaged_database_is_found(folder: Path) -> None:
    database = Database(folder)
    database.commit((INSERT, (f"{number} {'x' * 500}",)) for number in range(200))
    database.close()
    path = folder / "flowcraft.db"
    data = bytearray(path.read_bytes())
    data[20_000:24_000] = b"\xff" * 4_000
    path.write_bytes(data)

    assert problems(folder) != []


def problems(folder: Path) -> list[str]:
    try:
        return Database(folder).problems()
    except LedgerError as error:
        return [str(error)]


def test_nobody_checkpoints_while_another_connection_is_open(folder: Path) -> None:
    first, second = Database(folder), Database(folder)
    first.commit([(INSERT, ("one",))])

    beside = first.checkpoint(at_least_bytes=0)
    second.close()
    alone = first.checkpoint(at_least_bytes=0)

    assert (beside, alone) == (False, True)
    assert [row["id"] for row in first.rows("SELECT id FROM runs")] == ["one"]


def test_the_log_does_not_grow_with_the_number_of_commits(folder: Path) -> None:
    database = Database(folder)
    lengths = []
    for _ in range(3):
        for _ in range(CHECKPOINT_COMMITS):
            database.commit([("PRAGMA user_version=1", ())])
        lengths.append((folder / "flowcraft.db-wal").stat().st_size)

    assert lengths[2] < 1.5 * lengths[0]


GROWING = """
import os
from pathlib import Path
from flowcraft.runner.store.database import LOG_BLOCK, LOG_COMMITS, Database
database = Database(Path(".flowcraft"))
for number in range(2 * LOG_COMMITS):
    database.commit([(f"PRAGMA user_version={number}", ())])
print("blocks", os.stat(".flowcraft/flowcraft.db-wal").st_size // len(LOG_BLOCK))
"""


def test_the_log_is_made_longer_ahead_of_the_commits(workspace: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", GROWING], cwd=workspace, capture_output=True, text=True, check=False)

    assert ended.stdout == "blocks 1\n"


def test_the_log_takes_no_room_ahead_on_a_small_disk(tmp_path: Path) -> None:
    code = f"{shlex.quote(sys.executable)} -c {shlex.quote(GROWING)}"

    assert on_a_disk_of_its_own(tmp_path, code, "size=4m").stdout == "blocks 0\n"


WRITER = f"""
import sys
from pathlib import Path
from flowcraft.runner.store.database import Database
database = Database(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    database.commit([({INSERT!r}, (f"{{sys.argv[2]}}-{{number}}",))])
"""


def test_processes_write_side_by_side_without_one_being_locked_out(folder: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(name), "50"], stderr=subprocess.PIPE)
        for name in range(4)
    ]
    errors = [writer.communicate()[1].decode() for writer in writers]

    assert errors == ["", "", "", ""]
    assert Database(folder).rows("SELECT count(*) FROM runs")[0][0] == 200


def test_a_second_holder_of_a_run_is_refused_by_the_name_of_the_first(workspace: Path) -> None:
    lock = RunLock(workspace, "r1")

    with pytest.raises(UsageError, match=r"another process: pid \d+, since ") as caught:
        RunLock(workspace, "r1")
    with pytest.raises(UsageError, match="another process"):
        check_free(workspace, "r1")
    lock.release()

    assert caught.value.hint
    assert list(workspace.iterdir()) == []


def test_a_holder_that_has_not_yet_written_its_name_is_named(workspace: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    place = workspace / "r1.lock"
    place.write_text(json.dumps({"pid": dead.pid, "since": "yesterday"}))  # the one before it was killed
    with place.open("r+") as file, ThreadPoolExecutor() as pool:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = pool.submit(RunLock, workspace, "r1")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "since": "today"}))
        file.flush()

        with pytest.raises(UsageError, match=f"pid {os.getpid()}, since today"):
            second.result()


def test_the_lock_of_a_dead_process_is_free(workspace: Path) -> None:
    code = "import os, sys; from pathlib import Path; from flowcraft.runner.store.runlock import RunLock\n"
    code += "RunLock(Path(sys.argv[1]), 'r1'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(workspace)], check=False)
    left = (workspace / "r1.lock").exists()

    assert left
    assert not is_running(workspace, "r1")
    RunLock(workspace, "r1").release()
    assert list(workspace.iterdir()) == []


def test_a_database_of_the_first_version_is_brought_up_and_keeps_its_rows(folder: Path) -> None:
    path = made(
        folder,
        MIGRATIONS[0],
        f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version=1; PRAGMA journal_mode=WAL;",
        "INSERT INTO runs (number, id, pipeline, file, file_hash, status, inputs, options, started)"
        " VALUES (7, 'old', 'p', 'f', '', 'failed', '{}', '{}', '')",
        "INSERT INTO stages (run, path, kind, status, fingerprint, reusable)"
        " VALUES (7, 'a', 'prompt', 'succeeded', 'x', 1)",
        "INSERT INTO calls (id, run, path, state, session, event, key, choice, request, reserved, started)"
        " VALUES ('c', 7, 'a', 'answered', 1, 'first', 'k', '{}', '{}', '{}', '')",
    )

    database = Database(folder)
    database.commit([("UPDATE runs SET status = 'rejected'", ()), ("UPDATE stages SET status = 'interrupted'", ())])
    kept = [database.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("runs", "stages", "calls")]

    assert (database.version, kept, database.problems()) == (len(MIGRATIONS), [1, 1, 1], [])
    assert Records(database).run("old").replayed is False
    database.commit([("DELETE FROM runs", ())])
    assert [database.rows(f"SELECT count(*) FROM {table}")[0][0] for table in ("stages", "calls")] == [0, 0]
    assert path.exists()


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from flowcraft.runner.store.database import Database;"
        " Database(Path('.flowcraft'), create=False)"
    )
    script = (
        f"mkdir .flowcraft && touch .flowcraft/flowcraft.db && mount -o remount,ro {shlex.quote(str(tmp_path))}"
        f" && {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    )

    assert "the file system is read-only" in on_a_disk_of_its_own(tmp_path, script).stderr


def on_a_disk_of_its_own(place: Path, script: str, options: str = "rw") -> "subprocess.CompletedProcess[str]":
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs a mount of its own")
    there = shlex.quote(str(place))
    mount = f"mount -t tmpfs -o {options} none {there} && cd {there} && echo mounted >&2 && {script}"
    ended = subprocess.run([unshare, "-rm", "sh", "-c", mount], capture_output=True, text=True, check=False)
    if "mounted" not in ended.stderr:
        pytest.skip("needs a mount of its own")
    return ended
