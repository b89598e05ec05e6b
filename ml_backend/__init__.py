"""Label Studio's ML-backend protocol: routes, state, jobs, and the base class that a model implements."""

from ml_backend.base import LabelStudioMLBase, ModelResponse
from ml_backend.web.app import init_app

__all__ = ["LabelStudioMLBase", "ModelResponse", "init_app"]
