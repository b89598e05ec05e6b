"""Log lines: one an event, searchable, never with a token."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_backend import init_app
from ml_backend.logs import JsonFormatter, LineFormatter, about, redact
from ml_backend.settings import Settings
from model import YOLO
from tests.checkpoints import save_classifier
from tests.colours import config
from tests.http_server import Server, whole_file
from tests.servers import wait_until
from tests.work import work_off

JOB = "0123456789abcdef0123456789abcdef"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyX2lkIjoxfQ.abc-DEF_123"
SECRETS = (
    TOKEN,
    "Token 0123456789abcdef0123456789abcdef01234567",
    "Bearer secret-value",
    "Basic YW5uOnNlY3JldA==",
    "https://ann:secret@example.com/video.mp4",
    "https://bucket.example.com/a.mp4?X-Amz-Signature=deadbeef",
)


def record(message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("jobs", logging.WARNING, "", 0, message, arguments, exc_info)


def test_a_json_line_names_project_task_and_job() -> None:
    with about(project="7-1801234567", job=JOB), about(task=12):
        line = JsonFormatter().format(record("It\nfailed"))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["project"], entry["task"], entry["job"]) == ("7-1801234567", "12", JOB)
    assert (entry["level"], entry["logger"]) == ("WARNING", "jobs")
    with about(project=None):
        assert "project" not in json.loads(JsonFormatter().format(record("Project 7")))


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("formatter", [JsonFormatter(), LineFormatter("%(message)s")])
def test_no_secret_is_written(formatter: logging.Formatter, secret: str) -> None:
    try:
        raise ValueError(f"refused: {secret}")
    except ValueError as error:
        text = formatter.format(record("The answer was %s", secret, error=error))
    assert "The answer was" in text
    for value in (
        TOKEN,
        "0123456789abcdef0123456789abcdef01234567",
        "secret-value",
        "YW5uOnNlY3JldA",
        "ann:secret",
        "deadbeef",
    ):
        assert value not in text


FORGED = "q://x\n2026-01-01 00:00:00,000 ERROR [1] ml_backend.web.app: forged \x1b[31mred \x9b2J \u2028 \u202e \r"


def test_a_message_is_one_line_and_moves_no_cursor() -> None:
    line = LineFormatter("%(asctime)s %(message)s").format(record("Task %s", FORGED))
    assert line.isprintable()
    assert "\\n2026-01-01" in line
    assert "\\x1b[31mred" in line


def test_the_lines_of_a_traceback_are_indented() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        lines = LineFormatter("%(message)s").format(record("It failed", error=error)).split("\n")
    assert lines[0] == "It failed"
    assert len(lines) > 3
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


@pytest.mark.parametrize("part", ["eyJ", "eyJ.", "eyJ-", "a.b", "://", "://a:", "Bearer ", "Basic ", "token="])
def test_long_texts_are_searched(part: str) -> None:
    """With a search that looks on from each place, this would take minutes."""
    text = part * (400_000 // len(part))
    assert redact(text)
    assert TOKEN not in redact(f"{text} {TOKEN}")


@pytest.mark.parametrize("before", ["", " ", "=", "/", "?jwt=", "x-", "a.b."])
def test_a_token_is_found_wherever_it_begins(before: str) -> None:
    assert TOKEN[20:] not in redact(f"{before}{TOKEN} after")
    assert redact("video.part.mp4 at 127.0.0.1 of a.b.c") == "video.part.mp4 at 127.0.0.1 of a.b.c"


@pytest.fixture
def json_lines() -> Iterator[io.StringIO]:
    """The JSON lines that are logged."""
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


def test_a_video_that_can_not_be_read_is_named_with_its_task(
    settings: Settings, server: Server, json_lines: io.StringIO
) -> None:
    """By worker and web alike; the download's own name, a hash, helps nobody."""
    server.answers["/data/upload/1/clip.mp4"] = whole_file(b"no video" * 1000)
    save_classifier(settings.model_root / "colours.pt", {0: "warm", 1: "cold"})
    app = init_app(YOLO, settings=settings.model_copy(update={"label_studio_url": server.url}))
    client, jobs = app.test_client(), app.extensions["jobs"]
    task = {"id": 31, "data": {"video": "/data/upload/1/clip.mp4"}}
    text = config('model_path="colours.pt"', ("warm", "cold"))
    body = {"project": "7", "label_config": text, "tasks": [task]}
    jobs.registry.get("7", text).check_ready()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(client.post, "/predict", json=body)
        wait_until(lambda: jobs.store.jobs("queued"), 10, "the job")
        work_off(jobs)
        assert answer.result().status_code == 404
    for logger in ("ml_backend.jobs.runner", "ml_backend.web.predictions"):
        (entry,) = [entry for entry in map(json.loads, json_lines.getvalue().splitlines()) if entry["logger"] == logger]
        assert (entry["level"], entry["project"], entry["task"]) == ("WARNING", "7", "31")
        assert "clip.mp4 is not a video" in entry["message"]
        assert str(settings.cache_dir) not in entry["message"]
    jobs.store.close()
