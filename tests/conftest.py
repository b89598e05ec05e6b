"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from huey import MemoryHuey

from ml_backend import LabelStudioMLBase, init_app
from ml_backend.settings import Settings
from ml_backend.tables import QueueName
from tests.http_server import Server
from tests.postgres import Postgres, binaries, running_postgres
from tests.servers import NO_INTERNET, clean_environment

# Schemathesis needs Python 3.11.
collect_ignore = ["test_openapi.py"] if sys.version_info < (3, 11) else []


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a backend in a temporary folder, without internet, and without the machine's own variables."""
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HTTPS_PROXY", NO_INTERNET)
    (tmp_path / "videos").mkdir()
    return Settings(
        data_dir=tmp_path / "data",
        cache_dir=tmp_path / "cache",
        model_root=tmp_path / "models",
        local_files_document_root=tmp_path / "videos",
        media_allowed_hosts=("127.0.0.1",),  # the tests' own servers
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One PostgreSQL server for all tests."""
    if binaries() is None and not os.environ.get("REQUIRE_POSTGRES"):
        pytest.skip("PostgreSQL isn't installed (apt-get install postgresql)")
    with running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").new_database()
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., Flask]]:
    """Makes an app whose jobs are done at once, where they are added."""
    apps = []

    def make(model_class: type[LabelStudioMLBase], **changes: Any) -> Flask:
        queues = {name: MemoryHuey(name.value, immediate=True) for name in QueueName}
        app = init_app(model_class, settings=settings.model_copy(update=changes), queues=queues)
        apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["jobs"].store.close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def elsewhere() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def silent_server() -> Iterator[tuple[str, list[socket.socket]]]:
    """A server that accepts connections and never answers: its URL, and the connections so far."""
    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", connections
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()
