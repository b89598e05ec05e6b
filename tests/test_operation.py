"""How the backend runs as a program: its processes, what it logs, how it starts and stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from ml_backend.settings import Settings
from ml_backend.startup import label_studio_line
from tests.http_server import Server, as_json, status
from tests.servers import ROOT, START_SECONDS, Backend, clean_environment, free_port, processes, wait_until
from tests.test_prometheus import samples
from tests.test_serve import CONFIG
from tests.videos import write_video

# Lines that frighten: a process was killed, something wasn't caught.
ALARMING = re.compile(r"Traceback|SIGKILL|out of memory|Exception|CRITICAL")


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    backend = Backend(tmp_path_factory.mktemp("backend"), WORKERS="2").start()
    yield backend
    backend.stop()


def test_every_process_shows_the_requests_of_all(backend: Backend) -> None:
    before = samples(backend.http.get("/metrics").text)
    for _ in range(20):  # a new connection each: any process takes it
        httpx.get(f"{backend.url}/versions")
        httpx.post(f"{backend.url}/job_status", json={"job": "unknown"})
    for _ in range(10):
        after = samples(httpx.get(f"{backend.url}/metrics").text)
        for key in (
            ("backend_request_seconds_count", (("route", "/versions"), ("status", "200"))),
            ("backend_errors_total", (("kind", "UnknownJob"),)),
        ):
            assert after[key] - before.get(key, 0) == 20
    assert "backend_extracted_frames_total" in {name for name, _ in after}


def test_one_line_per_fact_at_start(backend: Backend) -> None:
    backend.wait_for_worker()
    wait_until(lambda: "Label Studio: " in backend.log.read_text(), START_SECONDS, "the last line")
    log = backend.log.read_text()
    for fact in (
        rf"Address for Label Studio .*: {backend.url}",
        "Authentication: off",
        f"Database: SQLite, {backend.folder}/data/state.db",
        rf"Cache: {backend.folder}/cache, up to 20\.0GB",
        r"Encoder: the bundled EfficientNet-Lite0 stands in for yolov8n-cls\.pt, .* put it into",
        "Precision: .*, on the (CPU|GPU)",
        r"Label Studio: the address that it sends; LABEL_STUDIO_URL isn't set\.",
    ):
        assert len(re.findall(fact, log)) == 1, (fact, log)
    assert not ALARMING.search(log)
    health = backend.health()
    assert health["worker"] == "alive"
    assert health["device"] in ("cpu", "cuda")

    def said() -> bool:
        page = backend.http.get("/", headers={"Accept": "text/html"}).text
        return "the bundled network stands in for yolov8n-cls<" in page

    wait_until(said, START_SECONDS, "the encoder's words on the overview")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"HOST": "0.0.0.0"}, "ALLOW_NO_PASSWORD=true"),
        ({"HOST": "127.0.0.1", "BASIC_AUTH_USER": "ann"}, "BASIC_AUTH_PASS"),
    ],
)
def test_an_open_door_is_refused_in_one_line(tmp_path: Path, variables: dict[str, str], words: str) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), PORT=str(free_port()), **variables)
    started = subprocess.run(
        [sys.executable, "-m", "gunicorn", "_wsgi:app"], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert started.returncode != 0
    (line,) = started.stderr.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_database_that_can_not_be_used_ends_the_server(tmp_path: Path) -> None:
    environment = clean_environment(DATA_DIR=str(tmp_path), PORT=str(free_port()), DATABASE_URL="mysql://somewhere/x")
    started = subprocess.run(
        [sys.executable, "-m", "gunicorn", "_wsgi:app"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert started.returncode == 3
    assert "DATABASE_URL=mysql:… isn't supported: use sqlite:///FILE" in started.stderr


def only(backend: Backend, pattern: str) -> int:
    """The process of a pattern, once there is one alone: one that is being started is a copy of its parent first."""
    seen: list[set[int]] = []

    def alone() -> bool:
        seen.append(processes(backend.process.pid, pattern))
        return len(seen[-1]) == 1

    wait_until(alone, START_SECONDS, f"{pattern} alone")
    return seen[-1].pop()


def test_all_processes_are_started_again_at_sighup(backend: Backend) -> None:
    backend.wait_for_worker()
    worker, session = only(backend, "_wsgi.py --worker"), backend.process.pid
    backend.process.send_signal(signal.SIGHUP)
    wait_until(lambda: processes(session, "_wsgi.py --worker") - {worker}, START_SECONDS, "another worker")
    wait_until(backend.answers, START_SECONDS, "the new web process")


def stop_while_it_works(backend: Backend, stop: Callable[[], None]) -> None:
    """Stops a server while a video is extracted and a request waits for it; it ends by itself and says nothing that
    alarms."""
    backend.wait_for_worker()
    write_video(backend.videos / "long.mp4", [(90, 90, 90)] * 6000, size=(64, 64))
    simple = CONFIG.replace('model_trainable="true"', "").replace("Ball in frame", "soccer_ball")
    backend.wait_for_encoder(simple)
    tasks = [{"id": number, "data": {"video": f"{backend.videos}/long.mp4"}} for number in (1, 2)]
    body = {"tasks": tasks, "project": "1", "label_config": simple}
    pool = ThreadPoolExecutor()
    request = pool.submit(httpx.post, f"{backend.url}/predict", json=body, timeout=100)
    extracts = 'backend_jobs{kind="extract",status="started"}'
    wait_until(lambda: extracts in backend.http.get("/metrics").text, START_SECONDS, "the extraction")
    wait_until(lambda: "Precision:" in backend.log.read_text(), START_SECONDS, "the encoder")
    backend.http.close()
    before = backend.log.stat().st_size
    process, backend.process = backend.process, None
    stop()
    process.wait(60)
    log = backend.log.read_bytes()[before:].decode()
    assert not ALARMING.search(log), log
    assert "being extracted" in request.result(60).text
    assert not processes(process.pid)


def test_it_stops_by_itself_without_alarming_lines(backend: Backend) -> None:
    """The last test with this server."""
    stop_while_it_works(backend, backend.process.terminate)


@pytest.mark.slow
def test_ctrl_c_stops_it_without_alarming_lines(tmp_path: Path) -> None:
    """Ctrl-C reaches every process of the terminal."""
    backend = Backend(tmp_path).start()
    session = backend.process.pid
    stop_while_it_works(backend, lambda: os.killpg(session, signal.SIGINT))


def test_wsgi_py_runs_outside_an_activated_environment_and_opens_with_a_password(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    folders = {name: str(tmp_path / name) for name in ("DATA_DIR", "CACHE_DIR", "MODEL_ROOT")}
    variables = {"BASIC_AUTH_USER": "ann", "BASIC_AUTH_PASS": "p", "PATH": "/usr/bin:/bin", "RUN_WORKER": "false"}
    command = [sys.executable, str(ROOT / "_wsgi.py"), "--host", "0.0.0.0", "--port", str(port)]
    with log.open("wb") as output:
        environment = clean_environment(**folders, **variables)
        process = subprocess.Popen(command, cwd="/", env=environment, stderr=output, start_new_session=True)
    http = httpx.Client(base_url=f"http://127.0.0.1:{port}")

    def answers() -> bool:
        assert process.poll() is None
        try:
            return http.get("/health").json()["worker"] == "starting"
        except httpx.HTTPError:
            return False

    try:
        wait_until(answers, START_SECONDS, f"the server, see {log}")
        assert 'Authentication: on, user "ann"' in log.read_text()
        assert http.get("/versions").status_code == 401
        assert http.get("/versions", auth=("ann", "p")).status_code == 200
    finally:
        process.terminate()
        process.wait(60)
    made = [path for folder in folders.values() for path in Path(folder).rglob("*")]
    assert tmp_path / "DATA_DIR" / "state.db" in made
    assert not [path for path in made if path.stat().st_mode & 0o077], "they are for this user alone"


JWT = "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("key", "answer", "parts"),
    [
        ("legacy", as_json({"id": 1, "email": "anna@example.com"}), ["its key works (user anna@example.com)"]),
        ("legacy", status(401), ["refused: copy it from the dialog that makes it"]),
        (JWT.rpartition(".")[0], status(401), ["refused: copy it", "three parts with dots"]),
        (JWT.partition(".")[0], status(401), ["refused: copy it", "three parts with dots"]),
        (None, status(401), ["without a key", "personal access token"]),
    ],
)
def test_whether_label_studio_s_key_works_is_said(
    settings: Settings, server: Server, key: str | None, answer: object, parts: list[str]
) -> None:
    server.answers["/api/current-user/whoami"] = answer
    server.answers["/api/token/refresh/"] = status(401)
    secret = SecretStr(key) if key else None
    changes = {"label_studio_url": server.url, "label_studio_api_key": secret}
    _, line = label_studio_line(settings.model_copy(update=changes))
    for part in (server.url, *parts):
        assert part in line


def test_an_unreachable_label_studio_is_said(settings: Settings) -> None:
    changes = {"label_studio_url": "http://127.0.0.1:9", "label_studio_api_key": SecretStr("k")}
    assert "can't be reached" in label_studio_line(settings.model_copy(update=changes))[1]
    changes["label_studio_url"] = None
    assert "isn't used" in label_studio_line(settings.model_copy(update=changes))[1]
