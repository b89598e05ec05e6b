"""The backend's logs: one line an event on standard error, as text or, by LOG_FORMAT=json, as JSON."""

from __future__ import annotations

import json
import logging
import logging.config
import re
from datetime import datetime, timezone

# Where messages name what they are about, JSON lines have it as fields to search by.
SUBJECTS = {
    "project": re.compile(r"\bproject (\d+)\b", re.IGNORECASE),
    "task": re.compile(r"\btask (\d+)\b", re.IGNORECASE),
    "job": re.compile(r"\bjob ([0-9a-f]{32})\b", re.IGNORECASE),
}
# A token never stands in a log, whatever error text of another library brings it along.
SECRETS = re.compile(
    r"eyJ[\w-]+\.[\w-]+\.[\w-]*|(?<=Token )[0-9a-f]{40}\b|(?<=Bearer )\S+|(?<=Basic )[\w+/=]{8,}"
    r"|(?<=token=)[^\s&]+|(?<=Signature=)[^\s&]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
QUIET = ("alembic", "huey", "httpx", "werkzeug")


class LineFormatter(logging.Formatter):
    """Text, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; more than one where there is a traceback."""
        return SECRETS.sub("…", super().format(record))


class JsonFormatter(logging.Formatter):
    """A JSON object: time, level, process, logger, message, traceback, and project, task, job where it names them."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        message = SECRETS.sub("…", record.getMessage())
        entry = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": record.process,
            "logger": record.name,
            "message": message,
        }
        for name, pattern in SUBJECTS.items():
            found = pattern.search(message)
            if found:
                entry[name] = found.group(1)
        if record.exc_info:
            entry["traceback"] = SECRETS.sub("…", self.formatException(record.exc_info))
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
