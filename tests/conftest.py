"""Every test starts in an empty folder and HOME, with no keys and proxies, and no way out but loopback."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from qwen_service import QwenProcess

# A busy machine must not fail a test: examples are counted, not timed.
hypothesis_settings.register_profile("flowcraft", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("flowcraft")

# A job in the background of a script ignores Ctrl-C and so do its children: here it is what some tests send them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_REAL_CONNECT = socket.socket.connect
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "FLOWCRAFT_TEST_WEIGHTS", "CI")


def _loopback_only(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"tests stay on this machine, but something connects to {address[0]}")
    _REAL_CONNECT(self, address)


@pytest.fixture(autouse=True)
def own_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name not in _KEPT and not name.startswith(("PYTEST", "COVERAGE", "COV_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(socket.socket, "connect", _loopback_only)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.chdir(workspace)


@pytest.fixture(scope="module")
def running() -> Iterator[QwenProcess]:
    """A Qwen service of our own in its own process, one for each module that asks for it."""
    with QwenProcess() as service:
        yield service


@pytest.fixture
def service(running: QwenProcess) -> QwenProcess:
    """The Qwen service as new."""
    running.reset()
    return running


@pytest.fixture
def workspace(own_world: None) -> Path:
    """The empty folder in which the test runs."""
    return Path.cwd()
