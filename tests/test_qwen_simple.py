"""One real request to Qwen3 Coder Plus with your own login or key: `python tests/test_qwen_simple.py`.

Without credentials it says in plain words what to do. As a pytest module it checks this script against a
service on loopback; set FLOWCRAFT_LIVE=1 to have it make the real request, too.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve()
if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))  # a checkout that is not installed

MODEL = "qwen3-coder-plus"
ENVIRONMENT = dict(os.environ)  # the tests themselves run without the user's keys and home


def main() -> int:
    """Make the request and tell about it; 0 also where there are no credentials to make it with."""
    from flowcraft.core.errors import AuthError, FlowcraftError
    from flowcraft.core.settings import SettingsManager
    from flowcraft.llm.base import LLMMessage
    from flowcraft.llm.integration import LLMIntegration

    say = sys.stdout.write
    try:
        with LLMIntegration(SettingsManager()) as llm:
            missing = llm.provider(llm.choose(model=MODEL).model).missing()
            if missing:
                say(f"skipped: {MODEL} needs {missing}\n{_WHAT_TO_DO}")
                return 0
            question = [LLMMessage("user", "Reply with the single word: ready")]
            answer = llm.chat_completion(question, model=MODEL, max_tokens=20, timeout=60)
    except AuthError as error:
        say(f"failed: {error}\n  help: {error.hint}\n{_WHAT_TO_DO}")
        return 1
    except FlowcraftError as error:
        say(f"failed: {error}\n  help: {error.hint}\n")
        return error.exit_code
    say(f"{answer.model} by {answer.provider} answered: {answer.content.strip()}\nusage: {answer.usage}\n")
    return 0


_WHAT_TO_DO = """\
There are three ways to reach it:
  1. an API key of Model Studio:         export DASHSCOPE_API_KEY=sk-...
  2. an API key of the Coding Plan:      export BAILIAN_CODING_PLAN_API_KEY=sk-sp-...
  3. a login as of the qwen-code CLI:    flowcraft auth login qwen
     (Qwen has ended its free tier on 2026-04-15: such a login may be refused)
`flowcraft auth status` shows which of them is used.
"""


if __name__ == "__main__":
    sys.exit(main())

import pytest  # noqa: E402 - the script runs without it
from qwen_parts import ROOT, settings, write  # noqa: E402
from qwen_service import CANARY, QwenProcess  # noqa: E402


@pytest.fixture
def service() -> Iterator[QwenProcess]:
    with QwenProcess() as running:
        yield running


def script(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(HERE)],
        capture_output=True, text=True, timeout=120, env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_script_explains_what_to_do_without_credentials() -> None:
    done = script(dict(os.environ))

    assert done.returncode == 0, done.stderr
    assert "skipped: qwen3-coder-plus needs a login or an API key" in done.stdout
    assert "export DASHSCOPE_API_KEY" in done.stdout


def test_the_script_asks_with_the_login_of_the_user(service: QwenProcess, workspace: Path) -> None:
    path = write(workspace / ".qwen" / "oauth_creds.json", service.credentials(expired=True))
    settings(workspace, service, path)

    done = script(dict(os.environ))

    assert "answered: Hello, world" in done.stdout, done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_the_script_explains_a_service_that_has_ended(service: QwenProcess, workspace: Path) -> None:
    path = write(workspace / ".qwen" / "oauth_creds.json", service.credentials())
    settings(workspace, service, path)
    service.script(chat=["401"] * 5)

    done = script(dict(os.environ))

    assert done.returncode == 1
    assert "ended its free tier" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not os.environ.get("FLOWCRAFT_LIVE"), reason="a real request: set FLOWCRAFT_LIVE=1")
def test_one_real_request() -> None:
    done = script(ENVIRONMENT)

    assert done.returncode == 0, done.stdout + done.stderr
