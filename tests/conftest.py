"""Fixtures that several test modules share."""

from __future__ import annotations

import inspect
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from flask import Flask
from xdist.scheduler import LoadFileScheduling

from ml_backend import LabelStudioMLBase, init_app
from ml_backend.context import Services
from ml_backend.settings import Settings
from ml_backend.store import Store
from tests.colours import BLUE, GREY, RED, RED_BLUE, annotated, config, task
from tests.http_server import Server
from tests.postgres import Postgres, binaries, running_postgres
from tests.servers import LEAST_PATIENCE_SECONDS, NO_INTERNET, annotation, clean_environment
from tests.work import work_off

if TYPE_CHECKING:
    from model import YOLO

LIVE = "tests/live/"
# As they were measured last. The long ones begin first, so that no process is left with one at the end.
SLOWEST_FIRST = (
    *("test_survival.py", "test_trouble.py", "test_serve.py", "test_operation.py", "test_timeline_labels.py"),
    *("test_encoder.py", "test_leases.py", "test_store.py", "test_jobs.py", "test_refresh.py", "test_loading.py"),
    *("test_predictions.py", "test_features.py", "test_openapi.py", "test_dashboard.py", "test_cli.py"),
    *("test_versions.py", "test_choices.py", "test_label_studio_api.py", "test_readme.py", "test_seen_and_heard.py"),
    "test_demo.py",
)
# Schemathesis needs Python 3.11.
collect_ignore = ["test_openapi.py"] if sys.version_info < (3, 11) else []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--everything", action="store_true", help="run what is marked slow, too")


def pytest_configure(config: pytest.Config) -> None:
    """Gives httpx's requests a minute: a busy machine may need more than the five seconds after which it gives up."""
    default = inspect.signature(httpx.get).parameters["timeout"].default
    for name, seconds in httpx.Timeout(LEAST_PATIENCE_SECONDS).as_dict().items():
        setattr(default, name, seconds)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skips what can't be run here or takes long, and puts the files first that take longest."""
    for item in items:
        if not config.getoption("--everything") and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="takes long"))
        if item.nodeid.startswith(LIVE) and "LABEL_STUDIO_BIN" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="needs Label Studio (LABEL_STUDIO_BIN)"))
    rank = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: -1 if item.nodeid.startswith(LIVE) else rank.get(item.path.name, len(rank)))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    return TogetherWithTheirServers(config, log)


class TogetherWithTheirServers(LoadFileScheduling):
    """Keeps a file's tests in one process, where they share a server.

    All of tests/live share a Label Studio, except the demo, which starts its own.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False  # by the number of tests; they are sorted already
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return LIVE if file.startswith(LIVE) and not file.endswith("test_demo.py") else file


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Says below pytest's summary what was left out, why, and what brings it."""
    yield
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())
    )
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5} {reason}")
    if left_out := sum(reasons.values()):
        terminalreporter.line(
            f"Left out: {left_out} tests. `make test-all` runs those that take long and those with Label Studio; "
            "`.ci/run` installs what the others need (on Debian), and runs all.",
            yellow=True,
        )


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
        app = init_app(model_class, settings=settings.model_copy(update=changes))
        app.extensions["jobs"].on_added = lambda: work_off(app.extensions["jobs"])
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


@pytest.fixture
def make_model(settings: Settings) -> Any:
    from model import YOLO  # it imports PyTorch

    store = Store(settings.database)
    store.update_project("1")
    store.update_project("2")

    def make(label_config: str, project: str = "1", in_request: bool = False, **changes: Any) -> YOLO:
        services = Services(settings.model_copy(update=changes), store, lambda: in_request)
        return YOLO.bind(services)(project, label_config)

    yield make
    store.close()


@pytest.fixture
def red_blue(settings: Settings) -> dict[str, Any]:
    """Grey; red in labeling frames 21 to 40; blue in 61 to 80."""
    return task(settings, 1, [GREY] * 20 + [RED] * 20 + [GREY] * 20 + [BLUE] * 20 + [GREY] * 20)


@pytest.fixture
def lesson(make_model: Any, red_blue: dict[str, Any]) -> Any:
    """`lesson(labels)` trains project 1 on red_blue with the regions of some labels."""

    def lesson(*labels: str) -> YOLO:
        model = make_model(config())
        regions = [r for r in RED_BLUE["result"] if set(r["value"]["timelinelabels"]) <= set(labels)]
        drawn = annotation(len(labels), *regions)
        assert model.fit("ANNOTATION_UPDATED", {}, tasks=[annotated(red_blue, drawn)])["tl"]["published"]
        return model

    return lesson
