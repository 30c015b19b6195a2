"""What a program has done to a folder, recorded from outside with strace: every write, sync, rename and removal.

Nothing inside the program is touched. A call that was under way while others happened counts at its end; what a sync
makes durable is what was there at its beginning.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PATIENCE_S = 120.0

_CHANGING = "creat,write,pwrite64,ftruncate,truncate,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir"
_OTHER = "open,openat,fsync,fdatasync,utimensat,sendto"
# Whatever else changes a file would be missed: it is traced, too, so that it can be refused.
_UNKNOWN = "writev,pwritev,pwritev2,fallocate,link,linkat,symlink,symlinkat,copy_file_range,sendfile,sync_file_range"

_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)")
_TEXT = r'"((?:\\x[0-9a-f]{2})*)"'
_AT = r"(?:AT_FDCWD|\d+)<([^>]*)>"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that was done; `path` is relative to the folder, `at` an offset, a size or a time.

    Kinds: make, folder, write, resize, touch, move (to `other`), remove, begin and end of a sync,
    said (`data` was printed), sent (`data` has left through a socket).
    """

    kind: str
    path: str = ""
    other: str = ""
    at: int = 0
    data: bytes = b""


def usable() -> bool:
    """Whether programs can be traced here."""
    words = ["strace", "-f", "-y", "-xx", "--seccomp-bpf", "-o", os.devnull, "true"]
    return (
        shutil.which("strace") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


def traced(words: Sequence[str], folder: Path, aside: Path, env: Mapping[str, str]) -> tuple[int, list[Step]]:
    """Run a program in `folder`; its exit code and what it has done there. `aside` takes what is printed."""
    aside.mkdir(parents=True, exist_ok=True)
    trace, printed = aside / "trace", aside / "printed"
    calls = f"trace={_CHANGING},{_OTHER},{_UNKNOWN}"
    options = ["-f", "-y", "-xx", "-s", "100000000", "--seccomp-bpf", "-e", calls, "-e", "signal=none"]
    with printed.open("wb") as out:
        done = subprocess.run(
            ["strace", *options, "-o", str(trace), *words],
            cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    with trace.open(encoding="ascii", errors="replace") as lines:
        return done.returncode, list(_Reader(folder.resolve(), printed.resolve()).steps(lines))


class _Reader:
    """Makes steps of the lines of a trace."""

    def __init__(self, root: Path, printed: Path) -> None:
        self._root = str(root)
        self._printed = str(printed)
        self._begun: dict[str, str] = {}
        self._ends: dict[str, int] = {}  # where the next plain write to a file goes

    def steps(self, lines: Iterator[str]) -> Iterator[Step]:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                continue
            thread, resumed, rest = match.groups()
            if resumed:
                rest = self._begun.pop(thread) + rest
            elif rest.endswith("<unfinished ...>"):
                self._begun[thread] = rest.removesuffix("<unfinished ...>")
                if rest.startswith(("fsync", "fdatasync")):
                    yield from self._sync("begin", rest)
                continue
            yield from self._step(rest, whole=not resumed)

    def _step(self, text: str, *, whole: bool) -> Iterator[Step]:
        match = _CALL.match(text)
        if match is None or int(match[3]) < 0:
            return
        name, arguments = match[1], match[2]
        if name in ("fsync", "fdatasync"):
            if whole:
                yield from self._sync("begin", arguments)
            yield from self._sync("end", arguments)
        elif name in _UNKNOWN.split(",") and self._root in _plain(arguments):
            raise AssertionError(f"a call that the simulation does not know: {text[:300]}")
        elif name in ("open", "openat", "creat"):
            yield from self._opened(arguments, name)
        elif name in ("write", "pwrite64", "sendto"):
            yield from self._written(name, arguments)
        else:
            yield from self._changed(name, arguments)

    def _sync(self, kind: str, arguments: str) -> Iterator[Step]:
        path = self._inside(_held(arguments))
        if path is not None:
            yield Step(kind, path)

    def _opened(self, arguments: str, name: str) -> Iterator[Step]:
        path = self._inside(_named(arguments, 0))
        if path is None:
            return
        self._ends[path] = 0
        if "O_CREAT" in arguments or name == "creat":
            yield Step("make", path)
        if "O_TRUNC" in arguments or name == "creat":
            yield Step("resize", path)
        assert "O_APPEND" not in arguments, "appending is not simulated"

    def _written(self, name: str, arguments: str) -> Iterator[Step]:
        place = _held(arguments)
        found = re.search(_TEXT + r", (\d+)(?:, (\d+))?", arguments)
        assert found
        data = bytes.fromhex(found[1].replace("\\x", ""))
        if name == "sendto":
            yield Step("sent", data=data)
        elif place == self._printed:
            yield Step("said", data=data)
        elif (path := self._inside(place)) is not None:
            at = int(found[3]) if name == "pwrite64" else self._ends.get(path, 0)
            self._ends[path] = at + len(data) if name == "write" else self._ends.get(path, 0)
            yield Step("write", path, at=at, data=data)

    def _changed(self, name: str, arguments: str) -> Iterator[Step]:
        if name == "ftruncate" or (name == "utimensat" and ", NULL" in arguments):
            path, tail = self._inside(_held(arguments)), arguments.rsplit(",", 1)[1]
            if path is not None and name == "ftruncate":
                yield Step("resize", path, at=int(tail))
            elif path is not None and (times := re.findall(r"tv_sec=(\d+), tv_nsec=(\d+)", arguments)):
                yield Step("touch", path, at=int(times[-1][0]) * 10**9 + int(times[-1][1]))
            return
        path = self._inside(_named(arguments, 0))
        if path is None:
            return
        if name.startswith("rename"):
            yield Step("move", path, self._inside(_named(arguments, 1)) or "")
        elif name in ("unlink", "unlinkat", "rmdir"):
            yield Step("remove", path)
        elif name.startswith("mkdir"):
            yield Step("folder", path)

    def _inside(self, path: str) -> str | None:
        if path == self._root:
            return "."
        return path[len(self._root) + 1 :] if path.startswith(self._root + "/") else None


def _plain(text: str) -> str:
    return re.sub(r"(?:\\x[0-9a-f]{2})+", lambda found: os.fsdecode(bytes.fromhex(found[0].replace("\\x", ""))), text)


def _held(arguments: str) -> str:
    """The path behind a file descriptor."""
    found = re.search(r"\d+<([^>]*)>", arguments)
    return _plain(found[1]) if found else ""


def _named(arguments: str, number: int) -> str:
    """The path that is the argument `number` among the paths, absolute."""
    named = re.findall(rf"(?:{_AT}, )?{_TEXT}", arguments)
    folder, name = (_plain(part) for part in named[number])
    return os.path.normpath(os.path.join(folder, name))
