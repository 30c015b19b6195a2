"""The wire below the providers: connections that die, hang, fork or are proxied, and what errors may show."""

import contextlib
import gc
import gzip
import http.client
import os
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import responses
from servers import ChatServer, Handler, answer, raw, status, stream

from flowcraft.core.errors import Cancelled, DeadlineError, IncompleteStream, ProviderError, TransportError, UsageError
from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts
from flowcraft.llm.wire.http import Wire

TOKEN = "canary-token-0123456789"
SECRET = {"Authorization": f"Bearer {TOKEN}"}
LIMITS = Timeouts(connect=2, first_event=2, idle=2, total=5)


def post(
    wire: Wire, url: str, *, timeouts: Timeouts = LIMITS, scope: Scope | None = None, body: bytes = b"{}"
) -> bytes:
    scope = scope or Scope(timeouts.total)
    with wire.post(url, body, headers=SECRET, scope=scope, timeouts=timeouts, streamed=False) as reply:
        return reply.read()


def failure(url: str, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        post(Wire(), url, **options)
    return caught.value


@contextmanager
def listening(*, backlog: int = 5) -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as server:
        yield server


def url_of(server: socket.socket, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.getsockname()[1]}/v1"


# --- connections that are dead ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
def test_says_that_a_kept_connection_was_dead_instead_of_sending_twice(end: Any) -> None:
    with ChatServer(answer("a"), raw(end=end), answer("b")) as server:
        wire = Wire()
        post(wire, server.base_url)
        with pytest.raises(TransportError) as caught:
            post(wire, server.base_url)

        assert b'"b"' in post(wire, server.base_url)
        wire.close()

    assert (caught.value.stale, caught.value.sent, caught.value.retryable) == (True, True, True)
    assert (len(server.requests), server.connections) == (3, 2)


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "odd",
    [
        PLAIN + b"more",
        PLAIN + PLAIN,
        PLAIN.replace(b"200", b"500") + b"more",
        PLAIN.replace(b"Length: 2", b"Length: 0"),
        PLAIN.replace(b"200", b"500").replace(b"Length: 2", b"Length: 0"),
        PLAIN.replace(b"Content-Length: 2", b"Content-Encoding: gzip\r\nContent-Length: 0"),
        b"HTTP/1.1 200 OK\r\n" + CHUNKS + PLAIN,
        b"HTTP/1.1 500 No\r\n" + CHUNKS + b"more",
        b"HTTP/1.1 200 OK\r\n" + CHUNKS.replace(b"0\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\nmore"),
        PLAIN.replace(b"200 OK", b"204 No Content"),
        PLAIN.replace(b"200 OK", b"304 Not Modified"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n" + CHUNKS,
        b"HTTP/1.1 304 Not Modified\r\n" + CHUNKS[:36],
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
def test_a_connection_with_more_on_it_than_the_answer_is_used_no_more(odd: bytes) -> None:
    with ChatServer(raw(odd, end="keep"), answer("b")) as server:
        wire = Wire()
        with contextlib.suppress(ProviderError):
            post(wire, server.base_url)

        assert b'"b"' in post(wire, server.base_url)
        wire.close()

    assert server.connections == 2


@pytest.mark.parametrize(
    "usual",
    [
        PLAIN,
        PLAIN.replace(b"200", b"500"),
        b"HTTP/1.1 200 OK\r\n" + CHUNKS,
        b"HTTP/1.1 500 No\r\n" + CHUNKS,
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN,
        b"HTTP/1.1 200 OK\r\n" + CHUNKS.replace(b"0\r\n\r\n", b"0\r\nX-Trailer: a\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("cut", [1, 17, 40, 45, 200])
def test_a_connection_with_nothing_but_the_answer_is_used_again(usual: bytes, cut: int) -> None:
    with ChatServer(raw(usual[:cut], usual[cut:], end="keep", pause_s=0.01), answer("b")) as server:
        wire = Wire()
        post(wire, server.base_url)

        assert b'"b"' in post(wire, server.base_url)
        wire.close()

    assert server.connections == 1


def test_a_wire_without_kept_connections_takes_a_new_one_also_where_the_service_has_not_closed_yet() -> None:
    with ChatServer(raw(PLAIN, end="keep"), answer("b")) as server:
        wire = Wire(keep_alive=False)
        post(wire, server.base_url)
        post(wire, server.base_url)
        wire.close()

    assert server.connections == 2


def test_sends_nothing_twice_on_a_new_connection() -> None:
    message = "closed the connection before it answered"
    with ChatServer(raw(), answer("b")) as server, pytest.raises(TransportError, match=message) as caught:
        post(Wire(), server.base_url)

    assert len(server.requests) == 1
    assert not caught.value.stale


def test_a_kept_connection_that_breaks_after_a_while_may_have_been_at_work() -> None:
    with ChatServer(answer("a"), raw(b"", pause_s=1.1)) as server:
        wire = Wire()
        post(wire, server.base_url)
        with pytest.raises(TransportError) as caught:
            post(wire, server.base_url)
        wire.close()

    assert (caught.value.stale, caught.value.sent) == (False, True)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_sends_nothing_twice_after_the_first_byte(end: Any) -> None:
    with ChatServer(answer("a"), raw(b"H", end=end), answer("b")) as server:
        wire = Wire()
        post(wire, server.base_url)
        with pytest.raises(TransportError) as caught:
            post(wire, server.base_url)

    assert len(server.requests) == 2
    assert not caught.value.stale


def test_the_new_connection_is_new_even_if_other_kept_ones_are_dead_as_well() -> None:
    both = threading.Barrier(2)

    def together(handler: Any) -> None:
        both.wait(5)
        answer("a")(handler)

    with ChatServer(together, together, raw(), answer("b")) as server:
        wire = Wire()
        threads = [threading.Thread(target=post, args=(wire, server.base_url)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(TransportError):
            post(wire, server.base_url)
        post(wire, server.base_url)
        wire.close()

    assert server.requests[3].connection == 3


# --- requests on their way --------------------------------------------------------------------


@pytest.mark.parametrize("copies", [1, 255, 256, 2000])
def test_a_request_of_any_size_arrives_whole(copies: int) -> None:
    body = b'{"a": "%s"}' % (b"x" * 256 * copies)
    with ChatServer(answer("a")) as server:
        post(Wire(), server.base_url, body=body)

    assert server.requests[0].data == body


# --- answers of a known length ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "reset"])
def test_an_answer_shorter_than_its_length_was_cut_off(end: Any) -> None:
    with ChatServer(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", b'{"a": 1}', end=end)) as server:
        error = failure(server.base_url)

    assert isinstance(error, IncompleteStream)


def test_an_answer_of_a_known_length_ends_there_and_leaves_the_connection() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n", b'{"a"', b": 1}"
    with ChatServer(raw(*whole, end="keep")) as server:
        wire = Wire()
        assert [post(wire, server.base_url) for _ in range(2)] == [b'{"a": 1}'] * 2
        wire.close()

    assert server.connections == 1


# --- connections that never come --------------------------------------------------------------


@pytest.mark.parametrize("coding", ["chunked", "chunked ", "Chunked\t"])
@pytest.mark.parametrize("more", ["", "Content-Length: 3\r\n"])
def test_chunks_are_taken_out_of_the_body_with_blanks_behind_their_name_as_well(coding: str, more: str) -> None:
    head = f"HTTP/1.1 200 OK\r\n{more}Transfer-Encoding: {coding}\r\n\r\n".encode()
    with ChatServer(raw(head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", end="keep")) as server:
        assert post(Wire(), server.base_url) == b"abc"


def test_an_unknown_transfer_coding_is_refused() -> None:
    with ChatServer(raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")) as server:
        assert "its transfer coding is not chunked" in str(failure(server.base_url))


def test_a_refused_connection_was_never_sent() -> None:
    with listening() as server:
        url = url_of(server)
    error = failure(url)

    assert type(error) is TransportError
    assert (error.sent, error.retryable) == (False, True)
    assert "cannot connect to 127.0.0.1 port" in str(error)
    assert "refused" in str(error)


def test_an_unknown_host_was_never_sent() -> None:
    error = failure("http://no-such-host.invalid/v1")

    assert type(error) is TransportError
    assert (error.sent, error.retryable) == (False, True)
    assert "there is no address for no-such-host.invalid" in str(error)


@contextmanager
def never_accepting() -> Iterator[str]:
    """A server whose queue is full: further connections wait for ever."""
    with listening(backlog=0) as server:
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(server.getsockname())
            waiting.append(client)
        yield url_of(server)
        for client in waiting:
            client.close()


def test_connecting_has_its_own_limit() -> None:
    with never_accepting() as url:
        error = failure(url, timeouts=Timeouts(connect=0.3, total=20))

    assert isinstance(error, DeadlineError)
    assert "no connection after 0.3 s" in str(error)
    assert (error.sent, error.retryable) == (False, True)


def test_connecting_ends_with_the_total() -> None:
    with never_accepting() as url:
        error = failure(url, timeouts=Timeouts(connect=20, total=0.3))

    assert isinstance(error, DeadlineError)
    assert not error.retryable


def test_a_tls_handshake_that_hangs_has_the_limit_of_connecting() -> None:
    with listening() as server:
        error = failure(url_of(server, "https"), timeouts=Timeouts(connect=0.3, total=20))

    assert isinstance(error, DeadlineError)
    assert "no connection" in str(error)
    assert not error.sent


def test_a_service_that_does_not_read_is_given_up() -> None:
    with listening() as server:
        error = failure(url_of(server), timeouts=Timeouts(total=0.5), body=b"x" * 50_000_000)

    assert isinstance(error, DeadlineError)
    assert error.sent


def cancelled_while(url: str) -> BaseException:
    scope = Scope(30)
    caught: list[BaseException] = []

    def call() -> None:
        try:
            post(Wire(), url, scope=scope, timeouts=Timeouts(connect=20, total=30))
        except BaseException as error:
            caught.append(error)

    worker = threading.Thread(target=call)
    worker.start()
    threading.Event().wait(0.1)  # let it get stuck; cancelling earlier is as good
    scope.cancel()
    worker.join(2)
    assert not worker.is_alive()
    return caught[0]


def test_cancels_while_connecting() -> None:
    with never_accepting() as url:
        assert isinstance(cancelled_while(url), Cancelled)


def test_cancels_in_a_tls_handshake() -> None:
    with listening() as server:
        assert isinstance(cancelled_while(url_of(server, "https")), Cancelled)


@pytest.mark.parametrize("coding", ["gzip", "identity"])
def test_cancels_although_more_has_arrived_already(coding: str) -> None:
    body = b": ping\n" * 200_000
    body = gzip.compress(body) if coding == "gzip" else body
    written = threading.Event()

    def reply(handler: Handler) -> None:
        handler.head(headers={"Content-Encoding": coding, "Content-Length": str(len(body) + 1)})
        handler.write(body[:300_000])
        written.set()
        handler.hold()

    def cancel_after_the_first_piece(url: str) -> None:
        with Wire().post(url, b"{}", headers=SECRET, scope=scope, timeouts=LIMITS, streamed=True) as answered:
            assert written.wait(5)
            for piece in answered.chunks():
                pieces.append(piece)
                scope.cancel()

    scope, pieces = Scope(5), list[bytes]()
    with ChatServer(reply) as server, pytest.raises(Cancelled):
        cancel_after_the_first_piece(server.base_url)

    assert len(pieces) == 1


def test_a_cancel_that_comes_late_breaks_no_other_call() -> None:
    slow = threading.Event()
    with ChatServer(answer("a"), stream(slow, b"data: b\n\n")) as server:
        wire, scope = Wire(), Scope(30)
        done = wire.post(server.base_url, b"{}", headers={}, scope=scope, timeouts=LIMITS, streamed=False)
        done.read()  # from here on the connection is free, although the reply is not closed yet
        with wire.post(server.base_url, b"{}", headers={}, scope=Scope(30), timeouts=LIMITS, streamed=True) as reply:
            scope.cancel()
            slow.set()
            assert reply.read() == b"data: b\n\n"
        done.close()

    assert server.connections == 1


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real TLS server with a certificate that nobody knows; its URL and the certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    pem = tmp_path / "server.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", str(pem), "-out", str(tmp_path / "cert.pem")], check=True, capture_output=True)
    with ChatServer(answer("over TLS")) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "cert.pem", pem)
        server._server.socket = context.wrap_socket(
            server._server.socket, server_side=True, do_handshake_on_connect=False
        )
        yield server.base_url.replace("http://", "https://"), tmp_path / "cert.pem"


def test_trusts_the_certificates_that_the_environment_names(
    tls_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, certificate = tls_server
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    wire = Wire()

    assert b"over TLS" in post(wire, url)
    assert b"over TLS" in post(wire, url)
    wire.close()


def test_an_unknown_certificate_is_not_trusted_and_not_tried_again(tls_server: tuple[str, Path]) -> None:
    error = failure(tls_server[0])

    assert "certificate" in str(error)
    assert (error.sent, error.retryable) == (False, False)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


def test_says_that_the_service_speaks_plain_http() -> None:
    with ChatServer(answer("a")) as server:
        error = failure(server.base_url.replace("http://", "https://"))

    assert not error.retryable
    assert "http://" in str(error.hint)


def test_says_that_the_file_of_certificates_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    with listening() as server:
        error = failure(url_of(server, "https"))

    assert "/no/such/file.pem" in str(error)
    assert not error.sent


# --- proxies ----------------------------------------------------------------------------------


def test_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(answer("by proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        wire = Wire()
        monkeypatch.delenv("HTTP_PROXY")  # it is read once

        assert b"by proxy" in post(wire, "http://model.invalid/v1")
        wire.close()

    assert proxy.requests[0].path == "http://model.invalid/v1"


@pytest.mark.parametrize("direct", [True, False])
def test_goes_around_the_proxy_where_it_must(monkeypatch: pytest.MonkeyPatch, direct: bool) -> None:
    with ChatServer(answer("by proxy")) as proxy, ChatServer(answer("straight")) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        if not direct:
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        wire = Wire(direct=direct)

        assert b"straight" in post(wire, server.base_url)
        wire.close()

    assert proxy.requests == []


@contextmanager
def refusing_proxy(answer: bytes) -> Iterator[str]:
    """A proxy that gives this answer to CONNECT."""

    def refuse(handler: Any) -> None:
        handler.write(answer)
        handler.close_connection = True

    with ChatServer() as proxy:
        proxy._server.RequestHandlerClass.do_CONNECT = refuse  # type: ignore[attr-defined]
        try:
            yield f"http://me:hidden-password@127.0.0.1:{proxy.port}"
        finally:
            del proxy._server.RequestHandlerClass.do_CONNECT  # type: ignore[attr-defined]


def test_a_proxy_that_refuses_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        error = failure("https://model.invalid/v1")

    assert "proxy" in str(error)
    assert "hidden-password" not in str(error)
    assert (error.sent, error.retryable) == (False, False)


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:hidden-password@127.0.0.1:abc",
        "http://me:hidden-password@",
        "http://[::1",
        "http://",
        "nonsense://x",
        "socks5://127.0.0.1:1",
    ],
)
def test_a_proxy_that_is_no_address_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    error = failure("https://model.invalid/v1")

    assert "the address of the proxy" in str(error)
    assert "HTTPS_PROXY" in str(error.hint)
    assert (error.sent, error.retryable) == (False, False)
    assert "hidden-password" not in "".join(traceback.format_exception(error))


def test_says_what_a_proxy_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing_proxy(b"HTTP/1.1 403 Not For You\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        error = failure("https://model.invalid/v1")

    assert "403 Not For You" in str(error)


def test_a_file_of_certificates_that_is_none_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with listening() as server:
        error = failure(url_of(server, "https"))

    assert (error.sent, error.retryable) == (False, False)
    assert "REQUESTS_CA_BUNDLE" in str(error.hint)


# --- what errors may show ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "provoke",
    [
        lambda url: failure(url + "?key=query-canary-1"),
        lambda url: failure("http://127.0.0.1:1/v1?key=query-canary-1"),
        lambda url: failure(url.replace("http:", "https:") + "?key=query-canary-1"),
    ],
    ids=["closed", "refused", "TLS"],
)
def test_no_error_shows_a_token_or_a_query(provoke: Callable[[str], ProviderError]) -> None:
    with ChatServer(raw()) as server:
        error = provoke(server.base_url)

    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + repr(vars(error.__cause__))
    assert TOKEN not in shown
    assert "query-canary" not in "".join(str(item) for item in (error, repr(error), error.__cause__))
    chain: list[BaseException | None] = [error]
    while (last := chain[-1]) is not None:
        assert getattr(last, "request", None) is None
        chain.append(last.__cause__ or last.__context__)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_no_frame_of_a_traceback_holds_a_token(end: Any) -> None:
    with ChatServer(raw(end=end)) as server:
        error = failure(server.base_url, body=f"refresh_token={TOKEN}".encode())

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    shown = [repr(frame.f_locals) for frame in frames if "test" not in frame.f_globals["__name__"]]
    assert shown
    assert TOKEN not in "".join(shown)
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None


@pytest.mark.parametrize("line", ["HTTP/1.1 {}", "{} hello", "HTTP/{} 200 OK"])
def test_no_error_holds_the_line_that_is_no_http(line: str) -> None:
    with ChatServer(raw(f"{line.format(TOKEN)}\r\n\r\n".encode())) as server:
        error = failure(server.base_url)

    assert TOKEN not in "".join(traceback.format_exception(error))
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_deadline_keeps_no_foreign_error() -> None:
    with ChatServer(raw(end="hold")) as server:
        error = failure(server.base_url, timeouts=Timeouts(connect=2, first_event=0.1, idle=0.1, total=0.2))

    assert isinstance(error, DeadlineError)
    assert error.__context__ is None


def test_a_head_that_ends_too_early_for_http_client_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    head = f"HTTP/1.1 200 OK\r\nX-Id: a\r\n{TOKEN}\r\nContent-Length: 2\r\n\r\nab"
    with ChatServer(raw(head.encode())) as server:
        error = failure(server.base_url)

    assert "does not speak HTTP as it should" in str(error)
    assert TOKEN not in caplog.text + str(error)


def test_a_token_is_not_printed_where_all_connections_are_to_be_debugged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with ChatServer(answer("a")) as server:
        wire = Wire()
        post(wire, server.base_url)
        wire.close()

    assert TOKEN not in "".join(capsys.readouterr())


def test_nothing_kept_between_calls_holds_the_token() -> None:
    with ChatServer(answer("a")) as server:
        wire = Wire()
        post(wire, server.base_url)
        wire.close()

    kept = [vars(wire), *map(vars, wire._targets.values()), vars(next(iter(wire._targets.values())).prepared)]
    assert TOKEN not in repr(kept)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://model.test/v1",
        "model.test/v1",
        "http://",
        "http://me:hidden@model.test/v1",
        "http://me:hid/den?hidden#hidden@model.test/v1",
        "https://evil.test\\@model.test/v1",
        "http://model.test:port/v1",
        "http://[::1/v1",
        "http://model .test/v1",
        "",
    ],
)
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:1"])
def test_refuses_what_is_not_the_address_of_a_service(url: str, proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    with pytest.raises(UsageError, match="not the address of a service") as caught:
        post(Wire(), url)

    assert "hidden" not in str(caught.value)


# --- bodies -----------------------------------------------------------------------------------


def test_a_body_has_a_limit() -> None:
    with ChatServer(status(200, b"x" * 200_000)) as server:
        wire = Wire()
        with (
            wire.post(server.base_url, b"{}", headers={}, scope=Scope(5), timeouts=LIMITS, streamed=False) as reply,
            pytest.raises(TransportError, match="larger than 100000 bytes"),
        ):
            reply.read(100_000)


def test_the_reason_for_an_error_does_not_wait_for_a_slow_body() -> None:
    with (
        ChatServer(raw(b"HTTP/1.1 500 Oops\r\nContent-Length: 900\r\n\r\nbecause", end="hold")) as server,
        Wire().post(server.base_url, b"{}", headers={}, scope=Scope(5), timeouts=LIMITS, streamed=False) as reply,
    ):
        assert reply.opening(seconds=0.2) == b"because"


def test_an_answer_that_is_dropped_leaves_no_open_socket() -> None:
    with ChatServer(stream(b"data: a\n\n", end="hold", last_chunk=False)) as server:
        reply = Wire().post(server.base_url, b"{}", headers={}, scope=Scope(5), timeouts=LIMITS, streamed=True)
        assert next(reply.chunks()) == b"data: a\n\n"
        reply.close()

        assert server.left.wait(2)
    gc.collect()  # an open socket would be a ResourceWarning, and so an error


def test_closing_closes_the_kept_connections_at_once_even_if_somebody_still_knows_them() -> None:
    def answer_and_listen(handler: Any) -> None:
        answer("a")(handler)
        handler.hold()

    with ChatServer(answer_and_listen) as server:
        wire = Wire()
        post(wire, server.base_url)
        held = wire._adapter
        wire.close()

        assert server.left.wait(2)
        assert held is not None


# --- processes --------------------------------------------------------------------------------

FORKED = """
import os, sys
sys.path[:0] = sys.argv[2:]
from flowcraft.core.scope import Scope
from flowcraft.core.values import Timeouts
from flowcraft.llm.wire.http import Wire

wire = Wire()
limits = Timeouts(total=5)
def ask(word):
    with wire.post(sys.argv[1], word.encode(), headers={}, scope=Scope(5), timeouts=limits, streamed=False) as reply:
        return reply.read().decode()
assert ask('"parent"') == '"parent"'
children = []
for number in range(4):
    pid = os.fork()
    if not pid:
        try:
            good = all(ask(f'"{number} {turn}"') == f'"{number} {turn}"' for turn in range(10))
        except BaseException:
            good = False
        os._exit(0 if good else 1)
    children.append(pid)
good = all(ask('"parent"') == '"parent"' for _ in range(10))
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
sys.exit(0 if good and codes == [0] * 4 else f"{good} {codes}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_its_own_answers() -> None:
    def echo(handler: Any) -> None:
        status(200, handler.received.data)(handler)

    with ChatServer(echo) as server:
        done = subprocess.run(
            [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKED, server.base_url, *sys.path],
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert (done.returncode, done.stderr) == (0, "")
    assert server.connections == 5


def test_an_error_can_be_pickled() -> None:
    with ChatServer(raw()) as server:
        error = failure(server.base_url)
    error.__cause__ = error.__context__ = None

    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_adapter_is_one_that_test_libraries_can_intercept() -> None:
    with responses.RequestsMock() as service:
        service.post("https://model.test/v1", body=b"intercepted")

        assert post(Wire(), "https://model.test/v1") == b"intercepted"
        assert service.calls[0].request.headers["Authorization"] == f"Bearer {TOKEN}"
