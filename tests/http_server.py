"""A real HTTP server whose answers a test sets by path, and which remembers what it was asked."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

CONTENT = bytes(range(256)) * 1000  # every offset modulo 256 is recognisable, so a misplaced resumption shows
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on a free port whose answers a test sets by path, and which remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append((self.path, dict(self.headers)))
                server.answers.get(urlsplit(self.path).path, status(404))(self)

            do_POST = do_PATCH = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def headers(self, name: str) -> list[str | None]:
        """The named header of every request so far."""
        return [headers.get(name) for _, headers in self.requests]


def send(handler: BaseHTTPRequestHandler, code: int, headers: dict[str, str], body: bytes = b"") -> None:
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


def status(code: int, content_type: str = "application/json", body: bytes = b'{"detail": "no"}') -> Answer:
    return lambda handler: send(handler, code, {"Content-Type": content_type, "Content-Length": str(len(body))}, body)


def as_json(value: object) -> Answer:
    return status(200, body=json.dumps(value).encode())


def redirect(location: str) -> Answer:
    return lambda handler: send(handler, 303, {"Location": location, "Content-Length": "0"})


def whole_file(content: bytes = CONTENT, cut_after: int | None = None) -> Answer:
    """A server without ranges that announces the whole length, and closes the connection after `cut_after` bytes."""
    headers = {"Content-Type": "video/mp4", "Content-Length": str(len(content))}
    return lambda handler: send(handler, 200, headers, content[:cut_after])


def ranges(content: bytes = CONTENT, bytes_per_answer: int | None = None, etag: str = "one") -> Answer:
    """A server as Label Studio's own: it names the length only as a range's total, and closes early."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        start = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        end = len(content) if bytes_per_answer is None else min(start + bytes_per_answer, len(content))
        content_range = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers = {"Content-Type": "video/mp4", "Content-Range": content_range, "ETag": f'"{etag}"'}
        send(handler, 206, headers, content[start:end])

    return answer


def guarded(authorization: str, answer: Answer) -> Answer:
    """Answers 401 to any other Authorization header, as Label Studio does."""
    refuse = status(401)
    return lambda handler: (answer if handler.headers["Authorization"] == authorization else refuse)(handler)
