"""Label Studio's ML-backend protocol: routes, state, jobs, and the base class that a model implements."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_backend.base import LabelStudioMLBase, ModelResponse
    from ml_backend.web.app import init_app

__all__ = ["LabelStudioMLBase", "ModelResponse", "init_app"]

HOMES = {"LabelStudioMLBase": "base", "ModelResponse": "base", "init_app": "web.app"}


def __getattr__(name: str) -> Any:
    """Imports what `__all__` names on first use: gunicorn's first process needs the settings alone."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
