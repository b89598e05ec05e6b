"""The secret by which a webhook proves that Label Studio sent it, put into Label Studio by the backend itself.

Label Studio sends a webhook without the connection's user and password, but with the headers that its settings name.
Where the backend has a key for Label Studio's API, it keeps `X-Webhook-Secret` among them. A webhook without it is not
believed: instead Label Studio is asked for its annotations.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from ml_backend import label_studio
from ml_backend.label_studio import Connection
from ml_backend.store import Store
from ml_backend.store.values import NO_PROJECT
from ml_backend.tables import Project

logger = logging.getLogger(__name__)

HEADER = "X-Webhook-Secret"
KEY = "webhook_key"
# The host by which Label Studio calls this backend in a project, from /setup.
OWN_HOST = "webhook_host"
# Whether the project's webhook was seen to send its secret.
PROVED = "webhook_proved"
# Whoever sends webhooks that aren't believed has Label Studio asked no more often than this.
CATCH_UP_SECONDS = 60.0


class WebhookSecrets:
    """The projects' secrets: `PROJECT.SIGNATURE`, of which one key in the store makes the signature.

    Args:
        store: the state.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key: bytes | None = None

    def of(self, project_id: str) -> str:
        """A project's secret, the header's value."""
        self._key = self._key or self._stored_key()
        return f"{project_id}.{hmac.new(self._key, project_id.encode(), hashlib.sha256).hexdigest()}"

    def project_of(self, given: str | None) -> str | None:
        """The project whose secret it is, None where it is none's."""
        project_id = (given or "").partition(".")[0]
        if not given or not hmac.compare_digest(given.encode(), self.of(project_id).encode()):
            return None
        return project_id

    def _stored_key(self) -> bytes:
        known = self._store.get_value(NO_PROJECT, KEY)
        return bytes.fromhex(known or self._store.set_value_once(NO_PROJECT, KEY, secrets.token_hex(32)))

    def put_in_place(self, connection: Connection, project: Project) -> bool:
        """Makes Label Studio send a project's secret with its webhook to this backend. Whether it does now.

        Raises:
            LabelStudioError: it can't be reached or refuses.
        """
        webhook = self._own(label_studio.webhooks(connection, int(project.number)), project.id)
        if webhook is None:
            return False
        headers = dict(webhook.headers or {})
        if headers.get(HEADER) != self.of(project.id):
            label_studio.set_webhook_headers(connection, webhook, headers | {HEADER: self.of(project.id)})
            logger.info("Project %s: its webhook in Label Studio sends the secret now", project.id)
        self._store.set_value(project.id, PROVED, "true")
        return True

    def _own(self, webhooks: list[Any], project_id: str) -> Any | None:
        """The webhook to this backend among a project's: by the host that /setup came to, else the only one."""
        candidates = [one for one in webhooks if urlsplit(one.url).path.endswith("/webhook")]
        host = self._store.get_value(project_id, OWN_HOST)
        own = [one for one in candidates if urlsplit(one.url).netloc == host] or candidates
        return own[0] if len(own) == 1 else None


class CatchUp:
    """Has Label Studio asked for what a webhook said that wasn't believed: at once, and no more often than each
    CATCH_UP_SECONDS; the last one is always followed.

    Args:
        ask: asks, in a project.
    """

    def __init__(self, ask: Callable[[str], object]) -> None:
        self._ask = ask
        self._next: dict[str, float] = {}  # project -> the time of its next question, in the future where one is due
        self._lock = threading.Lock()

    def __call__(self, project_id: str) -> None:
        now = time.monotonic()
        with self._lock:
            at = self._next.get(project_id, now)
            if at > now + CATCH_UP_SECONDS:
                return  # one is due already, after this webhook
            self._next[project_id] = max(at, now) + CATCH_UP_SECONDS
        if at <= now:
            self._ask(project_id)
        else:
            timer = threading.Timer(at - now, self._ask, [project_id])
            timer.daemon = True
            timer.start()
