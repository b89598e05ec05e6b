"""Find out in the background whether Label Studio can be reached, so that no page waits for it."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from errors import BackendError
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection

# A page that is opened after this time has it asked again.
ASK_AGAIN_SECONDS = 60.0


class Reached(NamedTuple):
    """Whether Label Studio can be reached.

    Attributes:
        ok: whether the address and the key work, None where that isn't known.
        text: what was found, or what is wrong and what helps.
    """

    ok: bool | None
    text: str


class LabelStudioState:
    """Remembers the last answer of one Label Studio.

    Args:
        connection: its address and the key.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reached = Reached(None, "being asked …")
        self._asked_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self) -> Reached:
        """Returns what is known now, and asks again in the background where the last answer is old."""
        connection = self._connection
        if not connection.url:
            return Reached(None, "LABEL_STUDIO_URL isn't set: the address that Label Studio sends is used")
        if not connection.api_key:
            return Reached(False, f"{connection.url}: uploaded videos can't be downloaded without LABEL_STUDIO_API_KEY")
        with self._lock:
            if time.monotonic() - self._asked_at > ASK_AGAIN_SECONDS:
                self._asked_at = time.monotonic()
                threading.Thread(target=self._ask, name="label-studio-state", daemon=True).start()
        return self._reached

    def _ask(self) -> None:
        try:
            who = label_studio.who_am_i(self._connection)
            self._reached = Reached(True, f"{self._connection.url}, as {who}")
        except BackendError as error:
            self._reached = Reached(False, str(error))
