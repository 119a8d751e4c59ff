"""What `go2hooks doctor` finds out about an egress proxy, whatever answers as one."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from go2hooks.cli.egress_check import check_egress_proxy
from go2hooks.settings import Settings

CHALLENGED = b'HTTP/1.1 407 Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'
NOWHERE, FORBIDDEN, OPEN = (f"HTTP/1.1 {said}\r\n\r\n".encode() for said in ("503 No", "403 No", "200 OK"))


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """The port of what says these to one connection after the other, and what it is asked. Nothing: it hangs up."""
    asked: list[bytes] = []

    def serve() -> None:
        for answer in answers:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    asked.append(connection.recv(65536))
                    connection.sendall(answer)
                    while answer and connection.recv(65536):
                        pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1], asked
        thread.join()


def found(port: int, **options: object) -> list[tuple[str, str]]:
    settings = Settings(egress_proxy=f"http://user:hunter2@127.0.0.1:{port}", **options)  # type: ignore[arg-type]
    findings = [
        (finding.detail.replace(f"127.0.0.1:{port}", "it"), finding.remedy) for finding in check_egress_proxy(settings)
    ]
    assert "hunter2" not in str(findings)
    return findings


def test_without_a_proxy_there_is_nothing_to_check():
    assert list(check_egress_proxy(Settings())) == []


def test_a_proxy_that_takes_our_credentials_and_refuses_the_inside_is_as_it_should_be():
    with answering(NOWHERE, FORBIDDEN) as (port, asked):
        assert found(port) == [
            ("it answers and takes our credentials", ""),
            ("it refuses 169.254.169.254, as it must", ""),
        ]
    assert [request.split(b" ")[1] for request in asked] == [b"go2hooks-doctor.invalid:443", b"169.254.169.254:443"]
    assert all(b"\r\nProxy-Authorization: Basic dXNlcjpodW50ZXIy\r\n" in request for request in asked)


@pytest.mark.parametrize("inside", [OPEN, NOWHERE, b""], ids=["open", "tried", "hangs up"])
def test_a_proxy_that_does_not_refuse_the_inside_is_a_danger(inside: bytes):
    with answering(NOWHERE, inside) as (port, _):
        [_, (detail, remedy)] = found(port)
    assert "does not refuse 169.254.169.254" in detail
    assert "docs/operators.md" in remedy


def test_where_insecure_targets_are_permitted_the_inside_is_no_danger():
    with answering(NOWHERE) as (port, _):
        assert found(port, allow_insecure_targets=True) == [("it answers and takes our credentials", "")]


@pytest.mark.parametrize(
    ("answer", "detail", "remedy"),
    [
        (CHALLENGED, "it answers 407", "Correct the user and the password"),
        (FORBIDDEN, "it answers 403", "Permit the dispatchers' machines"),
        (b"HTTP/1.1 405 No\r\n\r\n", "it answers 405", "it must name an HTTP proxy"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it answers, but not in HTTP", "it must name an HTTP proxy"),
        (b"", "it does not answer: it closes the connection", "Start it, or correct GO2HOOKS_EGRESS_PROXY."),
    ],
)
def test_what_is_wrong_with_a_proxy_is_named_with_the_remedy(answer: bytes, detail: str, remedy: str):
    with answering(answer) as (port, _):
        [(said, advised)] = found(port)
    assert said.startswith(detail)
    assert remedy in advised


def test_a_proxy_that_is_away_is_told():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    [(said, advised)] = found(port)
    assert said.startswith("it does not answer: ")
    assert "refused" in said
    assert advised == "Start it, or correct GO2HOOKS_EGRESS_PROXY."


def test_a_proxy_that_is_silent_is_told_from_one_that_is_away():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        [(said, advised)] = found(silent.getsockname()[1], delivery_timeout_s=0.2)
    assert said == "it takes connections, but says nothing for 0.2 s to a name that nobody has"
    assert advised.startswith("See whether it can look names up")
