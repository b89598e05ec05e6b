"""The page on which a project's annotations are looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Response, request

from ml_backend.dashboard import overview
from ml_backend.dashboard.findings import confirm, findings
from ml_backend.jobs.queue import Jobs
from ml_backend.store import Store

# Nobody looks at more at once; those that follow come when these are confirmed or corrected.
MAX_SHOWN = 20


class Review:
    """Serves the page and its buttons.

    Args:
        store: the state.
        jobs: the job queue.
        project: finds a project, its model or None, and why it has none.
        model: finds a project's model, or raises.
        page: makes a page of a template and its values.
        back: leads back to a page after a button's action.
        label_studio_url: the address of a project's tasks in Label Studio, or None.
    """

    def __init__(
        self,
        store: Store,
        jobs: Jobs,
        project: Callable[[str], tuple[Any, Any, str | None]],
        model: Callable[[str], Any],
        page: Callable[..., Response],
        back: Callable[..., Response],
        label_studio_url: Callable[[Any, Any], str | None],
    ) -> None:
        self._store = store
        self._jobs = jobs
        self._project = project
        self._model = model
        self._page = page
        self._back = back
        self._label_studio_url = label_studio_url

    def routes(self) -> dict[str, tuple[Callable[..., Response], str]]:
        """The addresses below a project's -> what serves them, and the method."""
        return {
            "review": (self.review, "GET"),
            "review/start": (self.start_review, "POST"),
            "review/confirm": (self.confirm_review, "POST"),
        }

    def review(self, project_id: str) -> Response:
        """The page."""
        project, model, error = self._project(project_id)
        job = self._jobs.live_review(project_id)
        found = findings(model, self._store) if model is not None else None
        return self._page(
            "review.html",
            project=project,
            error=error,
            found=found,
            max_shown=MAX_SHOWN,
            label_studio=self._label_studio_url(project, model),
            job=job and overview.job_entry(job, project.name),
        )

    def start_review(self, project_id: str) -> Response:
        """Queues a review."""
        self._project(project_id)
        self._jobs.add_review(project_id)
        return self._back("review", "dashboard.review", project_id=project_id)

    def confirm_review(self, project_id: str) -> Response:
        """Confirms a place."""
        confirm(self._model(project_id), self._store, [request.form.get("key", "")])
        return self._back("confirm", "dashboard.review", project_id=project_id)
