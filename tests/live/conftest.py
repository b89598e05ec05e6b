"""A real Label Studio, our backend beside it, and a browser, started on free ports and in temporary folders.

Label Studio's dependencies don't fit beside ours, so it runs from an environment of its own:

    uv venv .label-studio && uv pip install --python .label-studio label-studio==1.23.2
    LABEL_STUDIO_BIN=.label-studio/bin/label-studio make test

The browser is Debian's: `apt-get install chromium chromium-driver`.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.browser import Browser
from tests.live.label_studio import LEGACY_TOKEN, PASSWORD, USER, LabelStudio

ROOT = Path(__file__).resolve().parents[2]
# Creating its database takes Label Studio half a minute, and several on a busy machine.
LABEL_STUDIO_START_SECONDS = 300
BACKEND_START_SECONDS = 120
STOP_SECONDS = 20

collect_ignore = [] if "LABEL_STUDIO_BIN" in os.environ else ["test_label_studio.py"]


def pytest_report_collectionfinish() -> str:
    if collect_ignore:
        return (
            "tests/live: left out, for LABEL_STUDIO_BIN names no label-studio executable (see tests/live/conftest.py)."
        )
    return f"tests/live: with {os.environ['LABEL_STUDIO_BIN']}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(command: list[str], url: str, env: dict[str, str], cwd: Path, log: Path, seconds: float) -> Iterator[None]:
    """A process group that answers `url` within `seconds`, and is ended with the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(url), seconds, f"{command[0]} to start, see {log}")
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text()[-3000:]}"
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without what would configure either server by accident."""
    foreign = re.compile(r"LABEL_STUDIO_|LOCAL_FILES_|ML_|DATABASE_URL|DJANGO_|HOST$|PORT$|BASIC_AUTH_")
    return {name: value for name, value in os.environ.items() if not foreign.match(name)} | changes


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """Label Studio as it comes: legacy tokens off. Only its guard against local addresses is taken down."""
    folder = tmp_path_factory.mktemp("label-studio")
    (folder / "files").mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # `start` serves no public address, and creates the user whose password and legacy token we know.
    command = [os.environ["LABEL_STUDIO_BIN"], "start", "--no-browser", "--port", str(port)]
    command += ["--username", USER, "--password", PASSWORD, "--user-token", LEGACY_TOKEN]
    env = clean_environment(
        LABEL_STUDIO_BASE_DATA_DIR=str(folder / "data"),
        LABEL_STUDIO_HOST=url,
        ML_BLOCK_LOCAL_IP="false",
        SSRF_PROTECTION_ENABLED="false",
        COLLECT_ANALYTICS="false",
        LOCAL_FILES_SERVING_ENABLED="true",
        LOCAL_FILES_DOCUMENT_ROOT=str(folder / "files"),
    )
    with (
        server(command, f"{url}/health", env, folder, folder / "label-studio.log", LABEL_STUDIO_START_SECONDS),
        LabelStudio(url, folder) as connected,
    ):
        yield connected


class Backend:
    """Our backend, running."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.http = httpx.Client(base_url=url, timeout=30)


@pytest.fixture(scope="session")
def backend(label_studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """Our backend as README says to run it: LABEL_STUDIO_API_KEY is a personal access token."""
    folder = tmp_path_factory.mktemp("backend")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = clean_environment(
        HOST="127.0.0.1",
        PORT=str(port),
        DATA_DIR=str(folder / "data"),
        CACHE_DIR=str(folder / "cache"),
        MODEL_ROOT=str(folder / "models"),
        LABEL_STUDIO_URL=label_studio.url,
        LABEL_STUDIO_API_KEY=label_studio.personal_access_token,
    )
    command = [sys.executable, "-m", "gunicorn", "_wsgi:app"]
    with server(command, f"{url}/health", env, ROOT, folder / "backend.log", BACKEND_START_SECONDS):
        yield Backend(url, folder / "backend.log")


@pytest.fixture
def browser(label_studio: LabelStudio, tmp_path: Path) -> Iterator[Browser]:
    """Headless Chromium, logged in to Label Studio."""
    port = free_port()
    command = ["chromedriver", f"--port={port}"]
    url = f"http://127.0.0.1:{port}"
    with (
        server(command, f"{url}/status", dict(os.environ), tmp_path, tmp_path / "chromedriver.log", 30),
        Browser(url, tmp_path / "profile") as browser,
    ):
        browser.open(f"{label_studio.url}/user/login/")
        browser.run(
            """
            document.querySelector("#email").value = arguments[0];
            document.querySelector("#password").value = arguments[1];
            document.querySelector("#login-form, form").submit();
        """,
            USER,
            PASSWORD,
        )
        wait_until(lambda: "/login" not in browser.run("return location.pathname"), 30, "the login")
        yield browser
