"""A WSGI application that says what it was sent, for tests of the server below it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

_running = 0
_most = 0
_lock = threading.Lock()
_released = threading.Event()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """`/hold` answers once `/release` was asked for; `/most` says how many of it ran at once; others tell the size."""
    global _running, _most
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    answer = f"{path} {len(body)}"
    if path == "/hold":
        with _lock:
            _running += 1
            _most = max(_most, _running)
        _released.wait()
        with _lock:
            _running -= 1
    elif path == "/release":
        _released.set()
    elif path == "/most":
        answer = f"{_running} {_most}"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer.encode()]
