"""A gunicorn worker that hands a request to a thread only after all of it has arrived.

gunicorn's own threads read requests themselves, so that as many slow clients as threads block the server. This worker
reads all connections in its main thread, with limits of size, time and number of connections.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import struct
import time
from collections import deque
from contextlib import suppress
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import http
from gunicorn.workers.gthread import TConn, ThreadWorker

from ml_backend.web.gate import MAX_BODY_BYTES

MAX_HEAD_BYTES = 32 * 1024
# The head must arrive within the first time, and the body at least at the second rate.
HEAD_SECONDS = 10.0
LEAST_BYTES_PER_SECOND = 50_000
# A refused client's remaining bytes are read for so long; otherwise it would lose the answer.
LINGER_SECONDS = 3.0
# A client must read some of its answer within this time.
SEND_SECONDS = 30
# Parsing takes several times a body's memory, so bodies above this size are handled one at a time.
LARGE_BYTES = 10**6
LARGE_WAIT_SECONDS = 60.0
# Of all requests that arrive, wait and are handled; requests of one read's size are always accepted.
MAX_BUFFERED_BYTES = 64 * 10**6
READ_BYTES = 1 << 16
END_OF_HEAD = b"\r\n\r\n"
LENGTH = re.compile(rb"^content-length:[ \t]*(\d{1,15})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
CHUNKED = re.compile(rb"^transfer-encoding:", re.IGNORECASE | re.MULTILINE)
EXPECTS = re.compile(rb"^expect:[ \t]*100-continue[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
REFUSALS = {
    408: ("Request Timeout", "The request didn't arrive in time."),
    411: ("Length Required", "The body needs the header Content-Length."),
    413: ("Content Too Large", f"The body is larger than {MAX_BODY_BYTES // 10**6} MB: send fewer tasks at once."),
    431: ("Request Header Fields Too Large", f"The request's head is larger than {MAX_HEAD_BYTES // 1024} kB."),
    503: ("Service Unavailable", "Too many requests arrive at once. Send this one again later."),
}


class Arriving:
    """A request that is arriving.

    Attributes:
        received: the bytes that have arrived.
        size: bytes of head and body, None while the head isn't complete.
        deadline: when all of it must have arrived, by the monotonic clock.
    """

    def __init__(self, received: bytes = b"") -> None:
        self.received = bytearray(received)
        self.size: int | None = None
        self.deadline = time.monotonic() + HEAD_SECONDS

    def refusal(self) -> int | None:
        """Sets the size once the head is complete. Returns the status that refuses the request, or None."""
        if self.size is not None:
            return None
        end = self.received.find(END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            return 431 if len(self.received) >= MAX_HEAD_BYTES else None
        head = bytes(self.received[:end])
        if CHUNKED.search(head):
            return 411  # the end of such a body can't be found without parsing all of it
        length = max((int(digits) for digits in LENGTH.findall(head)), default=0)
        if length > MAX_BODY_BYTES:
            return 413
        self.size = end + len(END_OF_HEAD) + length
        self.deadline += length / LEAST_BYTES_PER_SECOND
        return None

    @property
    def is_complete(self) -> bool:
        """Whether all of the request has arrived."""
        return self.size is not None and len(self.received) >= self.size

    @property
    def waits_to_be_asked(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return self.size is not None and self.size > len(self.received) and EXPECTS.search(self.received) is not None


class Arrived:
    """Stands in for the socket in gunicorn's parser, and ends where the request ends."""

    def __init__(self, received: bytearray) -> None:
        self._received = received
        self._place = 0

    def recv(self, size: int) -> bytes:
        """Returns at most `size` bytes, none at the end."""
        part = bytes(memoryview(self._received)[self._place : self._place + size])
        self._place += len(part)
        return part


class PatientWorker(ThreadWorker):
    """gunicorn's threaded worker, whose threads get complete requests only."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving: dict[TConn, Arriving] = {}  # oldest first
        self._large: deque[tuple[TConn, float]] = deque()  # complete requests that wait for their turn, and until when
        self._handled_large: TConn | None = None
        self._held: dict[TConn, int] = {}  # bytes of the requests that wait for a thread or are handled
        self._lingering: dict[TConn, float] = {}  # answered, half-closed connections, and until when they are read

    # -- reading

    def accept(self, listener: socket.socket) -> None:
        """Accepts a connection; where there are too many, first closes the one that has been silent for longest."""
        try:
            client, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process accepted it, or the client is gone
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._make_room()
            return
        if self.nr_conns >= self.worker_connections - 1:
            self._make_room()
        self.nr_conns += 1
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0))
        self._await_request(TConn(self.cfg, client, address, listener.getsockname()), Arriving())

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """Starts to read the next request of a kept-alive connection."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_request(conn, Arriving())

    def _await_request(self, conn: TConn, arriving: Arriving) -> None:
        conn.sock.setblocking(False)
        self._arriving[conn] = arriving
        self.poller.register(conn.sock, EVENT_READ, partial(self._read, conn))
        self._proceed(conn)

    def _read(self, conn: TConn, client: socket.socket) -> None:
        arriving = self._arriving[conn]
        try:
            received = client.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._drop(conn)
            return
        arriving.received += received
        self._proceed(conn)

    def _proceed(self, conn: TConn) -> None:
        """Refuses the request, hands it to a thread, or waits for the rest of it."""
        arriving = self._arriving[conn]
        had_size = arriving.size is not None
        refusal = arriving.refusal()
        if refusal is None and len(arriving.received) > READ_BYTES and self._buffered() > MAX_BUFFERED_BYTES:
            refusal = 503
        if refusal is not None:
            self._drop(conn, refusal)
        elif arriving.is_complete:
            self._forget(conn)
            self._hand_over(conn, arriving)
        elif not had_size and arriving.waits_to_be_asked:
            with suppress(OSError):
                conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _buffered(self) -> int:
        return sum(len(arriving.received) for arriving in self._arriving.values()) + sum(self._held.values())

    def _forget(self, conn: TConn) -> None:
        del self._arriving[conn]
        self.poller.unregister(conn.sock)

    def _drop(self, conn: TConn, status: int | None = None) -> None:
        self._forget(conn)
        if status is None:
            self._close(conn)
        else:
            self._refuse(conn, status)

    def _make_room(self) -> None:
        if self._lingering:
            self._end(next(iter(self._lingering)))
        elif self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)
        elif self._arriving:
            conn = next(iter(self._arriving))
            self._forget(conn)
            _say(conn, 503)
            self._close(conn)

    def murder_pending(self) -> None:
        """Ends requests that didn't arrive, or didn't get their turn, in time; gunicorn calls it each second."""
        super().murder_pending()
        now = time.monotonic()
        for conn in [conn for conn, arriving in self._arriving.items() if arriving.deadline < now]:
            self._drop(conn, 408 if self._arriving[conn].received else None)
        while self._large and self._large[0][1] < now:
            conn, _ = self._large.popleft()
            del self._held[conn]
            self._refuse(conn, 503)
        for conn in [conn for conn, until in self._lingering.items() if until < now or not self.alive]:
            self._end(conn)
        if not self.alive:
            for conn in [conn for conn, arriving in self._arriving.items() if not arriving.received]:
                self._drop(conn)

    # -- closing

    def _refuse(self, conn: TConn, status: int) -> None:
        _say(conn, status)
        self._linger(conn)

    def _linger(self, conn: TConn) -> None:
        """Closes a connection after its client has, or after LINGER_SECONDS, and reads on meanwhile so that the answer
        gets through."""
        try:
            conn.sock.setblocking(False)
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        self._lingering[conn] = time.monotonic() + LINGER_SECONDS
        self.poller.register(conn.sock, EVENT_READ, partial(self._discard, conn))

    def _discard(self, conn: TConn, client: socket.socket) -> None:
        try:
            if client.recv(READ_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._end(conn)

    def _end(self, conn: TConn) -> None:
        del self._lingering[conn]
        self.poller.unregister(conn.sock)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    # -- handling

    def _hand_over(self, conn: TConn, arriving: Arriving) -> None:
        conn.parser = http.get_parser(self.cfg, Arrived(arriving.received), conn.client)
        conn.data_ready = True
        self._held[conn] = len(arriving.received)
        if len(arriving.received) <= LARGE_BYTES:
            self.enqueue_req(conn)
        elif self._handled_large is None:
            self._handle_large(conn)
        else:
            self._large.append((conn, time.monotonic() + LARGE_WAIT_SECONDS))

    def _handle_large(self, conn: TConn) -> None:
        self._handled_large = conn
        self.enqueue_req(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Reads the next request of the connection, and starts the next large request."""
        del self._held[conn]
        if self._handled_large is conn:
            self._handled_large = None
            if self._large:
                self._handle_large(self._large.popleft()[0])
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._linger(conn)
            return
        unread = conn.parser.unreader
        ahead = unread.take_buffered() + unread.sock.recv(MAX_BUFFERED_BYTES)
        if ahead:  # the client sent more than one request at once
            self._await_request(conn, Arriving(ahead))
        else:
            super().finish_request(conn, fs)


def _say(conn: TConn, status: int) -> None:
    reason, sentence = REFUSALS[status]
    body = json.dumps({"error": sentence}).encode()
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
    with suppress(OSError):
        conn.sock.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
