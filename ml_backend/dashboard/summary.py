"""The page of a project's study: time budgets and transitions, and the same as CSV."""

from __future__ import annotations

import io
from typing import Any

from flask import Response, make_response, request

from errors import InvalidRequest, NotFound, NotReady
from ml_backend.dashboard.colours import colours
from ml_backend.dashboard.observations import Collected, Kind, collect
from ml_backend.dashboard.pages import Pages
from ml_backend.dashboard.study_plots import plots
from ml_backend.dashboard.study_tables import shown
from ml_backend.store import Store
from study.tables import TABLES

# A page of more takes longer than anybody waits: an hour of video is predicted in about two seconds. The command has no
# limit.
MAX_ANNOTATED, MAX_PREDICTED, MAX_PREDICTED_SECONDS = 2000, 100, 5 * 3600.0
# Each pair of labels is a row of the table of transitions.
MAX_LABELS = 500


class Summary(Pages):
    """Serves the page."""

    def summary(self, project_id: str) -> Response:
        """The page."""
        project, model, error = self._project(project_id)
        kind, by, found = self._kind(), request.args.get("by", ""), None
        try:
            found = self._collect(model, error, kind, by)
        except (InvalidRequest, NotReady) as failure:
            error = str(failure)
        return self._page(
            "summary.html",
            project=project,
            error=error,
            found=found,
            kind=kind,
            kinds=list(Kind),
            by=by,
            fields=found.fields if found else _fields(self._store, project_id),
            tables={name: shown(TABLES[name](found.observed)) for name in ("subjects", "videos")} if found else {},
            plots=plots(found.observed, colours(model)) if found else [],
            unknown=len({one.observation.task for one in found.observed if one.seconds is None}) if found else 0,
        )

    def summary_csv(self, project_id: str) -> Response:
        """A table of the page as CSV."""
        project, model, error = self._project(project_id)
        name = request.args.get("table", "videos")
        if name not in TABLES:
            raise NotFound(f"There is no table {name!r}. There are {', '.join(TABLES)}.")
        found = self._collect(model, error, self._kind(), request.args.get("by", ""))
        labels = max((len(one.labels) for one in found.observed), default=0)
        if name == "transitions" and labels > MAX_LABELS:
            raise InvalidRequest(
                f"{labels} labels have {labels**2} transitions, too many for a page. Write the table with the command: "
                f"cli.py summary --project {project.id}"
            )
        file = io.StringIO(newline="")
        TABLES[name](found.observed).write(file)
        response = make_response(file.getvalue())
        response.mimetype = "text/csv"
        response.headers["Content-Disposition"] = f'attachment; filename="project-{project.number}-{name}.csv"'
        return response

    def _collect(self, model: Any, error: str | None, kind: Kind, by: str) -> Collected:
        if model is None:
            raise InvalidRequest(error or "")
        limit = MAX_ANNOTATED if kind is Kind.ANNOTATIONS else MAX_PREDICTED
        return collect(model, self._store, kind, by, limit, MAX_PREDICTED_SECONDS)

    @staticmethod
    def _kind() -> Kind:
        asked = request.args.get("from", Kind.ANNOTATIONS.value)
        if asked not in [kind.value for kind in Kind]:
            raise InvalidRequest(f"from={asked!r} isn't one of {', '.join(Kind)}.")
        return Kind(asked)


def _fields(store: Store, project_id: str) -> list[str]:
    return list(dict.fromkeys(name for task in store.annotated_tasks(project_id) for name in task["data"]))
