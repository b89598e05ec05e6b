"""Label Studio as the backend sees it: its API (`client.py`), its tasks' files (`media.py`, `media_gate.py`),
its webhooks (`webhook_secret.py`)."""

from ml_backend.label_studio.client import Connection, who_am_i
from ml_backend.label_studio.predictions import create_prediction

__all__ = ["Connection", "create_prediction", "who_am_i"]
