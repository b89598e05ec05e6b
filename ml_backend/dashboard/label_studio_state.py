"""Whether Label Studio can be reached, for the overview."""

from __future__ import annotations

from typing import NamedTuple

from errors import BackendError
from ml_backend.dashboard.remembered import Remembered
from ml_backend.label_studio import client as label_studio
from ml_backend.label_studio.client import Connection


class Reached(NamedTuple):
    """Whether Label Studio can be reached.

    Attributes:
        ok: whether the address and the key work, None where that isn't known.
        text: what was found, or what is wrong and what helps.
    """

    ok: bool | None
    text: str


def reached(connection: Connection) -> Remembered[Reached]:
    """Whether a Label Studio can be reached with a key, which it is asked in the background."""
    if not connection.url:
        first = Reached(None, "LABEL_STUDIO_URL isn't set: the address that Label Studio sends is used")
    elif not connection.api_key:
        text = f"{connection.url}: uploaded videos can't be downloaded without LABEL_STUDIO_API_KEY"
        first = Reached(False, text)
    else:
        return Remembered(lambda: _ask(connection), Reached(None, "being asked …"))
    return Remembered(lambda: first, first)


def _ask(connection: Connection) -> Reached:
    try:
        return Reached(True, f"{connection.url}, as {label_studio.who_am_i(connection)}")
    except BackendError as error:
        return Reached(False, str(error))
