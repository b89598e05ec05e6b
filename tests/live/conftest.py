"""A real Label Studio, our backend beside it, and a browser, started on free ports and in temporary folders.

Label Studio's dependencies don't fit beside ours, so it runs from an environment of its own:

    make .label-studio/bin/label-studio
    LABEL_STUDIO_BIN=.label-studio/bin/label-studio .venv/bin/python -m pytest tests/live

The browser is Debian's: `apt-get install chromium chromium-driver`. `make test-all` runs them with all others.
"""

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.servers import Server
from tests.live.browser import Browser
from tests.live.label_studio import LEGACY_TOKEN, PASSWORD, USER, LabelStudio
from tests.servers import ROOT, STOP_SECONDS, Backend, clean_environment, free_port, wait_until

# Laying out its database takes Label Studio half a minute of processor time, and its start seconds: several times as
# long on a busy machine.
LAYOUT_SECONDS, START_SECONDS = 900, 200
BROWSER_START_SECONDS = 60
OTHER_PASSWORD = ("ann", "a password")


@contextmanager
def running(command: list[str], url: str, env: dict[str, str], log: Path, seconds: float) -> Iterator[None]:
    """A program that answers `url` within `seconds`, and is ended with the block."""
    with Server(command[0], command, url, env, log.parent, log, signal.SIGTERM, STOP_SECONDS) as server:
        server.wait_until_up(seconds)
        yield


def new_database() -> Path:
    """The data folder of a Label Studio that nobody has used yet. It is made once, and kept in Label Studio's own
    environment, which an update replaces."""
    program = Path(os.environ["LABEL_STUDIO_BIN"]).resolve()
    folder, unfinished = (program.parents[1] / f"label-studio-data{ending}" for ending in ("", ".unfinished"))
    with program.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            environment = clean_environment(LABEL_STUDIO_BASE_DATA_DIR=str(unfinished), COLLECT_ANALYTICS="false")
            subprocess.run([str(program), "version"], env=environment, check=True, timeout=LAYOUT_SECONDS)
            unfinished.rename(folder)
    return folder


@contextmanager
def running_label_studio(folder: Path) -> Iterator[LabelStudio]:
    """Label Studio as it comes: legacy tokens off. Only its guard against local addresses is taken down."""
    (folder / "files").mkdir()
    shutil.copytree(new_database(), folder / "data")
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


@pytest.fixture(scope="session")
def other_backend(label_studio: LabelStudio, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """A backend that tests may stop and start again. It has a password, and its `/predict` waits for no features."""
    user, password = OTHER_PASSWORD
    variables = {"BASIC_AUTH_USER": user, "BASIC_AUTH_PASS": password, "PREDICT_TIMEOUT": "0"}
    with running_backend(label_studio, tmp_path_factory.mktemp("other-backend"), **variables) as backend:
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
