"""Slow, idle and large requests to the web server: threads are for whole requests alone."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from ml_backend.web.connections import LARGE_BYTES, MAX_HEAD_BYTES
from ml_backend.web.gate import MAX_BODY_BYTES
from tests.servers import ROOT, free_port, wait_until

THREADS = 2
CONNECTIONS = 40
GRACEFUL_SECONDS = 300
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"
BODY = HEAD + b"Content-Length: 1000\r\n\r\n{"
Connect = Callable[..., socket.socket]


class Running:
    """The echo application behind the worker class, with two threads."""

    def __init__(self, folder: Path, **constants: float) -> None:
        port = free_port()
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "log"
        lines = [f"ml_backend.web.connections.{name} = {value}" for name, value in constants.items()]
        config = folder / "conf.py"
        config.write_text("\n".join(["import ml_backend.web.connections", *lines]))
        command = [sys.executable, "-m", "gunicorn", "-c", str(config), "-b", f"127.0.0.1:{port}", "tests.echo:app"]
        command += ["-k", "ml_backend.web.connections.PatientWorker", "--threads", str(THREADS)]
        command += [
            "--worker-connections",
            str(CONNECTIONS),
            "--graceful-timeout",
            str(GRACEFUL_SECONDS),
            "--no-control-socket",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        wait_until(self.answers, 60, "gunicorn")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with suppress(httpx.HTTPError):
            return httpx.get(self.url + "/up", timeout=60).text == "/up 0"
        return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(GRACEFUL_SECONDS / 3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("echo"))
    yield running
    running.stop()
    assert "Traceback" not in running.log.read_text()


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that waits for a request a second in place of ten, and holds 3 MB of them in place of 64."""
    running = Running(tmp_path_factory.mktemp("hasty"), HEAD_SECONDS=1.0, MAX_BUFFERED_BYTES=3_000_000)
    yield running
    running.stop()


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as opened:

        def to(server: Running, first: bytes = b"") -> socket.socket:
            client = opened.enter_context(socket.create_connection(server.address, timeout=60))
            client.sendall(first)
            return client

        yield to


def everything(client: socket.socket) -> bytes:
    """All that the server sends before it closes the connection."""
    received = b""
    with suppress(ConnectionError):
        while part := client.recv(65536):
            received += part
    return received


@pytest.mark.parametrize("first", [b"", b"GET", HEAD, BODY])
@pytest.mark.parametrize("count", [THREADS + 1, CONNECTIONS * 3])
def test_unfinished_requests_keep_nobody_waiting(server: Running, connect: Connect, first: bytes, count: int) -> None:
    for _ in range(count):
        connect(server, first)
    for _ in range(3):
        assert server.answers()


@pytest.mark.parametrize(("first", "answer"), [(b"", b""), (HEAD, b"408"), (BODY, b"408")])
def test_what_does_not_arrive_in_time_is_ended(hasty: Running, connect: Connect, first: bytes, answer: bytes) -> None:
    assert everything(connect(hasty, first)).partition(b"\r\n")[0].partition(b" ")[2][:3] == answer
    # Nor does sending a little now and then help.
    client = connect(hasty, first)
    with suppress(ConnectionError):
        for _ in range(100):
            client.sendall(b"x")
            client.settimeout(0.1)
            try:
                if not client.recv(1000):
                    break
            except TimeoutError:
                continue
        else:
            pytest.fail("it may send for ever")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"X: " + b"x" * MAX_HEAD_BYTES, b"431"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (HEAD + b"Content-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), b"413"),
        (HEAD + b"Content-Length: 5\r\nContent-Length: 3\r\n\r\n12345", b"400"),
        (HEAD + b"Content-Length: -5\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_what_can_not_be_read_is_refused(server: Running, connect: Connect, head: bytes, status: bytes) -> None:
    assert everything(connect(server, head)).split(b" ")[1] == status
    assert server.answers()


def test_a_refused_body_that_is_still_sent_is_answered(server: Running) -> None:
    answer = httpx.post(server.url, content=b" " * (MAX_BODY_BYTES * 3))
    assert answer.status_code == 413


def test_bodies_come_through_whole(server: Running) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for size in (0, 1, 10_000, LARGE_BYTES + 1, MAX_BODY_BYTES, 5):  # on one connection
            assert client.post("/x", content=b"x" * size).text == f"/x {size}"


def test_a_client_that_asks_before_it_sends_is_told_to(server: Running, connect: Connect) -> None:
    client = connect(server, HEAD + b"Content-Length: 100\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
    assert client.recv(1000).split(b" ")[1] == b"100"
    client.sendall(b"x" * 100)
    assert everything(client).endswith(b"/x 100")


def test_requests_that_come_in_pieces_or_together(server: Running, connect: Connect) -> None:
    client = connect(server)
    request = HEAD + b"Content-Length: 3\r\n\r\nabc"
    for byte in request:
        client.sendall(bytes([byte]))
    answer = b""
    while not answer.endswith(b"/x 3"):
        answer += client.recv(1000)
    client.sendall(request * 3 + b"GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    received = everything(client)
    assert received.count(b"/x 3") == 3
    assert received.endswith(b"/y 0")


def test_large_requests_are_handled_one_at_a_time(server: Running) -> None:
    with ThreadPoolExecutor(4) as pool:
        large = [
            pool.submit(httpx.post, server.url + "/hold", content=b"x" * (LARGE_BYTES + 1), timeout=60)
            for _ in range(4)
        ]
        wait_until(lambda: httpx.get(server.url + "/most").text == "1 1", 30, "the first")
        for _ in range(5):
            assert server.answers()
        httpx.get(server.url + "/release")
        assert {done.result().status_code for done in large} == {200}
    assert httpx.get(server.url + "/most").text == "0 1"


def test_bytes_on_their_way_are_bounded(hasty: Running, connect: Connect) -> None:
    """Also of small bodies, and of many connections."""

    def refused() -> int:
        """How many of six are refused; on a busy machine the first may be ended before the last has come."""
        count = 0
        with ExitStack() as opened:
            for _ in range(6):
                client = opened.enter_context(connect(hasty, HEAD + b"Content-Length: 1000000\r\n\r\n"))
                with suppress(ConnectionError):
                    client.sendall(b"x" * 900_000)  # the rest never comes
                client.settimeout(0.2)
                with suppress(TimeoutError, ConnectionError):
                    count += b"503" in client.recv(100)
        return count

    wait_until(lambda: 2 <= refused() <= 3, 60, "two or three refusals")
    assert httpx.post(hasty.url, content=b"x" * 1000).status_code == 200


def test_idle_connections_don_t_keep_it_from_stopping(hasty: Running, connect: Connect) -> None:
    idle = [connect(hasty) for _ in range(3)]
    assert hasty.answers()
    hasty.stop()  # within less than its graceful time
    assert hasty.process.returncode == 0
    assert everything(idle[0]) == b""
