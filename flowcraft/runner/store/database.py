"""The SQLite file of a workspace: opened safely, written by one connection behind one lock; the home of `sqlite3`.

WAL with synchronous=FULL: what a commit has acknowledged survives a power cut. SQLite before 3.51.3 can lose
the log if two connections write and checkpoint at the same moment, so nobody checkpoints unless he is
alone: every connection holds a shared lock on the folder, a checkpoint needs the exclusive one.
"""

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowcraft.core.disk import sync_folder
from flowcraft.core.errors import LedgerError, UsageError
from flowcraft.runner.store.ledger_schema import APPLICATION_ID, MIGRATIONS

FILE = "flowcraft.db"
BUSY_S = 30.0  # how long a commit waits for those of other processes; each takes milliseconds
ALONE_S = 10.0  # how long a migration waits for other processes to leave
CHECKPOINT_BYTES = 4 * 1024 * 1024  # of log that a new process does not leave behind
CHECKPOINT_COMMITS = 200  # between two checkpoints while we write
LOG_COMMITS = 4  # between two looks at how long the log has become
LOG_BLOCK = bytes(256 * 1024)  # what it is made longer by; a commit of a prompt stage writes 5 to 15 kB
LOG_ROOM = 256 * 1024 * 1024  # bytes free on the disk, below which it is not: others need them more

_MAGIC = b"SQLite format 3\0"
_KEEP_OUT = "*\n"  # .gitignore: what models have said is nobody else's business

# what SQLite says -> what it means, what to do; texts, because Python 3.10 knows no error codes
_MEANINGS = (
    ("disk is full", "the disk is full", "make space, then continue"),
    ("readonly database", "it cannot be written", "check the rights of the folder and its files"),
    ("unable to open", "it cannot be opened", "check the rights of the folder and its files"),
    ("locked", "another process holds it locked", "look for a program that keeps it open, then continue"),
    ("I/O error", "the disk reports an error", "check the disk, then continue"),
    (
        "malformed",
        "it is damaged",
        "keep a copy, then move flowcraft.db and flowcraft.db-wal away; FlowCraft makes a new one",
    ),
    ("not a database", "it is not a SQLite database", "move it away; FlowCraft then makes a new one"),
)


class Database:
    """The open database of `folder`; thread-safe. Raises LedgerError for whatever is wrong with it.

    Without `create` a missing file is a UsageError.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.path = folder / FILE
        self._place, self._log, self._log_bytes = str(self.path), f"{self.path}-wal", 0
        self._lock = threading.RLock()
        self.commits = 0
        self._guard: int | None = None
        self._inode = 0
        self._connection: sqlite3.Connection | None = None
        if create:
            _make_folder(folder)
        elif not self.path.exists():
            raise UsageError(f"there are no runs here: {self.path} does not exist", hint="flowcraft run PIPELINE")
        _look_at(self.path)
        try:
            with self._translated():
                self._open(folder)
        except BaseException:
            self.close()
            raise

    def commit(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> int:
        """Run `statements` in one transaction, of which nothing stays if one fails; the number of the last new row."""
        with self._lock:
            try:
                number = self._committed(statements)
                self.commits += 1
                if self.commits % CHECKPOINT_COMMITS == 0:
                    # The log keeps its length and is written again from its start: making a file longer costs more.
                    self.checkpoint("PASSIVE", at_least_bytes=0)
                return number
            except (sqlite3.Error, OSError) as error:
                raise self._meaning(error) from error

    def delete(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Commit `statements` that delete runs with all their rows: no table is searched for more."""
        with self._lock, self._translated():
            self._connected().execute("PRAGMA foreign_keys=OFF")
            try:
                self.commit(statements)
            finally:
                self._connected().execute("PRAGMA foreign_keys=ON")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of one query."""
        with self._lock:
            try:
                return self._connected().execute(sql, values).fetchall()
            except (sqlite3.Error, OSError) as error:
                raise self._meaning(error) from error

    def checkpoint(self, mode: str = "TRUNCATE", *, at_least_bytes: int = CHECKPOINT_BYTES) -> bool:
        """Move the log into the database if it is that long and no other process has it open."""
        with suppress(OSError):
            if os.stat(self._log).st_size >= at_least_bytes and self._lock_folder(fcntl.LOCK_EX):
                try:
                    self._connected().execute(f"PRAGMA wal_checkpoint({mode})")
                finally:
                    self._lock_folder(fcntl.LOCK_SH, wait_s=ALONE_S)
                return True
        return False

    def problems(self) -> list[str]:
        """What SQLite finds wrong in the file; empty if all is well."""
        found = [str(row[0]) for row in self.rows("PRAGMA integrity_check")]
        orphans = [f"a row of {row[0]} belongs to no run" for row in self.rows("PRAGMA foreign_key_check")]
        return [line for line in found if line != "ok"] + orphans

    @property
    def version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    def vacuum(self) -> None:
        """Give the space of deleted rows back to the disk; needs nobody else at work."""
        with self._lock, self._translated():
            self._connected().execute("VACUUM")

    def close(self) -> None:
        """Safe to call again. The last one out has SQLite move the log into the database."""
        with self._lock:
            if self._connection is not None:
                with suppress(sqlite3.Error):
                    self._connection.close()
                self._connection = None
            if self._guard is not None:
                os.close(self._guard)
                self._guard = None

    def _open(self, folder: Path) -> None:
        if os.statvfs(folder).f_flag & os.ST_RDONLY:  # without its files beside it, SQLite cannot tell what is current
            raise self._error("the file system is read-only", f"copy {folder} to a folder that can be written")
        self._guard = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not self._lock_folder(fcntl.LOCK_SH, wait_s=ALONE_S):
            raise self._error("another process has it for itself", "try again in a moment")
        if not self.path.exists():
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            sync_folder(self._guard)
        connection = sqlite3.connect(
            self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        self._connection = connection
        connection.row_factory = sqlite3.Row
        self._inode = os.stat(self.path).st_ino
        for pragma in ("synchronous=FULL", "fullfsync=ON", "wal_autocheckpoint=0", "trusted_schema=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        self._check_owner(connection)
        if self.version < len(MIGRATIONS) or self._mode() != "wal":
            self._bring_up(connection)
        connection.execute("PRAGMA foreign_keys=ON")  # only now: a table that is made anew must take nothing with it
        self.checkpoint()

    def _committed(self, statements: Iterable[tuple[str, Sequence[Any]]]) -> int:
        connection, number = self._connected(), 0
        self._check_place()
        execute = connection.cursor().execute
        execute("BEGIN IMMEDIATE")
        try:
            if self.commits % LOG_COMMITS == LOG_COMMITS - 1:
                self._lengthen_log()
            for sql, values in statements:
                number = execute(sql, values).lastrowid or 0
            execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return number

    def _lengthen_log(self) -> None:
        """Put zeros behind the log if it has outgrown those from before; only while nobody else may write it.

        A commit that makes the log longer has the file system write the length, too: it takes half as long again.
        To SQLite zeros are the end of the log.
        """
        with suppress(OSError):  # a full disk, or no log: then commits take as long as they take
            if os.stat(self._log).st_size > self._log_bytes and self._has_room():
                handle = os.open(self._log, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    length = os.fstat(handle).st_size
                    self._log_bytes = length + os.pwrite(handle, LOG_BLOCK, length)
                finally:
                    os.close(handle)

    def _has_room(self) -> bool:
        # On a disk that fills up, files of a stage must not fail while there is still room here to write that down.
        disk = os.statvfs(self._log)
        return disk.f_bavail * disk.f_frsize >= LOG_ROOM

    def _mode(self) -> str:
        return str(self.rows("PRAGMA journal_mode")[0][0])

    def _check_owner(self, connection: sqlite3.Connection) -> None:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != APPLICATION_ID and (owner or tables):
            raise self._error("it belongs to another program", "move it away; FlowCraft then makes a new one")
        if self.version > len(MIGRATIONS):
            raise self._error(
                f"it was written by a newer FlowCraft (version {self.version}, this one knows {len(MIGRATIONS)})",
                "update FlowCraft: pip install --upgrade flowcraft-sdk",
            )

    def _bring_up(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or bring them to our version; alone, because both change the file for all."""
        if not self._lock_folder(fcntl.LOCK_EX, wait_s=ALONE_S):
            if self.version == len(MIGRATIONS):
                return  # only the journal mode is left to the next one
            raise self._error("another process is using it while it has to be updated", "wait for the other run to end")
        try:
            if self._mode() != "wal" and connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                connection.execute("PRAGMA journal_mode=TRUNCATE")  # a file system without shared memory
            if missing := MIGRATIONS[self.version :]:
                connection.executescript(
                    f"BEGIN IMMEDIATE; {';'.join(missing)}; PRAGMA application_id={APPLICATION_ID};"
                    f"PRAGMA user_version={len(MIGRATIONS)}; COMMIT;"
                )
        finally:
            self._lock_folder(fcntl.LOCK_SH, wait_s=ALONE_S)

    def _lock_folder(self, kind: int, wait_s: float = 0.0) -> bool:
        assert self._guard is not None
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(self._guard, kind | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= until:
                    break
                time.sleep(0.005)
            except OSError:  # a file system without locks: nobody is ever known to be alone
                return kind == fcntl.LOCK_SH
        if kind == fcntl.LOCK_EX:  # a lock that is not granted is lost: take the old one again
            self._lock_folder(fcntl.LOCK_SH, wait_s=ALONE_S)
        return False

    def _check_place(self) -> None:
        # SQLite would go on writing into a file that was deleted, and nobody would ever read it.
        try:
            inode = os.stat(self._place).st_ino
        except FileNotFoundError:
            inode = 0
        if inode != self._inode:
            raise self._error("it was removed or replaced while it was in use", "start again: flowcraft run PIPELINE")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise self._error("it is closed", None)
        return self._connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._meaning(error) from error

    def _meaning(self, error: sqlite3.Error | OSError) -> LedgerError:
        if isinstance(error, OSError):
            return self._error(error.strerror or str(error), "check the folder and the disk")
        for text, meaning, hint in _MEANINGS:
            if text in str(error):
                return self._error(meaning, hint)
        return self._error(str(error), None)

    def _error(self, what: str, hint: str | None) -> LedgerError:
        return LedgerError(f"the ledger {self.path} cannot be used: {what}", hint=hint)


def _make_folder(folder: Path) -> None:
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)
        if folder.stat().st_uid == os.getuid() and folder.stat().st_mode & 0o077:
            folder.chmod(0o700)
        with suppress(FileExistsError):
            handle = os.open(folder / ".gitignore", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(handle, "w", encoding="utf-8") as file:
                file.write(_KEEP_OUT)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LedgerError(
            f"the folder of the ledger {folder} cannot be used: {reason}",
            hint="check its rights and the disk, or name another folder: --workspace",
        ) from error


def _look_at(path: Path) -> None:
    """Refuse what is no database of ours before SQLite touches it."""
    what = None
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            what = "it is not an ordinary file"
        elif path.exists():
            with path.open("rb") as file:
                start = file.read(16)
            # Zeros are left by a power cut in the very first write, of which SQLite has a journal.
            what = None if start == _MAGIC or not start.strip(b"\0") else "it is not a SQLite database"
    except OSError as error:
        what = error.strerror or str(error)
    if what:
        raise LedgerError(f"the ledger {path} cannot be used: {what}", hint="move it away, or check its rights")
