"""`flowcraft auth` as a user runs it, against a sign-in service on loopback."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from qwen_parts import ROOT, settings, write
from qwen_service import CANARY, QwenProcess

from flowcraft.cli.main import run_command


@pytest.fixture
def path(service: QwenProcess, workspace: Path) -> Path:
    found = workspace / "home of qwen" / "oauth_creds.json"
    settings(workspace, service, found)
    return found


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command line; gives exit code, stdout and stderr, in which there is never a secret."""

    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        code = run_command(["auth", *arguments])
        out, err = capsys.readouterr()
        assert CANARY not in out + err
        assert "Traceback" not in err
        return code, out, err

    return run


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_signs_in_with_a_code_and_keeps_the_login(run: Run, service: QwenProcess, path: Path) -> None:
    service.script(token=["pending", "ok"])

    code, out, err = run("login", "qwen")

    assert code == 0, err
    assert "ABCD-1234" in err
    assert f"http://127.0.0.1:{service.port}/authorize?user_code=ABCD-1234" in err
    assert str(path) in out
    assert content(path)["access_token"].startswith(CANARY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_signs_in_as_the_cli_does(run: Run, service: QwenProcess, path: Path) -> None:
    run("login", "qwen")

    asked, polled = service.requests()
    assert asked["form"]["code_challenge_method"] == "S256"
    assert asked["form"]["scope"] == "openid profile email model.completion"
    assert len(asked["headers"]["x-request-id"]) == 36
    assert list(polled["form"]) == ["grant_type", "client_id", "device_code", "code_verifier"]
    assert len(polled["form"]["code_verifier"]) == 43


@pytest.mark.parametrize(("reply", "words"), [("denied", "the user said no"), ("expired", "did not work")])
def test_a_refused_sign_in_changes_nothing(run: Run, service: QwenProcess, path: Path, reply: str, words: str) -> None:
    service.script(token=[reply])

    code, _, err = run("login", "qwen")

    assert code == 1
    assert words in err
    assert not path.exists()


def test_waits_on_when_told_to_slow_down(run: Run, service: QwenProcess, path: Path) -> None:
    service.script(token=["slow_down", "500", "ok"])

    assert run("login", "qwen")[0] == 0


def test_gives_up_when_nobody_agrees(run: Run, service: QwenProcess, path: Path) -> None:
    service.script(token=["pending"] * 99)

    code, _, err = run("login", "qwen", "--timeout", "1.5")

    assert code == 1
    assert "nobody agreed" in err


def test_ctrl_c_stops_the_wait_and_changes_nothing(service: QwenProcess, path: Path) -> None:
    service.script(token=["pending"] * 99)
    child = subprocess.Popen(
        [sys.executable, "-m", "flowcraft", "auth", "login", "qwen"],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert child.stderr is not None
    while "Waiting" not in child.stderr.readline():
        pass

    child.send_signal(signal.SIGINT)

    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert not path.exists()


def test_a_damaged_file_is_told_before_anybody_signs_in(run: Run, service: QwenProcess, path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{")

    code, _, err = run("login", "qwen")

    assert code == 1
    assert str(path) in err
    assert "move the file away" in err
    assert service.requests() == []
    assert path.read_text() == "{"


def test_a_new_login_keeps_fields_of_others(run: Run, service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True, mine=1))

    assert run("login", "qwen")[0] == 0

    assert content(path)["mine"] == 1


def test_status_tells_who_until_when_and_where(run: Run, service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())

    code, out, _ = run("status")

    assert code == 0
    assert "login of the qwen-code CLI" in out
    assert str(path) in out
    assert "good until 20" in out


def test_status_tells_that_an_expired_login_renews_itself(run: Run, service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))

    code, out, _ = run("status", "--json")

    facts = json.loads(out)
    assert code == 0
    assert facts["access token"].startswith("expired 20")
    assert "renewed" in facts["refresh token"]


def test_status_tells_how_to_sign_in(run: Run, path: Path) -> None:
    code, out, _ = run("status")

    assert code == 1
    assert "flowcraft auth login qwen" in out


def test_status_names_the_key_that_is_used_and_does_not_show_it(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASHSCOPE_API_KEY", f"sk-{CANARY}")
    _, out, _ = run("status")

    assert "API key in $DASHSCOPE_API_KEY" in out
    assert "https://dashscope.aliyuncs.com" in out


def test_is_about_the_model_that_the_settings_use(
    run: Run, service: QwenProcess, path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = workspace / "mine" / "login.json"
    (workspace / "settings.yaml").write_text(
        f"""\
llm:
  cheap_model: [far, near]
  models:
    far: {{provider: openai, model: x, base_url: "https://far.example/v1"}}
    near:
      provider: qwen-code
      model: qwen3-max
      oauth_path: {own}
      oauth_base_url: {service.base_url}
      allowed_hosts: ["127.0.0.1"]
    abroad: {{provider: qwen-code, model: qwen3-max, region: singapore}}
"""
    )

    assert run("login", "qwen")[0] == 0
    assert (own.exists(), path.exists()) == (True, False)
    facts = json.loads(run("status", "--json")[1])
    assert (facts["model"], facts["file"], facts["service"]) == ("near (qwen3-max)", str(own), service.resource_url)
    monkeypatch.setenv("DASHSCOPE_API_KEY", f"sk-{CANARY}")
    assert "https://dashscope-intl.aliyuncs.com/" in run("status", "--model", "abroad")[1]
    assert run("logout", "--yes")[0] == 0
    assert not own.exists()


def test_status_shows_where_the_token_goes_not_where_its_file_would_send_it(
    run: Run, service: QwenProcess, path: Path, workspace: Path
) -> None:
    write(path, service.credentials(resource_url="https://evil.example/v1"))

    code, out, _ = run("status")
    assert code == 1
    assert "evil" not in out
    assert "allowed_hosts" in out

    file = workspace / "settings.yaml"
    file.write_text(file.read_text().replace('allowed_hosts: ["127.0.0.1"]', "base_url: https://qwen.example/v1"))
    code, out, _ = run("status")
    assert code == 0, out
    assert "https://qwen.example/v1" in out


def test_status_tells_a_key_that_cannot_be_one_of_the_plan(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAILIAN_CODING_PLAN_API_KEY", f"sk-{CANARY}")

    code, out, _ = run("status")

    assert code == 1
    assert "sk-sp-" in out


def test_the_vendors_ended_tier_is_no_matter_of_a_private_service(run: Run, service: QwenProcess, path: Path) -> None:
    assert "free tier" not in run("login", "qwen")[2]


def test_signs_out_after_asking(run: Run, service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())

    code, _, err = run("logout", typed="n\n")
    assert (code, path.exists()) == (1, True)
    assert "The qwen-code CLI is signed out, too" in err
    assert "nothing was deleted" in err
    assert "interrupted" not in err

    code, out, _ = run("logout", typed="y\n")
    assert (code, path.exists()) == (0, False)
    assert "signed out" in out


def test_does_not_sign_out_without_an_answer(run: Run, service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())

    assert run("logout")[0] == 130
    assert path.exists()
    assert run("logout", "--yes")[0] == 0
    assert not path.exists()
    assert run("logout", "--yes")[0] == 2


def test_asks_for_a_qwen_model(run: Run, path: Path) -> None:
    code, _, err = run("status", "--model", "kiro-cli")

    assert code == 2
    assert "is no qwen-code model" in err
