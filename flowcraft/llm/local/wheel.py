"""Get one wheel with the tool the user installs packages with, so that index and proxy settings hold.

That is pip of this Python, or uv where there is no pip (an environment made by uv has none). Nothing
is installed: pip leaves the wheel in the given folder, uv its unpacked files.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from flowcraft.core.errors import DeadlineError, ProcessError, TransportError
from flowcraft.core.programs.process import Completed, run
from flowcraft.core.programs.variables import variables
from flowcraft.core.reading.secrets import masked
from flowcraft.core.scope import Scope

NETWORK_SIGNS = (b"Retrying (", b"ConnectionError", b"ProxyError", b"SSLError", b"timed out", b"error sending request")
NO_ROOM_SIGN = b"No space left on device"
# No cache of theirs: it would keep a second copy of what we keep.
PIP = ("-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "download", "--no-cache-dir")
UV = ("--quiet", "--no-cache", "pip", "install", "--python", sys.executable)
NEEDED = (
    *("PIP_*", "UV_*", "PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_LIBRARY_PATH", "DYLD_*", "NETRC"),
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
ONE_WHEEL = ("--no-deps", "--only-binary", ":all:")


def fetch(requirement: str, folder: Path, scope: Scope, options: Sequence[str] = ()) -> None:
    """Put the wheel (or its files) of `requirement` into `folder`, which also takes all temporary files.

    `options` are such that both tools know, like `--find-links`.
    Raises TransportError if that failed, DeadlineError at the scope's limit, Cancelled if the scope was.
    """
    done = _try([sys.executable, *PIP, *ONE_WHEEL, "--dest", str(folder), *options, requirement], folder, scope)
    if b"No module named pip" in done.stderr:
        uv = shutil.which("uv")
        if uv is None:
            raise TransportError(
                "there is neither pip nor uv to download with",
                sent=False,
                hint=f"install pip: {sys.executable} -m ensurepip",
            )
        done = _try([uv, *UV, *ONE_WHEEL, "--target", str(folder), *options, requirement], folder, scope)
    if done.returncode != 0:
        raise _failure(requirement, done)


def _try(command: list[str], folder: Path, scope: Scope) -> Completed:
    try:
        return run(command, env={**variables(NEEDED), "TMPDIR": str(folder)}, scope=scope)
    except ProcessError as error:
        if scope.expired:
            raise DeadlineError("the download took longer than the call may", sent=False, hint="try again") from error
        raise TransportError(f"the download failed: {error}", sent=False, hint=error.hint) from error


def _failure(requirement: str, done: Completed) -> TransportError:
    output = done.stderr.decode("utf-8", "replace").strip()
    lines = [line for line in output.splitlines() if line.lower().lstrip().startswith("error")] or output.splitlines()
    what = masked(lines[0].strip()) if lines else str(done.error())
    hint = f"see what this says: {sys.executable} -m pip download --no-deps {requirement}"
    if NO_ROOM_SIGN in done.stderr:
        what, hint = "the disk is full", "make room, or let FLOWCRAFT_CACHE name a folder on another disk"
    elif any(sign in done.stderr for sign in NETWORK_SIGNS):
        hint = "check the network, and the index and proxy that pip uses (`pip config list`)"
    return TransportError(f"{requirement} could not be downloaded: {what}", sent=False, hint=hint)
