"""A real Label Studio, our backend beside it, and a browser, started on free ports and in temporary folders.

Label Studio's dependencies don't fit beside ours, so it runs from an environment of its own:

    make .label-studio/bin/label-studio
    LABEL_STUDIO_BIN=.label-studio/bin/label-studio .venv/bin/python -m pytest tests/live

The browser is Debian's: `apt-get install chromium chromium-driver`. `make test-all` runs them with all others.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.browser import Browser
from tests.live.label_studio import LEGACY_TOKEN, PASSWORD, USER, LabelStudio
from tests.servers import ROOT, STOP_SECONDS, Backend, clean_environment, free_port, wait_until

# Creating its database takes Label Studio a minute, and several on a busy machine.
START_SECONDS = 400
BROWSER_START_SECONDS = 60


@contextmanager
def running(command: list[str], url: str, env: dict[str, str], log: Path, seconds: float) -> Iterator[None]:
    """A program that answers `url` within `seconds`, and is ended with the block together with its children."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=env,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def answers() -> bool:
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text()[-3000:]}"
        try:
            return httpx.get(url, timeout=5).is_success
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, seconds, f"{command[0]} to start, see {log}")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def running_label_studio(folder: Path) -> Iterator[LabelStudio]:
    """Label Studio as it comes: legacy tokens off. Only its guard against local addresses is taken down."""
    (folder / "files").mkdir()
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(Path(os.environ["LABEL_STUDIO_BIN"]).absolute()), "start", "--no-browser", "--port", str(port)]
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
        running(command, f"{url}/health", env, folder / "label-studio.log", START_SECONDS),
        LabelStudio(url, folder) as connected,
    ):
        yield connected


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    with running_label_studio(tmp_path_factory.mktemp("label-studio")) as running_one:
        yield running_one


@contextmanager
def running_backend(label_studio: LabelStudio, folder: Path, **environment: str) -> Iterator[Backend]:
    """Our backend as README says to run it: LABEL_STUDIO_API_KEY is a personal access token."""
    access = {"LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": label_studio.personal_access_token}
    backend = Backend(folder, **(access | environment))
    try:
        backend.start().wait_for_worker()
        yield backend
    finally:
        backend.stop()


@pytest.fixture(scope="session")
def backend(label_studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with running_backend(label_studio, tmp_path_factory.mktemp("backend")) as backend:
        yield backend


@pytest.fixture
def impatient_backend(label_studio: LabelStudio, tmp_path: Path) -> Iterator[Backend]:
    """A backend whose `/predict` waits for no features."""
    with running_backend(label_studio, tmp_path / "backend", PREDICT_TIMEOUT="0") as backend:
        yield backend


class Screenshots:
    """Pictures of what a test saw, kept in `artefacts/` for those who look at them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def take(self, browser: Browser, name: str) -> None:
        browser.screenshot(self._folder / f"{name}.png")


@pytest.fixture(scope="session")
def screenshots() -> Screenshots:
    return Screenshots(ROOT / "artefacts")


@pytest.fixture
def new_browser(tmp_path: Path, screenshots: Screenshots, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Headless Chromium, without cookies. It leaves a picture of its last page."""
    if shutil.which("chromedriver") is None:
        pytest.skip("no chromedriver: apt-get install chromium chromium-driver (.ci/run does)")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = ["chromedriver", f"--port={port}"]
    with (
        running(command, f"{url}/status", dict(os.environ), tmp_path / "chromedriver.log", BROWSER_START_SECONDS),
        Browser(url, tmp_path / "profile") as browser,
    ):
        yield browser
        screenshots.take(browser, f"last-page-of-{request.node.name}")


@pytest.fixture
def browser(label_studio: LabelStudio, new_browser: Browser) -> Browser:
    """A browser that is logged in to Label Studio."""
    new_browser.open(f"{label_studio.url}/user/login/")
    new_browser.log_in(USER, PASSWORD)
    wait_until(lambda: "/login" not in new_browser.run("return location.pathname"), 60, "the login")
    return new_browser
