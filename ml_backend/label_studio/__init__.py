"""Label Studio as the backend sees it: its API (`client.py`), its tasks' files (`media.py`, `media_gate.py`),
its webhooks (`webhook_secret.py`)."""

from ml_backend.label_studio.client import Connection, create_prediction, who_am_i

__all__ = ["Connection", "create_prediction", "who_am_i"]
