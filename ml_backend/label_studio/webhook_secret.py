"""The secret header by which a webhook proves that Label Studio sent it.

Label Studio sends a webhook without the connection's user and password, but with the headers in the webhook's settings.
Where the backend has a key for Label Studio's API, it puts `X-Webhook-Secret` into these settings itself. A webhook
without the header isn't trusted; Label Studio is asked for its annotations instead.
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

from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection
from ml_backend.store import Store
from ml_backend.store.tables import Project
from ml_backend.store.values import NO_PROJECT

logger = logging.getLogger(__name__)

HEADER = "X-Webhook-Secret"
KEY = "webhook_key"
# The key of a project's value: the host by which Label Studio calls this backend, from /setup.
OWN_HOST = "webhook_host"
# The key of a project's value: whether the secret is in the project's webhook.
PROVED = "webhook_proved"
# The shortest time between two questions to Label Studio that untrusted webhooks lead to.
CATCH_UP_SECONDS = 60.0


class WebhookSecrets:
    """The projects' secrets, `PROJECT.SIGNATURE`. A key in the store signs them all.

    Args:
        store: the state.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._key: bytes | None = None

    def of(self, project_id: str) -> str:
        """A project's secret: the value of the header."""
        self._key = self._key or self._stored_key()
        return f"{project_id}.{hmac.new(self._key, project_id.encode(), hashlib.sha256).hexdigest()}"

    def project_of(self, given: str | None) -> str | None:
        """The project whose secret was given, None where it is no valid secret."""
        project_id = (given or "").partition(".")[0]
        if not given or not hmac.compare_digest(given.encode(), self.of(project_id).encode()):
            return None
        return project_id

    def _stored_key(self) -> bytes:
        known = self._store.get_value(NO_PROJECT, KEY)
        return bytes.fromhex(known or self._store.set_value_once(NO_PROJECT, KEY, secrets.token_hex(32)))

    def put_in_place(self, connection: Connection, project: Project) -> bool:
        """Puts a project's secret into its webhook in Label Studio. Returns whether the webhook was found.

        Raises:
            LabelStudioError: Label Studio can't be reached, or refuses.
        """
        webhook = self._own(label_studio.webhooks(connection, int(project.number)), project.id)
        if webhook is None:
            return False
        headers = dict(webhook.headers or {})
        if headers.get(HEADER) != self.of(project.id):
            label_studio.set_webhook_headers(connection, webhook, headers | {HEADER: self.of(project.id)})
            logger.info("Project %s: its webhook in Label Studio has the secret now", project.id)
        self._store.set_value(project.id, PROVED, "true")
        return True

    def _own(self, webhooks: list[Any], project_id: str) -> Any | None:
        """The project's webhook to this backend: the one with the host of /setup, else the only one, else None."""
        candidates = [one for one in webhooks if urlsplit(one.url).path.endswith("/webhook")]
        host = self._store.get_value(project_id, OWN_HOST)
        own = [one for one in candidates if urlsplit(one.url).netloc == host] or candidates
        return own[0] if len(own) == 1 else None


class CatchUp:
    """Asks Label Studio for its annotations after an untrusted webhook.

    It asks at once, and then at most once in CATCH_UP_SECONDS; after the last such webhook it always asks.

    Args:
        ask: has a project's annotations compared with Label Studio's.
    """

    def __init__(self, ask: Callable[[str], object]) -> None:
        self._ask = ask
        self._next: dict[str, float] = {}  # project -> the earliest time of its next question
        self._lock = threading.Lock()

    def __call__(self, project_id: str) -> None:
        now = time.monotonic()
        with self._lock:
            at = self._next.get(project_id, now)
            if at > now + CATCH_UP_SECONDS:
                return  # a question after this webhook is planned already
            self._next[project_id] = max(at, now) + CATCH_UP_SECONDS
        if at <= now:
            self._ask(project_id)
        else:
            timer = threading.Timer(at - now, self._ask, [project_id])
            timer.daemon = True
            timer.start()
