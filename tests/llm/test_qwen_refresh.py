"""The refresh of a login: every good and bad answer of the service, locks, peers, threads.

Each case runs against a service in another process, over a real socket.
"""

import json
import logging
import os
import stat
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qwen_parts import QUICK, python, source, write
from qwen_service import CANARY, QwenProcess

from flowcraft.core.errors import Cancelled, DeadlineError, ProviderError, RateLimitError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.llm.oauth import login, session
from flowcraft.llm.oauth.credentials import CredentialsError, LoginRequired, NoCredentials, read
from flowcraft.llm.oauth.locks import OwnLock, PeerLock
from flowcraft.llm.oauth.session import Patience
from flowcraft.llm.oauth.wire import oauth_service


@pytest.fixture
def path(workspace: Path) -> Path:
    return workspace / ".qwen" / "oauth_creds.json"


def scope() -> Scope:
    return Scope(20.0)


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.parent.iterdir()}


def content(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_uses_a_living_token_as_it_is(service: QwenProcess, path: Path) -> None:
    fields = service.credentials()
    write(path, fields)

    assert source(path, service).current(scope()).access_token == fields["access_token"]
    assert service.counts()["token requests"] == 0
    assert files(path) == {"oauth_creds.json"}


def test_refreshes_an_expired_token_and_saves_it(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expired=True, id_token="kept", mine={"also": ["kept"]})
    before_ns = write(path, fields).stat().st_mtime_ns

    found = source(path, service).current(scope())

    after = content(path)
    assert found.access_token == after["access_token"] != fields["access_token"]
    assert after["refresh_token"] != fields["refresh_token"]
    assert (after["id_token"], after["mine"]) == ("kept", {"also": ["kept"]})
    assert list(after)[:5] == ["access_token", "token_type", "refresh_token", "resource_url", "expiry_date"]
    assert 20_000 < after["expiry_date"] / 1000 - time.time() < 21_700
    assert isinstance(after["expiry_date"], int)
    assert path.stat().st_mtime_ns > before_ns
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files(path) == {"oauth_creds.json", "oauth_creds.json.flowcraft.lock"}


def test_asks_as_the_cli_does(service: QwenProcess, path: Path) -> None:
    fields = write(path, service.credentials(expired=True, refresh_token="rt with/odd+signs".replace(" ", "~")))

    with pytest.raises(LoginRequired):
        source(fields, service).current(scope())

    asked = service.requests()[0]
    assert list(asked["form"]) == ["grant_type", "refresh_token", "client_id"]
    assert asked["form"]["refresh_token"] == "rt~with/odd+signs"
    assert asked["headers"]["content-type"] == "application/x-www-form-urlencoded"


def test_the_mtime_grows_even_where_the_old_one_lies_in_the_future(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    future_ns = time.time_ns() + 3_600_000_000_000
    os.utime(path, ns=(future_ns, future_ns))

    source(path, service).current(scope())

    assert path.stat().st_mtime_ns / 1e6 > future_ns / 1e6


def test_refreshes_ahead_of_the_end(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expiry_date=int((time.time() + 50) * 1000))
    write(path, fields)

    assert source(path, service).current(scope()).access_token != fields["access_token"]


def test_gets_another_token_for_a_refused_one(service: QwenProcess, path: Path) -> None:
    fields = service.credentials()
    write(path, fields)
    tokens = source(path, service)

    new = tokens.after_refusal(fields["access_token"], scope())

    assert new.access_token != fields["access_token"]
    assert tokens.after_refusal(fields["access_token"], scope()).access_token == new.access_token
    assert service.counts()["refreshed"] == 1


def test_one_refresh_for_many_threads_that_find_it_expired(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["slow"])
    tokens = source(path, service)

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: tokens.current(scope()).access_token, range(16)))

    assert set(found) == {content(path)["access_token"]}
    assert service.counts()["token requests"] == 1


def test_one_refresh_for_many_sources_whose_token_was_refused(service: QwenProcess, path: Path) -> None:
    refused = service.credentials()
    write(path, refused)
    service.script(token=["slow"])

    def ask(_: int) -> str:
        return source(path, service).after_refusal(refused["access_token"], scope()).access_token

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(ask, range(16)))) == 1
    assert service.counts()["token requests"] == 1


@pytest.mark.parametrize("reply", ["400", "401", "error-200", "400-empty", "echo"])
def test_a_refused_login_is_over_and_its_file_untouched(service: QwenProcess, path: Path, reply: str) -> None:
    write(path, service.credentials(expired=True))
    before = path.read_bytes(), path.stat().st_mtime_ns
    service.script(token=[reply] * 5)
    tokens = source(path, service)

    for _ in range(2):
        with pytest.raises(LoginRequired, match="the login in .* is over") as over:
            tokens.current(scope())
        assert "flowcraft auth login qwen" in str(over.value.hint)
        assert CANARY not in f"{over.value!r} {over.value} {over.value.__cause__!r}"

    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert service.counts()["token requests"] == 1


def test_threads_that_wait_for_one_refresh_share_its_failure(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["held-then-dropped"])
    tokens = source(path, service, Patience())
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(tokens.current, scope()) for _ in range(8)]
        wait_for(lambda: service.counts()["held"] == 1)
        wait_for(lambda: [flight.waiting for flight in session._FLIGHTS._running.values()] == [8])
        service.do("open")
        errors = [answer.exception() for answer in answers]

    assert {type(error) for error in errors} == {LoginRequired}
    assert len({id(error) for error in errors}) == 8  # each caller may note its own facts on its error
    assert service.counts()["token requests"] == 1


def test_a_lock_that_was_made_anew_is_put_back(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials())
    lock = path.parent / "oauth_creds.lock"
    lock.write_text("of a program that was quicker")
    with OwnLock(path, scope()) as own:
        PeerLock(path.parent, own, scope())._take_away(lambda aside: False)

    assert lock.read_text() == "of a program that was quicker"
    assert files(path) == {"oauth_creds.json", "oauth_creds.json.flowcraft.lock", "oauth_creds.lock"}


def test_a_lost_answer_is_told_and_not_asked_for_twice(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    before = path.read_bytes()
    service.script(token=["cut-after-use"])

    with pytest.raises(LoginRequired, match="its answer was lost"):
        source(path, service).current(scope())

    assert path.read_bytes() == before
    assert service.counts()["token requests"] == 1


def test_a_newer_login_that_a_peer_writes_meanwhile_is_used(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    newer = service.credentials()
    service.script(token=["held"])
    tokens = source(path, service, Patience(peer_s=10.0))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        spent = content(path)["refresh_token"]
        spend(service, spent)
        service.do("open")
        wait_for(lambda: service.counts()["refused"] == 1)
        write(path, newer)

        assert answer.result().access_token == newer["access_token"]
    assert content(path) == newer


def spend(service: QwenProcess, refresh_token: str) -> None:
    """Another program redeems the token."""
    oauth_service(service.base_url).refresh(refresh_token, scope())


def wait_for(true: Any) -> None:
    until_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < until_s, "it never happened"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("reply", "requests", "kind"),
    [
        ("429", 3, RateLimitError),
        ("429-long", 1, RateLimitError),
        ("500", 3, TransportError),
        ("403", 1, TransportError),
        ("html", 1, TransportError),
        ("400-html", 1, TransportError),
        ("empty", 1, TransportError),
        ("not-object", 1, TransportError),
        ("no-token", 1, TransportError),
        ("bad-token", 1, TransportError),
    ],
)
def test_a_service_in_trouble_costs_a_bounded_number_of_requests(
    service: QwenProcess, path: Path, reply: str, requests: int, kind: type[ProviderError]
) -> None:
    write(path, service.credentials(expired=True))
    before = path.read_bytes()
    service.script(token=[reply] * 10)

    with pytest.raises(kind) as failed:
        source(path, service).current(scope())

    assert service.counts()["token requests"] == requests
    assert path.read_bytes() == before
    assert CANARY not in f"{failed.value!r} {failed.value}"
    assert not isinstance(failed.value, LoginRequired)
    # What was tried again here must not be multiplied by the call; a long wish of the service is the call's to respect.
    assert failed.value.retryable is (reply == "429-long")


@pytest.mark.parametrize("reply", ["429", "html", "no-token", "cut-after-use"])
def test_no_frame_of_a_failure_holds_a_token(service: QwenProcess, path: Path, reply: str) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=[reply] * 10)

    with pytest.raises(ProviderError) as failed:
        source(path, service).current(scope())

    chain = [failed.value, failed.value.__cause__, failed.value.__context__]
    frames = [frame for error in chain if error for frame, _ in traceback.walk_tb(error.__traceback__)]
    shown = [repr(frame.f_locals) for frame in frames if "test" not in frame.f_globals["__name__"]]
    assert shown
    assert CANARY not in "".join(shown)


@pytest.mark.parametrize("reply", ["429", "500"])
def test_recovers_when_the_service_does(service: QwenProcess, path: Path, reply: str) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=[reply, "ok"])

    assert source(path, service).current(scope()).access_token == content(path)["access_token"]


@pytest.mark.parametrize("reply", ["429-long", "400", "html", "cut-after-use"])
def test_the_old_token_serves_while_it_lives(service: QwenProcess, path: Path, reply: str) -> None:
    fields = service.credentials(expiry_date=int((time.time() + 50) * 1000))
    write(path, fields)
    service.script(token=[reply] * 5)
    tokens = source(path, service)

    assert [tokens.current(scope()).access_token for _ in range(5)] == [fields["access_token"]] * 5
    assert service.counts()["token requests"] == 1


def test_keeps_the_refresh_token_where_no_new_one_comes(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expired=True)
    write(path, fields)
    service.script(token=["no-refresh"])

    source(path, service).current(scope())

    assert content(path)["refresh_token"] == fields["refresh_token"]


@pytest.mark.parametrize(
    ("reply", "least_s", "most_s"),
    [
        ("no-expiry", 3590, 3610),
        ("str-expiry", 3590, 3610),
        ("zero-expiry", 3590, 3610),
        ("neg-expiry", 3590, 3610),
        ("huge-expiry", 3590, 3610),
        ("short-expiry", 110, 130),
    ],
)
def test_an_absurd_life_makes_no_storm(
    service: QwenProcess, path: Path, reply: str, least_s: float, most_s: float
) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=[reply] * 20)

    for _ in range(20):
        source(path, service).current(scope())

    assert service.counts()["token requests"] == 1
    assert least_s < content(path)["expiry_date"] / 1000 - time.time() < most_s


@pytest.mark.parametrize("reply", ["evil-url", "http-url", "no-url"])
def test_keeps_the_resource_url_where_no_good_one_comes(
    service: QwenProcess, path: Path, reply: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, service.credentials(expired=True, resource_url="portal.qwen.ai"))
    service.script(token=[reply])

    source(path, service).current(scope())

    assert content(path)["resource_url"] == "portal.qwen.ai"
    assert ("resource_url" in caplog.text) == (reply != "no-url")


def test_keeps_fields_that_it_does_not_know(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True, resource_url=None, future="field"))
    service.script(token=["no-url"])

    source(path, service).current(scope())

    assert content(path)["future"] == "field"
    assert "resource_url" not in content(path)


def test_an_expired_login_without_refresh_token_is_over(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True, refresh_token=None))

    with pytest.raises(LoginRequired, match="has no refresh token"):
        source(path, service).current(scope())

    assert service.counts()["token requests"] == 0


def test_a_missing_file_is_no_login(service: QwenProcess, path: Path) -> None:
    with pytest.raises(NoCredentials):
        source(path, service).current(scope())

    assert not path.parent.exists()


def test_a_link_stays_a_link(service: QwenProcess, path: Path) -> None:
    real = write(path.parent.parent / "vault" / "creds.json", service.credentials(expired=True))
    path.parent.mkdir()
    path.symlink_to(real)

    found = source(path, service).current(scope())

    assert path.is_symlink()
    assert read(real).access_token == found.access_token


def test_spends_nothing_where_the_answer_could_not_be_saved(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expired=True)
    write(path, fields)
    (path.parent / "oauth_creds.json.flowcraft.lock").mkdir()

    with pytest.raises(CredentialsError, match="cannot make .*flowcraft.lock"):
        source(path, service).current(scope())

    assert service.counts()["token requests"] == 0


def test_spends_nothing_on_a_full_disk(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    before = path.read_bytes()
    # The nearest thing to a full disk that needs no disk: no file may grow.
    child = python(
        "import resource, sys; from flowcraft.core.scope import Scope; from qwen_parts import worker_source\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "worker_source(*sys.argv[1:]).current(Scope(20))",
        path,
        service.base_url,
    )

    _, err = child.communicate(timeout=60)

    assert "cannot be replaced" in err
    assert service.counts()["token requests"] == 0
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*.tmp"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_spends_nothing_in_a_folder_that_cannot_be_written(service: QwenProcess) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        os.chmod(folder, 0o755)
        path = write(Path(folder) / "qwen" / "oauth_creds.json", service.credentials(expired=True))
        os.chown(path, 65534, 65534)
        os.chmod(path.parent, 0o555)
        os.seteuid(65534)
        try:
            with pytest.raises(CredentialsError, match="cannot make .*: Permission denied"):
                source(path, service).current(scope())
        finally:
            os.seteuid(0)
    assert service.counts()["token requests"] == 0


def test_a_forked_child_waits_for_its_parent_and_shares_the_answer(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["held"])
    child = python(
        """
import os, sys, threading
from flowcraft.core.scope import Scope
from qwen_parts import worker_source
tokens = worker_source(*sys.argv[1:])
def ask(): print(hash(tokens.current(Scope(20)).access_token), flush=True)
first = threading.Thread(target=ask)
first.start()
sys.stdin.readline()  # the parent's request is under way
if os.fork() == 0:
    ask()
    os._exit(0)
first.join()
os.wait()
""",
        path,
        service.base_url,
    )
    wait_for(lambda: service.counts()["held"] == 1)
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()
    service.do("open")

    out, err = child.communicate(timeout=60)

    assert len(out.split()) == 2, err
    assert len(set(out.split())) == 1
    assert service.counts()["token requests"] == 1


def test_keeps_an_answer_that_cannot_be_saved_in_memory(
    service: QwenProcess, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["held"])
    tokens = source(path, service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        damaged = b'{"access_token": '
        path.write_bytes(damaged)
        service.do("open")
        found = answer.result()

    assert found.access_token.startswith(CANARY)
    assert path.read_bytes() == damaged
    assert "lives in this process only" in caplog.text
    assert CANARY not in caplog.text


def test_saves_an_answer_as_soon_as_it_can_be_saved(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    before = path.read_bytes()
    service.script(token=["held"])
    tokens = source(path, service, replace(QUICK, again_s=0.0))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        path.write_bytes(b"{")
        service.do("open")
        found = answer.result()
    path.write_bytes(before)

    assert tokens.current(scope()).access_token == found.access_token == content(path)["access_token"]
    assert service.counts()["token requests"] == 1


def test_a_login_that_came_meanwhile_is_kept(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    newer = service.credentials()
    service.script(token=["held"])
    tokens = source(path, service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        write(path, newer)
        service.do("open")

        assert answer.result().access_token == newer["access_token"]
    assert content(path) == newer


def test_puts_back_a_file_that_a_losing_cli_deletes(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    tokens = source(path, service)
    found = tokens.current(scope())
    path.unlink()

    assert tokens.current(scope()).access_token == found.access_token
    assert content(path)["access_token"] == found.access_token
    assert service.counts()["token requests"] == 1


def test_does_not_put_back_what_the_user_has_signed_out_of(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    tokens = source(path, service)
    tokens.current(scope())
    login.remove(path, scope())

    with pytest.raises(NoCredentials):
        tokens.current(scope())
    assert not path.exists()


def test_a_file_deleted_during_the_refresh_is_written_again(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["held"])
    tokens = source(path, service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        path.unlink()
        service.do("open")

        assert answer.result().access_token == content(path)["access_token"]


def test_goes_on_where_an_exiting_cli_takes_the_lock_away(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    service.script(token=["held"])
    first, second = source(path, service), source(path, service)
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(first.current, scope())]
        wait_for(lambda: service.counts()["held"] == 1)
        (path.parent / "oauth_creds.lock").unlink()
        answers.append(pool.submit(second.current, scope()))
        service.do("open")

        assert len({answer.result().access_token for answer in answers}) == 1
    assert service.counts()["token requests"] == 1


def test_stays_to_put_back_what_the_cli_deletes_that_took_the_lock_away(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expired=True)
    write(path, fields)
    service.script(token=["held"])
    tokens = source(path, service, Patience(peer_s=2.0))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        (path.parent / "oauth_creds.lock").unlink()
        service.do("open")
        wait_for(lambda: content(path)["access_token"] != fields["access_token"])
        path.unlink()
        found = answer.result()

    assert content(path)["access_token"] == found.access_token


def test_leaves_a_lock_alone_that_another_program_has_made_meanwhile(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    lock = path.parent / "oauth_creds.lock"
    service.script(token=["held"])
    tokens = source(path, service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        lock.unlink()
        lock.write_text("of somebody else")
        service.do("open")
        answer.result()

    assert lock.read_text() == "of somebody else"


@pytest.mark.parametrize("age_s", [0, 9, 11, 34])
def test_waits_for_the_lock_of_a_cli(service: QwenProcess, path: Path, age_s: float) -> None:
    fields = service.credentials(expired=True)
    write(path, fields)
    lock = path.parent / "oauth_creds.lock"
    lock.write_text("11111111-1111-4111-8111-111111111111")
    os.utime(lock, (time.time() - age_s, time.time() - age_s))

    with pytest.raises(DeadlineError):
        source(path, service).current(Scope(0.2))

    assert lock.exists()
    assert service.counts()["token requests"] == 0


def test_uses_what_the_cli_has_written_when_it_lets_go(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    lock = path.parent / "oauth_creds.lock"
    lock.write_text("11111111-1111-4111-8111-111111111111")
    newer = service.credentials()
    tokens = source(path, service)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(tokens.current, scope())
        wait_for(lambda: (path.parent / "oauth_creds.json.flowcraft.lock").exists())
        write(path, newer)
        lock.unlink()

        assert answer.result().access_token == newer["access_token"]
    assert service.counts()["token requests"] == 0


def test_takes_over_a_stale_lock(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    lock = path.parent / "oauth_creds.lock"
    lock.write_text("11111111-1111-4111-8111-111111111111")
    os.utime(lock, (time.time() - 36, time.time() - 36))

    source(path, service).current(scope())

    assert service.counts()["refreshed"] == 1
    assert files(path) == {"oauth_creds.json", "oauth_creds.json.flowcraft.lock"}


def test_keeps_its_lock_fresh_while_the_service_is_slow(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    lock = path.parent / "oauth_creds.lock"
    service.script(token=["held"])
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(source(path, service, Patience()).current, scope())
        wait_for(lambda: service.counts()["held"] == 1)
        os.utime(lock, (0, 0))
        wait_for(lambda: lock.stat().st_mtime > time.time() - 5)
        service.do("open")
        answer.result()


def test_a_cancelled_caller_leaves_at_once_and_the_answer_is_saved(service: QwenProcess, path: Path) -> None:
    fields = service.credentials(expired=True)
    write(path, fields)
    service.script(token=["held"])
    own = scope()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(source(path, service, Patience()).current, own)
        wait_for(lambda: service.counts()["held"] == 1)
        own.cancel()
        with pytest.raises(Cancelled):
            answer.result(timeout=10)
    assert content(path) == fields

    service.do("open")

    wait_for(lambda: content(path)["access_token"] != fields["access_token"])
    assert source(path, service).current(scope()).access_token == content(path)["access_token"]


def test_a_cancelled_caller_that_still_waits_for_a_lock_asks_nothing(service: QwenProcess, path: Path) -> None:
    write(path, service.credentials(expired=True))
    lock = path.parent / "oauth_creds.lock"
    lock.write_text("11111111-1111-4111-8111-111111111111")
    own = scope()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(source(path, service).current, own)
        wait_for(lambda: (path.parent / "oauth_creds.json.flowcraft.lock").exists())
        own.cancel()
        with pytest.raises(Cancelled):
            answer.result(timeout=10)
    wait_for(lambda: not any(thread.name == "flowcraft-refresh" for thread in threading.enumerate()))

    assert lock.exists()
    assert service.counts()["token requests"] == 0


def test_a_clock_that_jumps_costs_one_refresh(service: QwenProcess, path: Path) -> None:
    # Seen from the file: what an hour's jump forward makes of it, and one back.
    tokens = source(path, service)
    write(path, service.credentials(expiry_date=int((time.time() - 10) * 1000)))
    for _ in range(10):
        tokens.current(scope())
    write(path, {**content(path), "expiry_date": int((time.time() + 7 * 3600) * 1000)})
    for _ in range(10):
        tokens.current(scope())

    assert service.counts()["token requests"] == 1


def test_no_token_in_the_log(service: QwenProcess, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for reply in ("ok", "400", "echo", "not-object", "html", "evil-url", "bad-token"):
        write(path, service.credentials(expired=True))
        service.script(token=[reply])
        tokens = source(path, service)
        try:
            repr(tokens.current(scope()))
        except ProviderError as error:
            logging.getLogger("test").exception("%r", error)

    assert caplog.records
    assert CANARY not in caplog.text
    assert CANARY not in "".join(repr(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize("url", ["http://gateway.example", "ftp://x", "https://u:p@host"])
def test_an_unsafe_sign_in_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="oauth_base_url must be https"):
        oauth_service(url)


def test_quick_patience_is_that_of_the_product_but_for_two_waits() -> None:
    assert QUICK.retries == Patience().retries
    assert QUICK.margin_s == Patience().margin_s
