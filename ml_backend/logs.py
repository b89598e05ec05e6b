"""Logs to standard error, one line for each event, as text or (LOG_FORMAT=json) as JSON."""

from __future__ import annotations

import json
import logging
import logging.config
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any

_subject: ContextVar[dict[str, str] | None] = ContextVar("subject", default=None)
# No token may stand in a log, whatever library's error text contains it. The patterns don't backtrack, so that the
# search takes a time in proportion to the text's length.
DOTTED = re.compile(r"[\w.-]+")
JWT_START, JWT_DOTS = "eyJ", 2
SECRETS = re.compile(
    r"(?<=Token )[0-9a-f]{40}\b|(?<=Bearer )\S+|(?<=Basic )[\w+/=]{8,}"
    r"|(?<=token=)[^\s&]+|(?<=Signature=)[^\s&]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
# Characters that end a line, move a terminal's cursor, or turn the direction of the text after them.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
QUIET = ("alembic", "httpx", "werkzeug")


@contextmanager
def about(**subject: object) -> Iterator[None]:
    """Adds fields, such as project, task and job, to the JSON lines that this thread logs inside the block. A field
    that is None is left out."""
    named = {name: str(value) for name, value in subject.items() if value is not None}
    token = _subject.set((_subject.get() or {}) | named)
    try:
        yield
    finally:
        _subject.reset(token)


def redact(text: str) -> str:
    """The text with each token and password replaced by an ellipsis."""
    return SECRETS.sub("…", DOTTED.sub(_cut_jwt, text))


def _cut_jwt(found: re.Match[str]) -> str:
    before, _, token = found[0].partition(JWT_START)
    return f"{before}…" if token.count(".") >= JWT_DOTS else found[0]


def _on_one_line(text: str) -> str:
    return CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class LineFormatter(logging.Formatter):
    """Formats a record as text without secrets: one line, and the indented lines of a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats the line, and the traceback where there is one."""
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Formats the line without the traceback."""
        return _on_one_line(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        """Formats the traceback."""
        return "\n".join(f"  {_on_one_line(line)}" for line in super().formatException(ei).splitlines())


class JsonFormatter(logging.Formatter):
    """Formats a record as a JSON object: time, level, process, logger, message, traceback and `about`'s fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = redact(record.getMessage())
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": message,
        }
        entry |= {name: redact(value) for name, value in (_subject.get() or {}).items()}
        if record.exc_info:
            entry["traceback"] = redact(self.formatException(record.exc_info))
        return json.dumps(entry, ensure_ascii=False)


def configure_logging(level: str, log_format: str) -> None:
    """Logs to standard error.

    Args:
        level: of the backend's own lines, such as INFO.
        log_format: "text" or "json".
    """
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "text": {
                    "()": LineFormatter,
                    "format": "%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s",
                },
                "json": {"()": JsonFormatter},
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": log_format}},
            "root": {"level": level, "handlers": ["stderr"]},
            "loggers": {name: {"level": "WARNING"} for name in QUIET},
        }
    )
