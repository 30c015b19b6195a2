"""The credential file: what is refused, with which words, and that it is never changed."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcraft.llm.oauth.credentials import Credentials, CredentialsError, NoCredentials, default_path, digest, read

GOOD = {"access_token": "at-secret", "refresh_token": "rt-secret", "token_type": "Bearer", "expiry_date": 4e12}


@pytest.fixture
def path(workspace: Path) -> Path:
    folder = workspace / ".qwen"
    folder.mkdir(mode=0o700)
    return folder / "oauth_creds.json"


def put(path: Path, content: object, mode: int = 0o600) -> Path:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(data)
    path.chmod(mode)
    return path


def test_reads_what_the_cli_writes(path: Path) -> None:
    put(path, {**GOOD, "resource_url": "portal.qwen.ai", "expiry_date": 1_700_000_000_000})

    found = read(path)

    assert (found.access_token, found.refresh_token) == ("at-secret", "rt-secret")
    assert found.resource_url == "portal.qwen.ai"
    assert found.expires_at_s == 1_700_000_000
    assert not found.alive()


def test_hides_tokens_in_every_text(path: Path) -> None:
    found = read(put(path, GOOD))

    assert "secret" not in f"{found!r} {found} {[found]}"
    assert "secret" not in digest("secret")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (json.dumps(GOOD)[:40].encode(), "is not JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b'"at-secret"', "holds no JSON object"),
        (b"\xef\xbb\xbf" + json.dumps(GOOD).encode(), "byte order mark"),
        (b"\xff\xfe{", "is not JSON"),
        (b'{"x": ' + b"[" * 60_000, "is not JSON"),
        (b'{"access_token": "at-secret", "n": NaN}', "is not JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b" " * 10_000_000 + b"{}", "is larger than 64 KiB"),
        ({}, "has no usable access_token"),
        ({**GOOD, "access_token": ""}, "has no usable access_token"),
        ({**GOOD, "access_token": 7}, "has no usable access_token"),
        ({**GOOD, "access_token": "at-secret\r\nX-Other: 1"}, "has no usable access_token"),
        ({**GOOD, "access_token": "at secret"}, "has no usable access_token"),
        ({**GOOD, "access_token": "at-secreté"}, "has no usable access_token"),
    ],
    ids=range(17),
)
def test_refuses_a_damaged_file_and_leaves_it_alone(path: Path, content: object, words: str) -> None:
    put(path, content)
    before = path.read_bytes(), path.stat().st_mtime_ns

    with pytest.raises(CredentialsError) as refused:
        read(path)

    assert words in str(refused.value)
    assert str(path) in str(refused.value)
    assert refused.value.hint
    assert "secret" not in f"{refused.value!r} {refused.value.hint} {refused.value.__cause__}"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_says_how_to_sign_in_where_there_is_no_file(path: Path) -> None:
    with pytest.raises(NoCredentials, match="not signed in") as refused:
        read(path)

    assert "flowcraft auth login qwen" in str(refused.value.hint)


def test_refuses_a_folder(path: Path) -> None:
    path.mkdir()

    with pytest.raises(CredentialsError, match="is not a regular file"):
        read(path)


def test_does_not_hang_on_a_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)

    with pytest.raises(CredentialsError, match="is not a regular file"):
        read(path)


def test_refuses_a_loop_of_links(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)

    with pytest.raises(CredentialsError, match="loop of symbolic links"):
        read(path)


def test_follows_a_link(path: Path) -> None:
    put(path.with_name("elsewhere.json"), GOOD)
    path.symlink_to("elsewhere.json")

    assert read(path).access_token == "at-secret"


@pytest.mark.parametrize("mode", [0o602, 0o622, 0o666])
def test_refuses_a_file_that_everybody_may_write(path: Path, mode: int) -> None:
    put(path, GOOD, mode)

    with pytest.raises(CredentialsError, match="may be written by other users") as refused:
        read(path)

    assert f"chmod go-w {path}" in str(refused.value.hint)


def test_refuses_a_folder_that_everybody_may_write(path: Path) -> None:
    put(path, GOOD)
    path.parent.chmod(0o777)

    with pytest.raises(CredentialsError, match="folder that other users may write"):
        read(path)


def test_reads_a_file_that_others_may_read(path: Path) -> None:
    assert read(put(path, GOOD, 0o644)).access_token == "at-secret"


@pytest.fixture
def of_root() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize(("owner", "mode", "words"), [(65534, 0o000, "may not be read"), (1, 0o644, "another user")])
def test_refuses_what_does_not_belong_to_the_user(of_root: Path, owner: int, mode: int, words: str) -> None:
    path = put(of_root / "oauth_creds.json", GOOD, mode)
    os.chown(path, owner, owner)
    os.seteuid(65534)
    try:
        with pytest.raises(CredentialsError, match=words) as refused:
            read(path)
    finally:
        os.seteuid(0)

    assert str(path) in str(refused.value)


@pytest.mark.parametrize("expiry", [None, "soon", True, [], 1e400])
def test_uses_a_token_of_unknown_life_until_the_service_refuses_it(path: Path, expiry: object) -> None:
    assert read(put(path, json.dumps({**GOOD, "expiry_date": expiry}).replace("Infinity", "1e400").encode())).alive()


@pytest.mark.parametrize("expiry", [0, -1, 1_795_391_202])
def test_takes_an_absurd_expiry_for_past(path: Path, expiry: float) -> None:
    assert not read(put(path, {**GOOD, "expiry_date": expiry})).alive()


@pytest.mark.parametrize("token", [None, "", 5, "two words", "line\nbreak"])
def test_knows_no_refresh_token_where_there_is_none_to_send(path: Path, token: object) -> None:
    assert read(put(path, {**GOOD, "refresh_token": token})).refresh_token == ""


def test_looks_twice_at_a_file_that_is_being_written_in_place(path: Path) -> None:
    # The second look is 50 ms later; this writer needs less.
    put(path, b'{"access_token": "at-')
    writer = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(1); open(sys.argv[1], 'w').write(sys.argv[2])", path,
         json.dumps(GOOD)], stdin=subprocess.PIPE,
    )  # fmt: skip
    with writer:
        assert writer.stdin is not None
        deadline_s = time.monotonic() + 10
        writer.stdin.write(b"x")
        writer.stdin.flush()
        found: Credentials | None = None
        while found is None and time.monotonic() < deadline_s:
            try:
                found = read(path)
            except CredentialsError:
                continue

    assert found is not None
    assert found.access_token == "at-secret"


def test_finds_the_file_where_the_cli_keeps_it(monkeypatch: pytest.MonkeyPatch, workspace: Path) -> None:
    assert default_path() == Path.home() / ".qwen" / "oauth_creds.json"
    monkeypatch.setenv("QWEN_HOME", "~/elsewhere")
    assert default_path() == Path.home() / "elsewhere" / "oauth_creds.json"
    monkeypatch.setenv("QWEN_HOME", "here")
    assert default_path() == workspace / "here" / "oauth_creds.json"


@settings(max_examples=30)  # each look at damaged bytes is made twice, 50 ms apart
@given(st.binary(max_size=300))
def test_answers_any_bytes_with_credentials_or_a_typed_error(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = put(Path(folder) / "oauth_creds.json", data)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with pytest.raises(CredentialsError):
            read(path)
        assert path.read_bytes() == data
