"""The child process that holds the embedded model: started when needed, its failures told in sentences."""

import contextlib
import json
import logging
import re
import secrets
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from flowcraft.core.errors import DeadlineError, ProcessError, ProviderError, TransportError
from flowcraft.core.programs.child import Child
from flowcraft.core.programs.program import ending
from flowcraft.core.programs.variables import variables
from flowcraft.core.scope import Scope

log = logging.getLogger(__name__)

PROGRAM = "flowcraft.llm.local.llama_child"
ROOT = Path(__file__).parents[3]  # our package is importable there, and no module of the user's is in the way
INSTALL = "pip install 'flowcraft-sdk[embedded]'"
# llama.cpp's threads wait for each other by spinning. With libgomp's default, any other busy process
# makes it 20 to 50 times slower; with this it is about 10 % slower on an idle machine.
SPIN = "1000"
# What Python, its loader and the runtimes of llama.cpp look at.
NEEDED = (
    *("PYTHON*", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "MALLOC_*", "OMP_*", "GOMP_*"),
    *("GGML_*", "LLAMA_*", "CUDA_*", "HIP_*", "ROCR_*", "HSA_*", "VK_*", "MESA_*"),
)
DYING_S = 2.0  # a dying process closes its sockets first; on a busy machine its end is seen much later
PARAMS = {
    "n_parallel": 1,
    "n_predict": 512,  # its default is no limit, and a small model may never stop
    "cache_ram_mib": 0,  # its default of 8 GiB keeps every prompt
    "verbosity": 1,  # silent but for errors, which explain a failed start
    "endpoint_slots": False,
    "ui": False,
}
_LOG_LINE = re.compile(r"^[\d.]+ E (?:\w+ +)?(?:\w+: )?(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Llama:
    """A running server: its process, where it listens on loopback, and the key that nobody else has."""

    child: Child
    url: str
    key: str

    @property
    def alive(self) -> bool:
        """Whether it can be asked; it has nothing more to say on stdout, so a word or an end there is its end."""
        return self.child.alive and self.child.read_line(0.0) is None

    def why_dead(self) -> ProviderError | None:
        """End a server that has died and say of what; None if it lives."""
        if self.child.alive and self.child.read_line(DYING_S) is None:
            return None
        self.child.stop()
        return _death(self.child, sent=True)


def start(path: Path, *, context: int, scope: Scope) -> Llama:
    """Start a server for the GGUF file at `path` and wait until it can be asked.

    Raises ProviderError if the runtime or the file is not usable, Cancelled if the scope was.
    """
    key = secrets.token_urlsafe(32)
    environment = {"GOMP_SPINCOUNT": SPIN, **variables(NEEDED)}
    child = Child([sys.executable, "-m", PROGRAM], cwd=ROOT, env=environment)
    try:
        wish = {"path": str(path.absolute()), "alias": path.stem, "api_key": key, "params": PARAMS | {"n_ctx": context}}
        with contextlib.suppress(ProcessError):  # it has died: `read_line` finds out
            child.write(json.dumps(wish).encode() + b"\n", scope=scope)
        answer = child.read_line(scope=scope)
        if answer is None:
            raise DeadlineError(
                f"the embedded model was not ready within the time limit ({path.name})",
                provider="embedded",
                sent=False,
                hint="raise llm.timeouts.total",
            )
        result = json.loads(answer or b"{}")
        if "url" not in result:
            child.stop()
            raise _failure(result, child, path)
    except BaseException:
        child.stop(grace_s=0.0)
        raise
    log.info("embedded model %s is ready (process %d)", path.name, child.pid)
    return Llama(child, result["url"], key)


def _failure(result: dict[str, str], child: Child, path: Path) -> ProviderError:
    if not result:
        return _death(child, sent=False)
    message = result["message"]
    if result["error"] == "import":
        return _missing(message)
    reasons = _LOG_LINE.findall(child.stderr.decode("utf-8", "replace"))
    return _error(
        f"llama.cpp cannot use '{path}': {reasons[0] if reasons else message}",
        hint="check the file, or download it again; it must be a GGUF of a chat model",
    )


def _missing(message: str) -> ProviderError:
    if "libgomp" in message:
        return _error(
            f"the embedded model needs a system library: {message}",
            hint="install it: apt-get install libgomp1 (Debian, Ubuntu), dnf install libgomp (Fedora)",
        )
    if "xllamacpp" in message:
        return _error("the embedded model needs the package xllamacpp", hint=INSTALL)
    return _error(f"the runtime of the embedded model cannot be loaded: {message}", hint=INSTALL)


def _death(child: Child, *, sent: bool) -> ProviderError:
    code = child.returncode or 0
    if code == -signal.SIGILL:
        return _error(
            "the runtime of the embedded model uses instructions that this processor lacks (SIGILL)",
            hint="choose another model in settings, or run where the processor has AVX2",
        )
    hint = "there may be too little memory" if code == -signal.SIGKILL else child.error("").output or None
    return TransportError(
        f"the process of the embedded model has ended ({ending(code)})",
        provider="embedded",
        retryable=True,
        sent=sent,
        hint=hint,
    )


def _error(message: str, *, hint: str) -> ProviderError:
    return ProviderError(message, provider="embedded", sent=False, hint=hint)
