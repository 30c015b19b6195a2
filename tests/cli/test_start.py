"""What `flowcraft` says before it has imported its command line is the same as with it."""

import os
import subprocess
import sys

import pytest

from flowcraft.__main__ import answer
from flowcraft.cli.main import run_command


@pytest.mark.parametrize("columns", ["80", "200"])
@pytest.mark.parametrize("argv", [["--version"], ["--help"], ["-h"]])
def test_version_and_help_are_those_of_the_parser(
    argv: list[str], columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    assert run_command(argv) == 0
    assert answer(argv) == capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["run"], ["run", "--help"], ["--version", "--help"], ["--vers"]])
def test_all_else_is_left_to_the_parser(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    assert answer(argv) is None


def test_a_narrow_terminal_has_the_parser_break_the_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")

    assert answer(["--help"]) is None


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_neither_needs_the_parser(argument: str) -> None:
    source = f"""
import sys
from flowcraft.__main__ import main
sys.argv = ["flowcraft", {argument!r}]
main()
assert "click" not in sys.modules and "json" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={**os.environ, "COLUMNS": "80"}, check=True
    )

    assert "flowcraft" in done.stdout


@pytest.mark.parametrize("argument", ["--version", "--help"])
def test_a_full_disk_gets_words_and_not_a_traceback(argument: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no full device here")
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "flowcraft", argument], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )

    assert done.returncode == 1, done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
