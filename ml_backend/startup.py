"""The lines that the log shows at start, one fact in each."""

from __future__ import annotations

import logging
import socket
from pathlib import Path

import httpx
import sqlalchemy as sa
from label_studio_sdk.core.api_error import ApiError

from ml_backend.label_studio.client import TOKEN_ADVICE, Connection, LabelStudioError, who_am_i
from ml_backend.settings import Settings

logger = logging.getLogger(__name__)

# A personal access token is a JWT of three parts. Label Studio shows it whole only in the dialog that makes it.
JWT_PARTS = 3
ALL_INTERFACES = ("0.0.0.0", "::", "")


def server_lines(settings: Settings) -> list[str]:
    """The facts of the web server: address, authentication, database, cache."""
    host = "localhost" if settings.host in ALL_INTERFACES else settings.host
    elsewhere = ""
    if settings.host in ALL_INTERFACES:
        elsewhere = f"; from another machine http://{socket.gethostname()}:{settings.port}"
    if settings.password:
        authentication = f'on, user "{settings.basic_auth_user}"'
    elif settings.is_local:
        authentication = (
            "off, for this machine alone. For others, see docs/operations.md: HOST=0.0.0.0 with BASIC_AUTH_USER and "
            "BASIC_AUTH_PASS"
        )
    else:
        authentication = "off: whoever reaches the address may use the backend"
    workers = "in this server's worker" if settings.run_worker else "by workers that are started elsewhere"
    return [
        f"Address for Label Studio (Settings, Model, Connect Model): http://{host}:{settings.port}{elsewhere}",
        f"Authentication: {authentication}",
        f"Database: {database_words(settings.database)}",
        f"Cache: {settings.cache_dir}, up to {settings.cache_size_limit.human_readable(decimal=True)}",
        f"Jobs: done {workers}",
    ]


def database_words(url: str | sa.URL) -> str:
    """A database's kind and place, without user and password."""
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"SQLite, {Path(parsed.database or '').absolute()}"
    return f"PostgreSQL, {parsed.database} at {parsed.host or 'localhost'}:{parsed.port or 5432}"


def label_studio_line(settings: Settings) -> tuple[int, str]:
    """Asks Label Studio whether the key works. Returns the log level and a sentence with its address."""
    url, key = settings.label_studio_url, settings.secret("label_studio_api_key")
    if not url and key:
        return logging.WARNING, "Label Studio: LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL, and isn't used."
    if not url:
        return logging.INFO, "Label Studio: the address that it sends; LABEL_STUDIO_URL isn't set."
    if not key:
        return logging.INFO, f"Label Studio: {url}, without a key. {TOKEN_ADVICE}"
    try:
        user = who_am_i(Connection(url, key))
    except LabelStudioError as error:
        cause = error.__cause__
        if (isinstance(cause, ApiError) and cause.status_code in (401, 403)) or _is_shortened(key):
            return logging.WARNING, f"Label Studio: {url}. {_refused(key)}"
        if isinstance(cause, httpx.HTTPError):
            return logging.WARNING, f"Label Studio: {url} can't be reached now ({cause})."
        return logging.WARNING, f"Label Studio: {url}. {error}"
    return logging.INFO, f"Label Studio: {url}, its key works (user {user})."


def _is_shortened(key: str) -> bool:
    """Whether a key is the beginning of a JWT."""
    return key.startswith("ey") and key.count(".") < JWT_PARTS - 1


def _refused(key: str) -> str:
    sentence = "The token that you set was refused: copy it from the dialog that makes it."
    if _is_shortened(key):
        sentence += " It is shortened: a personal access token has three parts with dots between them."
    return sentence


def report_label_studio(settings: Settings) -> None:
    """Logs `label_studio_line`."""
    level, sentence = label_studio_line(settings)
    logger.log(level, "%s", sentence)
