"""`Pages`: what the dashboard's pages and buttons share."""

from __future__ import annotations

from typing import Any

from flask import Response, make_response, redirect, render_template, request, url_for

from errors import BackendError, InvalidRequest, NotFound
from ml_backend.base import LabelStudioMLBase
from ml_backend.dashboard.actions import csrf_token
from ml_backend.jobs.queue import Jobs
from ml_backend.registry import ModelRegistry
from ml_backend.store import Store
from ml_backend.store.tables import Project

# What the page says after an action. The address carries only the key.
DONE = {
    "train": "A training is queued.",
    "reset": "The model was forgotten.",
    "rollback": "The earlier version predicts now.",
    "cancel": "The job is being cancelled.",
    "retry": "The job is queued again.",
    "read": "The video is queued to be read.",
    "review": "The comparison is queued.",
    "confirm": "The place is confirmed. It isn't shown again unless its annotation changes.",
    "clear": "The video's features were dropped from the cache.",
}


class Pages:
    """Finds projects and models, and makes pages.

    Args:
        store: the state.
        registry: gives the projects' models.
        jobs: the job queue.
    """

    def __init__(self, store: Store, registry: ModelRegistry, jobs: Jobs) -> None:
        self._store = store
        self._registry = registry
        self._jobs = jobs

    def _project(self, project_id: str) -> tuple[Project, LabelStudioMLBase | None, str | None]:
        """Returns the project, its model or None, and why it has no model or None."""
        project = self._store.project(project_id)
        if project is None:
            raise NotFound(f"Project {project_id} isn't known here. Connect this backend to it in Label Studio.")
        try:
            return project, self._registry.get(project_id), None
        except BackendError as error:
            return project, None, str(error)

    def _model(self, project_id: str) -> LabelStudioMLBase:
        """The project's model. It raises where `_project` says why there is none."""
        _, model, error = self._project(project_id)
        if model is None:
            raise InvalidRequest(error or "")
        return model

    def _known_task(self, project_id: str, task_id: int) -> dict[str, Any]:
        task = self._store.known_task(project_id, task_id)
        if task is None:
            raise NotFound(f"Task {task_id} of project {project_id} isn't known here yet.")
        return task

    @staticmethod
    def _label_studio_url(project: Project, model: LabelStudioMLBase | None) -> str | None:
        """The address of the project's tasks in Label Studio, None where it isn't known."""
        url = model.connection.url if model else None
        is_address = url is not None and url.startswith(("http://", "https://"))  # no `javascript:` in a link
        return f"{url.rstrip('/')}/projects/{project.number}/data" if is_address else None

    @staticmethod
    def _page(template: str, status: int = 200, **values: Any) -> Response:
        done = DONE.get(request.args.get("done", ""))
        return make_response(render_template(template, csrf=csrf_token(), done=done, **values), status)

    @staticmethod
    def _back(action: str, endpoint: str, **values: Any) -> Response:
        return redirect(url_for(endpoint, done=action, **values), 303)
