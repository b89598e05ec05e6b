"""Label Studio as the backend sees it: its API (`client.py`), the files of its tasks (`media.py`, behind `media_gate.py`)
and its webhooks (`webhook_secret.py`)."""

from ml_backend.label_studio.client import Connection, create_prediction, who_am_i

__all__ = ["Connection", "create_prediction", "who_am_i"]
