"""Agents that are known by name: how they are started, and which variables they may see."""

import tempfile
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from shutil import rmtree

from flowcraft.core.programs.variables import variables

_SET = {"NO_COLOR": "1", "TERM": "dumb"}


@dataclass(frozen=True, slots=True)
class Preset:
    """A known agent: the command line of its ACP mode, its own variables, how to install it and log in.

    `asks` is the mode in which it asks before it uses a tool; some start in one in which they do not.
    `authenticates`: whether it knows the method `authenticate`. `evict`: the method that makes it
    forget a session, where it does not say so itself.
    """

    command: tuple[str, ...]
    variables: tuple[str, ...] = ()
    install: str = ""
    login: str = "log in with the agent's own command"
    asks: str | None = None
    authenticates: bool = True
    evict: str | None = None


PRESETS: Mapping[str, Preset] = {
    "kiro": Preset(
        ("kiro-cli", "acp", "--agent-engine", "v2"),
        ("KIRO_*",),
        "install Kiro CLI from its vendor, kiro.dev (the packages named kiro-cli on PyPI and npm are something else)",
        "run `kiro-cli login`, or set KIRO_API_KEY",
        authenticates=False,
        evict="_kiro.dev/session/terminate",
    ),
    "qwen": Preset(
        ("qwen", "--acp"),
        ("QWEN_*", "OPENAI_*", "DASHSCOPE_*", "BAILIAN_*"),
        "npm install -g @qwen-code/qwen-code",
        "run `qwen` once and log in, or set OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_MODEL",
        asks="default",
    ),
    "gemini": Preset(
        ("gemini", "--acp"),
        ("GEMINI_*", "GOOGLE_*"),
        "npm install -g @google/gemini-cli",
        "run `gemini` once and log in, or set GEMINI_API_KEY",
        asks="default",
    ),
    "opencode": Preset(
        ("opencode", "acp"),
        ("OPENCODE_*", "*_API_KEY"),
        "npm install -g opencode-ai",
        "run `opencode auth login`",
    ),
    "claude": Preset(
        ("claude-agent-acp",),
        ("ANTHROPIC_*", "CLAUDE_*"),
        "npm install -g @agentclientprotocol/claude-agent-acp",
        "run `claude` once and log in, or set ANTHROPIC_API_KEY",
        asks="default",
    ),
    "codex": Preset(
        ("codex-acp",),
        ("CODEX_*", "OPENAI_*"),
        "npm install -g @agentclientprotocol/codex-acp",
        "run `codex login`, or set OPENAI_API_KEY",
        asks="read-only",
    ),
}


def environment(patterns: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables a program gets: the common ones and those whose name matches one of `patterns`."""
    return {**variables(patterns, environ), **_SET}


class EmptyFolder:
    """A folder of our own for programs that read what lies around them; gone when it is closed or forgotten."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="flowcraft-")
        self._remove = weakref.finalize(self, rmtree, self.path, ignore_errors=True)

    def close(self) -> None:
        """Remove it and all that is in it."""
        self._remove()
