"""Log lines: one an event, searchable, never with a token."""

from __future__ import annotations

import json
import logging

import pytest

from ml_backend.logs import JsonFormatter, LineFormatter

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
