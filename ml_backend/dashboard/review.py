"""The page on which a project's annotations are looked at again."""

from __future__ import annotations

from flask import Response, request

from ml_backend.dashboard import overview
from ml_backend.dashboard.findings import confirm, findings
from ml_backend.dashboard.pages import Pages

# Nobody looks at more at once; those that follow come when these are confirmed or corrected.
MAX_SHOWN = 20


class Review(Pages):
    """Serves the page and its buttons."""

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
