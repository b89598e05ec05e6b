"""Log lines: one an event, searchable, never with a token."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_backend import init_app
from ml_backend.logs import JsonFormatter, LineFormatter
from ml_backend.settings import Settings
from model import YOLO
from tests.http_server import Server, whole_file
from tests.servers import wait_until
from tests.test_jobs import close, work_off
from tests.test_timeline_labels import config, save_classifier

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
    line = JsonFormatter().format(record("Project %s, task %s: job %s\nfailed", "7", 12, JOB))
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["project"], entry["task"], entry["job"]) == ("7", "12", JOB)
    assert (entry["level"], entry["logger"]) == ("WARNING", "jobs")
    assert "project" not in json.loads(JsonFormatter().format(record("Nothing of that kind")))


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


def test_a_video_that_can_not_be_read_is_named_with_its_task(
    settings: Settings, server: Server, caplog: pytest.LogCaptureFixture
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
    (download,) = (settings.cache_dir / "media").iterdir()
    for logger in ("ml_backend.jobs", "ml_backend.predictions"):
        (refusal,) = [record for record in caplog.records if record.name == logger]
        entry = json.loads(JsonFormatter().format(refusal))
        assert (entry["level"], entry["project"], entry["task"]) == ("WARNING", "7", "31")
        assert "clip.mp4 is not a video" in entry["message"]
        assert download.name not in entry["message"]
    close(jobs)
